"""Eight orientations in every format that can state one."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from parking.data.decoding.orientation import turn, turn_size
from parking.data.image_io import UnreadableImageError, decode_image, read_image

from .tiffs import make_tiff

FORMATS = {
    "a.jpg": {"quality": 100, "subsampling": 0},
    "a.png": {},
    "a.webp": {"lossless": True},
    "a.tif": {},
    "a.mpo": {"quality": 100, "subsampling": 0, "save_all": True},
}
if features.check("avif"):
    FORMATS["a.avif"] = {"quality": 100, "subsampling": "4:4:4"}


def make_picture(height=32, width=48):
    small = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def turn_back(pixels, orientation):
    """The stored picture of an upright one; 6 and 8 undo each other, every other orientation undoes itself."""
    return turn(pixels, {6: 8, 8: 6}.get(orientation, orientation))


def save(picture, path, orientation, **options):
    """Store an upright picture so that ``orientation`` turns it upright again."""
    stored = Image.fromarray(turn_back(np.asarray(picture), orientation))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(path, exif=exif, **options)
    return np.asarray(stored)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turning_is_that_of_pillow(orientation):
    pixels = np.asarray(make_picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    np.testing.assert_array_equal(turn(pixels, orientation), expected)
    np.testing.assert_array_equal(turn_back(turn(pixels, orientation), orientation), pixels)
    assert turn_size(pixels.shape[:2], orientation) == expected.shape[:2]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_format_is_turned_alike(tmp_path, name, orientation):
    picture, path = make_picture(), tmp_path / name
    stored = save(picture, path, orientation, **FORMATS[name])
    atol = 0 if name in ("a.png", "a.webp", "a.tif") else 12
    height, width = stored.shape[:2]
    cases = [
        ({}, picture),
        ({"orientation": "apply"}, picture),
        ({"orientation": "ignore"}, stored),
        ({"orientation": "ignore", "stated": (height, width)}, stored),
    ]
    if orientation >= 5:
        cases += [({"stated": (height, width)}, stored), ({"stated": (width, height)}, picture)]
    elif orientation != 1:
        cases.append(({"stated": (height, width)}, stored))
    for options, expected in cases:
        image = read_image(path, **options)
        assert image.flags.c_contiguous
        np.testing.assert_allclose(image.astype(int), np.asarray(expected).astype(int), atol=atol, err_msg=str(options))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
def test_tiffs_of_every_depth_are_turned_alike(channels, order, is_big):
    picture = np.asarray(make_picture())[..., [0, 1, 2, 0]][..., :channels]
    expected = np.broadcast_to(picture[..., :3], (*picture.shape[:2], 3))
    for dtype, factor in ((np.uint8, 1), (np.uint16, 257)):
        for orientation in range(1, 9):
            stored = np.ascontiguousarray(turn_back(picture, orientation)).astype(dtype) * factor
            tags = {274: (3, [orientation])}
            content = make_tiff(stored, order=order, is_big=is_big, tags=tags)
            for policy, pixels in (("apply", expected), ("ignore", turn_back(expected, orientation))):
                image = decode_image(content, "a.tif", orientation=policy)
                np.testing.assert_array_equal(image, pixels, err_msg=f"{dtype} {orientation} {policy}")


@pytest.mark.parametrize("kind", [1, 3, 4, 6, 8, 9, 11, 12])
def test_an_orientation_of_any_type_turns_a_tiff_once(kind):
    picture = np.asarray(make_picture())
    for dtype in (np.uint8, np.uint16):
        content = make_tiff(picture.astype(dtype) * (257 if dtype == np.uint16 else 1), tags={274: (kind, [3])})
        np.testing.assert_array_equal(decode_image(content, "a.tif", orientation="ignore"), picture)
        # Floating-point numbers (types 11 and 12) are no orientations.
        upright = turn(picture, 3 if kind < 11 else 1)
        np.testing.assert_array_equal(decode_image(content, "a.tif", orientation="apply"), upright)


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_xmp_of_a_tiff_turns_nothing(orientation, dtype):
    picture = np.asarray(make_picture())
    for stored in (picture, picture[..., 0]):
        xmp = f'<rdf:Description tiff:Orientation="{orientation}"/>'.encode()
        content = make_tiff(stored.astype(dtype) * (257 if dtype == np.uint16 else 1), tags={700: (1, list(xmp))})
        image = decode_image(content, "a.tif")
        np.testing.assert_array_equal(image, np.broadcast_to(np.atleast_3d(stored), image.shape))


def test_a_size_that_the_policy_does_not_give_is_refused(tmp_path):
    save(make_picture(), tmp_path / "a.jpg", 6)  # stored 32 wide and 48 high
    for options in (
        {"orientation": "apply", "stated": (48, 32)},
        {"orientation": "ignore", "stated": (32, 48)},
        {"stated": (31, 48)},
    ):
        with pytest.raises(UnreadableImageError, match=r"a\.jpg.*json") as info:
            read_image(tmp_path / "a.jpg", **options)
        assert info.value.kind == "size_differs"


def test_damaged_exif_turns_nothing(tmp_path):
    save(make_picture(), tmp_path / "a.png", 6)
    data = bytearray((tmp_path / "a.png").read_bytes())
    data[data.index(b"eXIf") + 12] ^= 0xFF
    (tmp_path / "a.png").write_bytes(data)
    assert read_image(tmp_path / "a.png").shape == (48, 32, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    make_picture().save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (32, 48, 3)
