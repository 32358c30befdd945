"""Pictures of unusual pixel formats have the right values, or are refused with what they are."""

import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from parking.data.decoding import pillow
from parking.data.decoding.problem import ImageProblem
from parking.data.image_io import UnreadableImageError, inspect_image, read_image, read_image_header

from .tiffs import make_tiff, pack_bits

GRAY = np.linspace(0, 255, 48, dtype=np.uint8).reshape(6, 8)
RGB = np.stack([GRAY, GRAY[::-1], 255 - GRAY], axis=2)


def check(tmp_path, content, expected, atol=0, name="a.tif"):
    (tmp_path / name).write_bytes(content)
    image = read_image(tmp_path / name)
    assert (image.dtype, image.flags.c_contiguous) == (np.uint8, True)
    expected = np.broadcast_to(np.atleast_3d(expected), image.shape)
    np.testing.assert_allclose(image.astype(int), expected.astype(int), atol=atol)
    assert inspect_image(tmp_path / name).problem is None


def check_refused(tmp_path, content, match, name="a.tif", kind="image_unsupported"):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=match) as info:
        read_image(tmp_path / name)
    assert info.value.kind == kind == inspect_image(tmp_path / name).problem


def encode(values, name=".png"):
    return cv2.imencode(name, values[..., ::-1] if values.ndim == 3 and values.shape[2] == 3 else values)[1].tobytes()


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
def test_tiffs_of_8_and_16_bits(tmp_path, is_big, order):
    options = {"is_big": is_big, "order": order}
    alpha = np.dstack([RGB, np.tile(np.arange(8, dtype=np.uint8) * 36, (6, 1))])
    for values, expected in ((GRAY, GRAY), (RGB, RGB), (alpha, RGB)):
        check(tmp_path, make_tiff(values, **options), expected)
        check(tmp_path, make_tiff(values.astype(np.uint16) * 257, **options), expected)
    check(tmp_path, make_tiff(GRAY, photometric=0, **options), 255 - GRAY)
    content = make_tiff(GRAY.astype(np.uint16) * 257, photometric=0, **options)
    if order == "<":
        check(tmp_path, content, 255 - GRAY)
    else:
        check_refused(tmp_path, content, "cannot be read")


@pytest.mark.parametrize("channels", [3, 4])
def test_tiffs_that_store_each_channel_for_itself(tmp_path, channels):
    for kind in (np.uint8, np.uint16):
        values = np.dstack([RGB, GRAY])[..., :channels].astype(kind) * (257 if kind == np.uint16 else 1)
        size = GRAY.size * values.itemsize
        tags = {284: (3, [2]), 273: (4, [16 + i * size for i in range(channels)]), 279: (4, [size] * channels)}
        content = make_tiff(values, tags=tags, packed=np.ascontiguousarray(np.moveaxis(values, 2, 0)).tobytes())
        if kind == np.uint8:
            check(tmp_path, content, RGB)
        else:
            check_refused(tmp_path, content, "each channel")


def test_16_bits_of_other_colours_are_refused(tmp_path):
    for photometric, match in ((5, "CMYK"), (6, "YCbCr"), (8, "LAB")):
        values = np.dstack([RGB, GRAY])[..., : 4 if photometric == 5 else 3].astype(np.uint16) * 257
        check_refused(tmp_path, make_tiff(values, photometric=photometric, tags={338: (3, [])}), match)


def test_a_big_tiff_with_the_high_byte_first_is_refused(tmp_path):
    for values in (GRAY, RGB, RGB.astype(np.uint16) * 257):
        check_refused(tmp_path, make_tiff(values, is_big=True, order=">"), "BigTIFF")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_tiffs_of_few_bits(tmp_path, bits):
    largest = (1 << bits) - 1
    values = (np.arange(48).reshape(6, 8) % (largest + 1)).astype(np.uint8)
    expected = values * (255 // largest)
    options = {"bits": bits, "packed": pack_bits(values, bits)}
    check(tmp_path, make_tiff(values, **options), expected)
    check(tmp_path, make_tiff(values, photometric=0, **options), 255 - expected)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_between_8_and_16(tmp_path, bits):
    largest = (1 << bits) - 1
    values = np.linspace(0, largest, 48).astype(np.uint16).reshape(6, 8)
    expected = np.round(values * (255 / largest))
    # What the file states decides.
    for tag, kind in ((281, 3), (341, 3), (341, 12)):
        content = make_tiff(values, tags={tag: (kind, [largest])})
        check(tmp_path, content, expected, atol=1)
    three = np.stack([values, values[::-1], values], axis=2)
    rgb = np.stack([expected, expected[::-1], expected], axis=2)
    check(tmp_path, make_tiff(three, tags={281: (3, [largest] * 3)}), rgb, atol=1)
    for content, name in (
        (make_tiff(values), "a.tif"),
        (encode(values), "a.png"),
        (encode(three), "b.png"),
        (b"P5 8 6 65535\n" + values.astype(">u2").tobytes(), "a.pgm"),
        (b"P6 8 6 65535\n" + three.astype(">u2").tobytes(), "a.ppm"),
    ):
        check_refused(tmp_path, content, "16 bits", name)


def test_a_dark_picture_of_16_bits_that_was_one_of_8(tmp_path):
    for factor in (256, 257):
        for values in (GRAY // 8, RGB // 8, RGB * 0):
            check(tmp_path, encode(values.astype(np.uint16) * factor), values, name="a.png")


def test_16_bits_of_formats_that_state_the_largest_value(tmp_path):
    deep = RGB.astype(np.uint16) * 257 - (RGB > 9)
    check(tmp_path, b"P6\n# a comment\n8 6 65535\n" + deep.astype(">u2").tobytes(), RGB, 1, "a.ppm")
    check(tmp_path, b"P5 8 6 65535\n" + deep[..., 0].astype(">u2").tobytes(), GRAY, 1, "a.pgm")
    # The file states a brightness of 1/16.
    check(tmp_path, b"P5 8 6 4095\n" + (GRAY.astype(">u2")).tobytes(), GRAY / 16, 1, "b.pgm")
    Image.fromarray(deep[..., 0]).save(tmp_path / "a.jp2")
    check(tmp_path, (tmp_path / "a.jp2").read_bytes(), GRAY, 1, "a.jp2")
    Image.fromarray(deep[..., 0] >> 5).save(tmp_path / "a.jp2")
    check_refused(tmp_path, (tmp_path / "a.jp2").read_bytes(), "16 bits", "a.jp2")


def test_a_largest_value_that_only_occurs_is_no_scale(tmp_path):
    values = GRAY.astype(np.uint16) * 100
    check(tmp_path, make_tiff(values, tags={281: (3, [int(values.max())])}), values >> 8)


def test_12_bits_packed(tmp_path):
    values = np.linspace(0, 4095, 48).astype(np.uint16).reshape(6, 8)
    content = make_tiff(values, bits=12, packed=pack_bits(values, 12))
    check(tmp_path, content, np.round(values * (255 / 4095)), atol=1)


@pytest.mark.parametrize(
    ("values", "match"),
    [
        (GRAY.astype(np.float32), "floating-point"),
        (RGB.astype(np.float32), "floating-point"),
        (GRAY.astype(np.float64), "floating-point"),
        (GRAY.astype(np.int16), "signed"),
        (GRAY.astype(np.uint32), "32 bits"),
    ],
)
def test_values_without_a_meaning_as_colours_are_refused(tmp_path, values, match):
    check_refused(tmp_path, make_tiff(values), match)


def test_raw_files_of_cameras_are_refused(tmp_path):
    check_refused(tmp_path, make_tiff(RGB, tags={50706: (1, [1, 4, 0, 0])}), "raw file")
    check_refused(tmp_path, make_tiff(RGB, tags={254: (4, [1])}), "preview")
    check_refused(tmp_path, b"II*\0\x10\0\0\0CR\2\0" + bytes(100), "raw file")


def test_pillow_formats(tmp_path):
    picture = Image.fromarray(RGB)
    for name, expected in (("a.ppm", RGB), ("a.bmp", RGB), ("a.pgm", GRAY), ("gray.bmp", GRAY), ("a.gif", GRAY)):
        image = picture if expected is RGB else Image.fromarray(GRAY)
        image.save(tmp_path / name)
        check(tmp_path, (tmp_path / name).read_bytes(), expected, name=name)
    picture.save(tmp_path / "a.jp2")
    check(tmp_path, (tmp_path / "a.jp2").read_bytes(), RGB, name="a.jp2")
    # As the file states its largest value.
    check(tmp_path, b"P5\n3 1\n1023\n" + np.array([0, 512, 1023], ">u2").tobytes(), [[0, 127, 255]], 1, "deep.pgm")
    check(tmp_path, b"P2\n3 1\n15\n0 8 15\n", [[0, 136, 255]], name="plain.pgm")
    check(tmp_path, b"P4\n8 1\n\x0f", [[255] * 4 + [0] * 4], name="bits.pbm")


def test_png_of_16_bits_with_alpha_and_of_gray_with_a_transparent_colour(tmp_path):
    alpha = np.dstack([RGB[..., ::-1], 255 - GRAY]).astype(np.uint16) * 257
    check(tmp_path, encode(alpha), RGB, name="alpha.png")
    Image.fromarray(GRAY).save(tmp_path / "t.png", transparency=100)
    check(tmp_path, (tmp_path / "t.png").read_bytes(), GRAY, name="t.png")
    Image.fromarray(RGB).save(tmp_path / "t.png", transparency=tuple(RGB[0, 0].tolist()))
    check(tmp_path, (tmp_path / "t.png").read_bytes(), RGB, name="t.png")


def test_jpegs_of_kinds_that_are_not_read(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    frame = content.index(b"\xff\xc0")
    for marker in (0xC3, 0xC5, 0xCF):
        check_refused(tmp_path, content[: frame + 1] + bytes([marker]) + content[frame + 2 :], "lossless", "a.jpg")
    check_refused(tmp_path, content[: frame + 4] + b"\x0c" + content[frame + 5 :], "12 bits", "a.jpg")


def test_headers_that_contradict_each_other_take_no_memory(tmp_path):
    for name in ("a.tif", "a.gif", "a.bmp", "a.jp2", "a.ppm"):
        Image.fromarray(RGB).save(tmp_path / name)
        header = read_image_header(tmp_path / name)
        with open(tmp_path / name, "rb") as file:
            assert pillow.decode(file, header.format, (6, 8)).size == (8, 6)
            with pytest.raises(ImageProblem, match="contradict"):
                pillow.decode(file, header.format, (6, 9))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_sizes_of_a_tiff_that_occur_twice(tmp_path, dtype):
    values = RGB.astype(dtype) * (257 if dtype == np.uint16 else 1)
    # Before and behind the true ones; the first ones count.
    for tags, match in (((254, 255), "60000 x 60000"), ((260, 261), None)):
        content = make_tiff(values, tags={tag: (4, [60000]) for tag in tags})
        for tag, size_tag in zip(tags, (256, 257), strict=True):
            entry = (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + (60000).to_bytes(4, "little")
            content = content.replace(tag.to_bytes(2, "little") + entry, size_tag.to_bytes(2, "little") + entry)
        if match:
            check_refused(tmp_path, content, match, kind="image_too_large")
        else:
            check(tmp_path, content, RGB)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_strips_do_not_hold_all_rows(tmp_path, dtype):
    for values in (GRAY, RGB):
        deep = values.astype(dtype) * (257 if dtype == np.uint16 else 1)
        check(tmp_path, make_tiff(deep, tags={278: (4, [6])}), values)
        check(tmp_path, make_tiff(deep, tags={278: (4, [2**32 - 1])}), values)
        for tags in (
            {257: (4, [30])},
            {278: (4, [3])},
            {322: (4, [4]), 323: (4, [16]), 324: (4, [16]), 325: (4, [99])},
        ):
            content = make_tiff(deep, tags={278: (4, [6]), **tags})
            check_refused(tmp_path, content, "fewer rows", kind="image_unreadable")


def make_chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


@pytest.mark.parametrize("values", [RGB, GRAY, RGB.astype(np.uint16) * 257])
def test_an_animated_png_shows_its_picture(tmp_path, values):
    content = encode(values)
    start = content.index(b"IDAT") - 4
    control = make_chunk(b"acTL", (2).to_bytes(4, "big") + bytes(4))
    small = make_chunk(b"fcTL", b"".join(n.to_bytes(4, "big") for n in (0, 4, 4, 0, 0)) + bytes([0, 1, 0, 1, 0, 0]))
    for chunks in (control, control + small):
        (tmp_path / "a.png").write_bytes(content[:start] + chunks + content[start:])
        image = read_image(tmp_path / "a.png")
        np.testing.assert_array_equal(
            image, np.broadcast_to(np.atleast_3d(values), image.shape) >> (8 * (values.itemsize - 1))
        )
