"""Zeros in the pixels of a JPEG are damage, unless its tables give zeros a meaning of their own."""

import io

import numpy as np
import pytest
from PIL import Image

from parking.data.decoding.jpeg_damage import has_hole, has_more_scans
from parking.data.image_io import UnreadableImageError, decode_image

NOISE = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)


def encode(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"optimize": True}, {"restart_marker_blocks": 8}])
def test_zeros_in_the_pixels(options):
    content = encode(NOISE, quality=90, **options)
    assert not has_hole(content)
    decode_image(content, "a.jpg")
    first = content.index(b"\xff\xda") + 100
    # Everywhere: where the zeros happen to stand for as many blocks as were there, the decoder sees nothing.
    for start in range(first, len(content) - 700, 97):
        for size in (300, 512):
            hole = content[:start] + bytes(size) + content[start + size :]
            assert has_hole(hole), (start, size)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg.*damaged"):
        decode_image(hole, "a.jpg")


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"quality": 100, "subsampling": 0}])
def test_flat_pictures_are_sound(options):
    for values in (0, 128, 255):
        decode_image(encode(np.full((1024, 2048, 3), values, np.uint8), **options), "a.jpg")
        # A corner with other contents decides about the tables.
        pixels = np.full((1024, 2048, 3), values, np.uint8)
        pixels[:96, :128] = NOISE
        decode_image(encode(pixels, **options), "a.jpg")
        decode_image(encode(pixels[..., 0], **options), "a.jpg")
    decode_image(encode(np.full((64, 64, 3), 9, np.uint8), comment=bytes(5000)), "a.jpg")
    decode_image(encode(np.full((64, 64, 3), 9, np.uint8)) + bytes(5000), "a.jpg")


def test_more_scans_than_any_picture_needs():
    content = encode(NOISE, progressive=True)
    last = content.rindex(b"\xff\xda")
    num_scans = content.count(b"\xff\xda")
    assert 5 < num_scans < 20
    many = content[:last] + content[last:-2] * 200 + content[-2:]
    assert has_more_scans(many, num_scans + 198) and not has_more_scans(many, num_scans + 199)
    with pytest.raises(UnreadableImageError, match=r"a\.jpg.*100 scans"):
        decode_image(many, "a.jpg")
    # What only looks like scans: in a comment, and behind the end.
    for options, rest in (({"comment": b"\xff\xda" * 500}, b""), ({}, b"\xff\xda" * 500)):
        content = encode(NOISE, progressive=True, **options) + rest
        assert not has_more_scans(content, 100)
        decode_image(content, "a.jpg")


@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\xd0", b"\xff\xd7"])
def test_markers_without_a_segment_hide_nothing(marker):
    sound = encode(NOISE, quality=90)
    first = sound.index(b"\xff\xda") + 100
    hole = sound[:first] + bytes(512) + sound[first + 512 :]
    scans = encode(NOISE, progressive=True)
    last = scans.rindex(b"\xff\xda")
    many = scans[:last] + (marker + scans[last:-2]) * 200 + scans[-2:]
    with_marker = [content[:2] + marker + content[2:] for content in (sound, hole, many)]
    np.testing.assert_array_equal(decode_image(with_marker[0], "a.jpg"), decode_image(sound, "a.jpg"))
    assert has_hole(with_marker[1])
    for content in (many, with_marker[2]):
        with pytest.raises(UnreadableImageError, match="100 scans"):
            decode_image(content, "a.jpg")
    # Taken for the length of a segment, the next marker leads to a scan without components at the end.
    comment = b"\xff\xfe" + (5000).to_bytes(2, "big") + bytes(4998)
    content = (sound[:2] + marker + comment + sound[2:]).ljust(4 + 0xFFFE, b"\0")
    content += b"\xff\xc0\0\x0b\x08\0\x09\0\x09\x03\0\0\0" + b"\xff\xda\0\2\3\0\xff\xd9"
    decode_image(content, "a.jpg")
