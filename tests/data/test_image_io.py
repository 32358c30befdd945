import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from parking.data.checking.findings import KINDS
from parking.data.image_io import UnreadableImageError, inspect_image, read_image

PIXELS = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


def test_pixels_are_rgb_whatever_the_path(tmp_path):
    path = tmp_path / "주차장 가.나" / "사진.PNG"
    path.parent.mkdir()
    Image.fromarray(PIXELS).save(path)
    image = read_image(str(path))
    np.testing.assert_array_equal(image, PIXELS)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous


def test_what_only_lists_or_reads_images_needs_no_torch():
    modules = "parking.data.image_io, parking.data.cache, parking.data.datasets.images, parking.challenge.splits"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules or 'detectron2' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def make_photo():
    small = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(small, (64, 48), interpolation=cv2.INTER_CUBIC)


def save_16_bit(path, image):
    cv2.imwrite(str(path), image.astype(np.uint16) * 257)


def save_formats(folder):
    """Save one file of each kind that a data set may hold; return the pixels as Pillow converts them to 8-bit RGB."""
    picture = Image.fromarray(make_photo())
    transparent = picture.convert("RGBA")
    transparent.putalpha(Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))))
    plain = {
        "rgb.png": picture,
        "gray.png": picture.convert("L"),
        "gray_alpha.png": picture.convert("LA"),
        "alpha.png": transparent,
        "palette.png": picture.convert("P"),
        "palette_alpha.png": transparent.quantize(),
        "bits.png": picture.convert("1"),
        "rgb.jpg": picture,
        "gray.jpg": picture.convert("L"),
        "cmyk.jpg": picture.convert("CMYK"),
        "rgb.webp": picture,
        "rgb.bmp": picture,
        "rgb.tif": picture,
    }
    expected = {}
    for name, image in plain.items():
        image.save(folder / name)
        with Image.open(folder / name) as saved:
            # Converted through RGBA, because Pillow warns about palettes with alpha.
            expected[name] = np.asarray((saved.convert("RGBA") if saved.mode == "P" else saved).convert("RGB"))
    picture.save(folder / "progressive.jpg", progressive=True)
    expected["progressive.jpg"] = expected["rgb.jpg"]
    photo = make_photo()
    save_16_bit(folder / "rgb_16.png", photo[..., ::-1])
    save_16_bit(folder / "gray_16.png", photo[..., 0])
    return {**expected, "rgb_16.png": photo, "gray_16.png": photo[..., :1].repeat(3, axis=2)}


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """Return a folder with one file of each kind, and the pixels by file name."""
    folder = tmp_path_factory.mktemp("formats")
    return folder, save_formats(folder)


def test_every_pixel_format_becomes_8_bit_rgb(formats):
    folder, pixels = formats
    for name, expected in pixels.items():
        image = read_image(folder / name)
        assert (image.dtype, image.shape) == (np.uint8, (48, 64, 3)), name
        # The conversion of CMYK is rounded differently.
        np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=1, err_msg=name)


def test_facts_about_every_format(formats):
    folder, pixels = formats
    facts = {name: inspect_image(folder / name) for name in pixels}
    modes = {name: one.header.mode for name, one in facts.items()}
    hashes = {name: one.content_hash for name, one in facts.items()}
    rgb = {"rgb.png", "rgb.jpg", "progressive.jpg", "rgb.webp", "rgb.bmp", "rgb.tif"}
    assert {name for name in modes if modes[name] == "RGB"} == rgb
    assert modes["gray.png"] == modes["gray.jpg"] == "L"
    assert (modes["alpha.png"], modes["palette.png"], modes["cmyk.jpg"]) == ("RGBA", "P", "CMYK")
    assert (modes["rgb_16.png"], modes["gray_16.png"]) == ("RGB;16", "I;16")
    assert hashes["rgb.png"] == hashes["rgb.bmp"] == hashes["rgb.tif"] == hashes["alpha.png"] == hashes["rgb_16.png"]
    assert len({hashes[name] for name in ("rgb.png", "rgb.jpg", "gray.png", "bits.png", "palette.png")}) == 5
    assert facts["rgb.png"].header == ("PNG", 48, 64, "RGB", 1, False, 0)
    assert (facts["rgb.png"].problem, facts["rgb.png"].detail) == (None, "")


@pytest.mark.parametrize("part", [0.3, 0.6, 0.95])
def test_a_file_that_is_cut_off_is_never_shown_in_part(formats, tmp_path, part):
    folder, pixels = formats
    for name in pixels:
        data = (folder / name).read_bytes()
        cut = tmp_path / f"cut_{name}"
        cut.write_bytes(data[: int(len(data) * part)])
        with pytest.raises(UnreadableImageError, match=r"cut_.*cut off") as info:
            read_image(cut)
        assert info.value.kind == "image_truncated", name
        facts = inspect_image(cut)
        assert (facts.problem, facts.content_hash) == ("image_truncated", ""), name
        assert facts.detail == str(info.value)


def test_a_thumbnail_does_not_hide_that_the_picture_is_cut_off(tmp_path):
    Image.fromarray(make_photo()).save(tmp_path / "small.jpg")
    Image.fromarray(make_photo()).save(tmp_path / "whole.jpg", exif=b"Exif\0\0" + (tmp_path / "small.jpg").read_bytes())
    data = (tmp_path / "whole.jpg").read_bytes()
    assert data.count(b"\xff\xd9") == 2
    assert read_image(tmp_path / "whole.jpg").shape == (48, 64, 3)
    (tmp_path / "trailing.jpg").write_bytes(data + bytes(5000))
    assert read_image(tmp_path / "trailing.jpg").shape == (48, 64, 3)
    (tmp_path / "cut.jpg").write_bytes(data[:-100])
    with pytest.raises(UnreadableImageError, match="cut off"):
        read_image(tmp_path / "cut.jpg")


def test_kinds_of_unreadable_files(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(make_photo()).save(tmp_path / "rgb.png")
    data = bytearray((tmp_path / "rgb.png").read_bytes())
    data[len(data) // 2] ^= 0x55
    (tmp_path / "damaged.png").write_bytes(data)
    kinds = {
        "empty.png": "image_empty",
        "text.png": "image_not_image",
        "missing.png": "image_missing",
        "folder.png": "image_unreadable",
        "damaged.png": "image_unreadable",
    }
    for name, kind in kinds.items():
        with pytest.raises(UnreadableImageError, match=name) as info:
            read_image(tmp_path / name)
        assert info.value.kind == kind == inspect_image(tmp_path / name).problem
        assert kind in KINDS
        assert pickle.loads(pickle.dumps(info.value)).kind == kind
