"""Decode pictures whose header was read; each decoder gets only files of its own format."""

import io
import re
import zlib

import cv2
import numpy as np
import simplejpeg
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from parking.data.decoding import jpeg_damage, pillow, tiff_tags
from parking.data.decoding.headers import Header, walk_png
from parking.data.decoding.kinds import PNG_START
from parking.data.decoding.problem import cut_off, damaged, unsupported
from parking.data.decoding.tiff_tags import first
from parking.utils.limits import MAX_JPEG_SCANS

_CV2_COLOR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_CV2_DEEP = _CV2_COLOR | cv2.IMREAD_ANYDEPTH
# Ask for BGR, because OpenCV 5.0 returns uninitialised memory if a TIFF with three 16-bit channels is read as RGB.
_CV2_DEEP_BGR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
# Look for the header of a PPM in this many bytes; only long comments could exceed them, and no program writes those.
_PPM_HEADER_BYTES = 4096
# _narrow refuses values that are all below this: they probably come from a camera of at most 14 bits, and a picture of
# their upper 8 bits would be nearly black.
_DARKEST_DEEP = 1 << 14
_TIFF_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}


def decode(data: bytes, header: Header) -> np.ndarray:
    """Decode the first picture of a file as it is stored, whatever its bit depth and number of channels.

    Alpha is dropped; 16 bits are reduced to 8 by :func:`_narrow`.

    Args:
        header: the header of ``data``, from :func:`.headers.read_header`, which has checked the size.

    Returns:
        uint8 (H, W, 3), RGB, contiguous.

    Raises:
        ImageProblem: the file is damaged, cut off, or of a kind that is not read.
    """
    if header.format == "JPEG":
        image = _decode_jpeg(data, header)
    elif header.format == "PNG":
        image = _decode_png(data, header)
    elif header.format == "WEBP":
        image = _decode_webp(data)
    elif header.format == "TIFF":
        image = _decode_tiff(data, header)
    else:
        image = _decode_by_pillow(data, header)
    if image.shape[:2] != header.stored_size:
        raise damaged("its pixels have another size than its header states")
    return image


def _decode_by_cv2(data: bytes, flags: int) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as e:
        raise damaged(e.err) from e
    if image is None:
        raise damaged()
    return image


def _decode_jpeg(data: bytes, header: Header) -> np.ndarray:
    if header.mode not in ("L", "RGB", "CMYK"):
        raise unsupported("a JPEG with another number of channels than 1, 3 or 4")
    # Check this first, because the decoder would report that a cut-off file is damaged.
    if jpeg_damage.is_cut_off(data):
        raise cut_off()
    if jpeg_damage.has_more_scans(data, MAX_JPEG_SCANS):
        raise unsupported(f"a JPEG of more than {MAX_JPEG_SCANS} scans")
    if header.bits != 8:
        raise unsupported(f"a JPEG of {header.bits} bits a channel")
    try:
        # Compare `header` with the size that the decoder reads, because the decoder takes memory for its own size.
        if simplejpeg.decode_jpeg_header(data)[:2] != header.stored_size:
            raise damaged("its headers contradict each other")
        # This decoder reports damage; other decoders silently fill up what is missing or return garbage.
        image = simplejpeg.decode_jpeg(data, "CMYK" if header.mode == "CMYK" else "RGB")
    except ValueError as e:
        if "SOF" in str(e):
            raise unsupported(f"a JPEG of a kind that is not read ({e})") from e
        raise damaged(str(e)) from e
    if jpeg_damage.has_hole(data):
        raise damaged("a part of it was overwritten with zeros")
    # Simplejpeg can only return CMYK as it is; OpenCV converts it to RGB.
    return _decode_by_cv2(data, _CV2_COLOR) if header.mode == "CMYK" else image


#: Chunks that only an animated PNG has; if they are removed, decoders return the still picture of the file.
_PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


def _decode_png(data: bytes, header: Header) -> np.ndarray:
    content, kind, kept = memoryview(data), b"", [data[: len(PNG_START)]]
    for kind, start, end in walk_png(lambda offset, length: data[offset : offset + length]):
        if end > len(data):
            raise cut_off()
        # OpenCV does not check the checksums of all chunks. Chunks whose kind begins with a small letter are not needed
        # for the pixels, so damage to them does not matter.
        if kind[0] < 0x60 and zlib.crc32(content[start + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise damaged(f"the checksum of its {kind.decode('latin-1')} is wrong")
        # Drop these chunks; otherwise, OpenCV would return the animation's first frame, or black if it finds no frame.
        if kind not in _PNG_ANIMATION:
            kept.append(content[start:end])
    if kind != b"IEND":
        raise cut_off()
    if sum(map(len, kept)) < len(data):  # copy only if chunks were removed
        data = b"".join(kept)
    if header.mode.endswith(";16"):
        return _narrow(_decode_by_cv2(data, _CV2_DEEP))
    return _decode_by_cv2(data, _CV2_COLOR)


def _decode_webp(data: bytes) -> np.ndarray:
    if len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise cut_off()
    return _decode_by_cv2(data, _CV2_COLOR)


def _decode_tiff(data: bytes, header: Header) -> np.ndarray:
    with pillow.explaining_errors():
        directory = tiff_tags.read_directory(io.BytesIO(data))
        if tiff_tags.lacks_parts(directory):
            raise damaged("it holds fewer rows than its header states")
    sample_format = first(directory, tiff_tags.SAMPLE_FORMAT, 1)
    if sample_format in _TIFF_FORMATS:
        raise unsupported(f"a TIFF of {_TIFF_FORMATS[sample_format]} values")
    if header.bits > 16:
        raise unsupported(f"a TIFF of {header.bits} bits a channel")
    if first(directory, tiff_tags.ORIENTATION, 1) != 1:
        # Pillow would turn the picture by its orientation, and so would OpenCV, in spite of IMREAD_IGNORE_ORIENTATION.
        data = tiff_tags.drop_orientation(data)
    if header.bits <= 8:
        # Use Pillow here, because OpenCV multiplies colours by alpha.
        return pillow.to_rgb(pillow.decode(io.BytesIO(data), "TIFF", header.stored_size))
    if not header.mode.startswith(("I;16", "L", "RGB")):
        raise unsupported(f"a TIFF of the kind {header.mode}")
    if header.mode == "I;16":
        values = np.asarray(pillow.decode(io.BytesIO(data), "TIFF", header.stored_size))
        values = values.astype(np.uint16)[..., np.newaxis].repeat(3, axis=2)
        # Scale values of fewer than 16 bits, and invert pictures in which 0 means white; Pillow does neither here.
        largest = (1 << header.bits) - 1
        if first(directory, tiff_tags.PHOTOMETRIC) == 0:
            values = largest - np.minimum(values, largest)
    elif first(directory, tiff_tags.PLANAR_CONFIG, 1) != 1:
        # OpenCV mixes up channels that are stored separately.
        raise unsupported("a TIFF of 16 bits a channel that stores each channel separately")
    else:
        values, largest = _decode_by_cv2(data, _CV2_DEEP_BGR), (1 << header.bits) - 1
        values = np.ascontiguousarray(values[..., ::-1])
    if values.dtype != np.uint16:
        raise unsupported(f"a TIFF of the kind {header.mode}")
    return _narrow(values, largest if largest < 65535 else _find_stated_maximum(directory))


def _find_stated_maximum(directory: ImageFileDirectory_v2) -> int | None:
    """Return the largest value that a 16-bit TIFF states; None unless this value is 2^bits - 1 for 9 to 15 bits."""
    for tag in (tiff_tags.S_MAX_SAMPLE, tiff_tags.MAX_SAMPLE):
        value = first(directory, tag)
        # Accept only 2^bits - 1. Any other number is just the brightest value in this picture; dividing by it would
        # brighten each picture differently.
        if value is not None and value in {(1 << bits) - 1 for bits in range(9, 16)}:
            return int(value)
    return None


def _decode_by_pillow(data: bytes, header: Header) -> np.ndarray:
    if header.format == "PPM" and _is_deep_ppm(data, header.stored_size):
        # Use OpenCV, because Pillow would keep only 8 bits of each colour, and _narrow looks at all 16 bits.
        return _narrow(np.ascontiguousarray(_decode_by_cv2(data, _CV2_DEEP_BGR)[..., ::-1]))
    image = pillow.decode(io.BytesIO(data), header.format, header.stored_size)
    if image.mode.startswith("I"):
        # The picture has more than 8 bits. Pillow has scaled it to 16 bits by the largest value that the file states.
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        is_stated = header.format != "JPEG2000" or _find_jpeg2000_bits(data) < 16
        return _narrow(values[..., np.newaxis].repeat(3, axis=2), 65535 if is_stated else None)
    if image.mode == "F":
        raise unsupported("a picture of floating-point values")
    return pillow.to_rgb(image)


def _is_deep_ppm(data: bytes, size: tuple[int, int]) -> bool:
    """Return whether a PGM or PPM states this (height, width) and a largest value of 65535."""
    found = re.match(rb"P[56]" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])+([0-9]+)" + rb"\s", data[:_PPM_HEADER_BYTES])
    return found is not None and tuple(map(int, found.groups())) == (*size[::-1], 65535)


def _find_jpeg2000_bits(data: bytes) -> int:
    """Return the number of bits a channel that the first segment of a JPEG 2000 states."""
    return (data[data.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1


def _narrow(values: np.ndarray, largest: int | None = None) -> np.ndarray:
    """Convert uint16 ``values`` to uint8; the result has the same shape and is contiguous.

    Args:
        largest: what the file states as the largest possible value, which becomes 255; None: it states nothing, and
            the upper 8 of the 16 bits are kept.

    Raises:
        ImageProblem: nothing is stated, and all values are so small that the picture would be nearly black. A dark
            picture of 8 bits whose values were multiplied by 256 or 257 is accepted.
    """
    top = int(values.max(initial=0))
    if largest is not None and largest < 65535 and top <= largest:
        return ((values.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)
    if largest is None and 0 < top < _DARKEST_DEEP and (values % 257).any() and (values & 255).any():
        raise unsupported(
            f"a picture of 16 bits a channel whose values only reach {top}, so that its 8-bit version is nearly black",
            "spread its values over all 16 bits, or convert it to 8-bit PNG or JPEG",
        )
    return np.ascontiguousarray(values >> 8).astype(np.uint8)
