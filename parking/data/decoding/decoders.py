"""Pixels of pictures whose header was read; each decoder sees only files of its own format."""

import io
import re
import zlib

import cv2
import numpy as np
import simplejpeg
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from parking.data.decoding import jpeg_damage, pillow, tiff_tags
from parking.data.decoding.deep import narrow
from parking.data.decoding.headers import Header, walk_png
from parking.data.decoding.kinds import PNG_START
from parking.data.decoding.problem import cut_off, damaged, unsupported
from parking.data.decoding.tiff_tags import first
from parking.utils.limits import MAX_JPEG_SCANS

_CV2_COLOR = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_CV2_DEEP = _CV2_COLOR | cv2.IMREAD_ANYDEPTH
# OpenCV 5.0 gives memory that was never written for a TIFF of three channels of 16 bits when it is asked for RGB.
_CV2_DEEP_BGR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | cv2.IMREAD_ANYDEPTH
# Longest header of a PPM that is read; only comments could make it longer, and no program writes such.
_PPM_HEADER_BYTES = 4096
_TIFF_FORMATS = {2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}


def decode(data: bytes, header: Header) -> np.ndarray:
    """The first picture of a file as it is stored, whatever its bit depth and number of channels.

    Alpha is dropped; of 16 bits the upper 8 are kept, see :func:`.deep.narrow`.

    Args:
        header: of ``data``, by which its size was found acceptable.

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
    # Check this first, because the decoder calls a cut-off file damaged.
    if jpeg_damage.is_cut_off(data):
        raise cut_off()
    if jpeg_damage.has_more_scans(data, MAX_JPEG_SCANS):
        raise unsupported(f"a JPEG of more than {MAX_JPEG_SCANS} scans")
    if header.bits != 8:
        raise unsupported(f"a JPEG of {header.bits} bits a channel")
    try:
        # The decoder takes memory by the size that its own parser reads, not ours.
        if simplejpeg.decode_jpeg_header(data)[:2] != header.stored_size:
            raise damaged("its headers contradict each other")
        # This decoder reports damage; others fill up what is missing or decode garbage, without a word.
        image = simplejpeg.decode_jpeg(data, "CMYK" if header.mode == "CMYK" else "RGB")
    except ValueError as e:
        if "SOF" in str(e):
            raise unsupported(f"a JPEG of a kind that is not read ({e})") from e
        raise damaged(str(e)) from e
    if jpeg_damage.has_hole(data):
        raise damaged("a part of it was overwritten with zeros")
    # Simplejpeg only gives the four inks; OpenCV mixes them to RGB.
    return _decode_by_cv2(data, _CV2_COLOR) if header.mode == "CMYK" else image


#: Chunks of a PNG that only an animation has; its picture is read without them, as by readers that know no animations.
_PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")


def _decode_png(data: bytes, header: Header) -> np.ndarray:
    content, kind, kept = memoryview(data), b"", [data[: len(PNG_START)]]
    for kind, start, end in walk_png(lambda offset, length: data[offset : offset + length]):
        if end > len(data):
            raise cut_off()
        # The decoder does not check all of these. Chunks whose kind begins with a small letter are not needed for the
        # pixels, so that damage to them does not matter.
        if kind[0] < 0x60 and zlib.crc32(content[start + 4 : end - 4]) != int.from_bytes(content[end - 4 : end], "big"):
            raise damaged(f"the checksum of its {kind.decode('latin-1')} is wrong")
        # OpenCV would show the first frame of the animation, or black for a frame that does not come.
        if kind not in _PNG_ANIMATION:
            kept.append(content[start:end])
    if kind != b"IEND":
        raise cut_off()
    if sum(map(len, kept)) < len(data):  # else a copy would take time for nothing
        data = b"".join(kept)
    if header.mode.endswith(";16"):
        return narrow(_decode_by_cv2(data, _CV2_DEEP))
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
    if header.orientation != 1:
        # Pillow turns the pictures, and so does OpenCV even if told not to.
        data = tiff_tags.drop_orientation(data)
    if header.bits <= 8:
        # Pillow, because OpenCV multiplies colours by alpha.
        return pillow.to_rgb(pillow.decode(io.BytesIO(data), "TIFF", header.stored_size))
    if not header.mode.startswith(("I;16", "L", "RGB")):
        raise unsupported(f"a TIFF of the kind {header.mode}")
    if header.mode == "I;16":
        values = np.asarray(pillow.decode(io.BytesIO(data), "TIFF", header.stored_size))
        values = values.astype(np.uint16)[..., np.newaxis].repeat(3, axis=2)
        # Pillow does not scale packed values, and inverts pictures whose zero is white only with 8 bits.
        largest = (1 << header.bits) - 1
        if first(directory, tiff_tags.PHOTOMETRIC) == 0:
            values = largest - np.minimum(values, largest)
    elif first(directory, tiff_tags.PLANAR_CONFIG, 1) != 1:
        # OpenCV mixes up channels that are stored separately.
        raise unsupported("a TIFF of 16 bits a channel that stores each channel for itself")
    else:
        values, largest = _decode_by_cv2(data, _CV2_DEEP_BGR), (1 << header.bits) - 1
        values = np.ascontiguousarray(values[..., ::-1])
    if values.dtype != np.uint16:
        raise unsupported(f"a TIFF of the kind {header.mode}")
    return narrow(values, largest if largest < 65535 else _find_stated_maximum(directory))


def _find_stated_maximum(directory: ImageFileDirectory_v2) -> int | None:
    """What a TIFF of 16 bits says its largest possible value is; None if it says nothing of use."""
    for tag in (tiff_tags.S_MAX_SAMPLE, tiff_tags.MAX_SAMPLE):
        value = first(directory, tag)
        # Any other number is the largest value in the picture: dividing by it would brighten each picture differently.
        if value is not None and value in {(1 << bits) - 1 for bits in range(9, 16)}:
            return int(value)
    return None


def _decode_by_pillow(data: bytes, header: Header) -> np.ndarray:
    if header.format == "PPM" and _is_deep_ppm(data, header.stored_size):
        # Pillow would keep 8 bits of each colour, from which nobody can tell how many of the 16 bits are used.
        return narrow(np.ascontiguousarray(_decode_by_cv2(data, _CV2_DEEP_BGR)[..., ::-1]))
    image = pillow.decode(io.BytesIO(data), header.format, header.stored_size)
    if image.mode.startswith("I"):
        # Pillow scales the values of these formats to 16 bits by the largest value that the file states.
        values = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
        is_stated = header.format != "JPEG2000" or _find_jpeg2000_bits(data) < 16
        return narrow(values[..., np.newaxis].repeat(3, axis=2), 65535 if is_stated else None)
    if image.mode == "F":
        raise unsupported("a picture of floating-point values")
    return pillow.to_rgb(image)


def _is_deep_ppm(data: bytes, size: tuple[int, int]) -> bool:
    """Whether a PGM or PPM of this height and width states 65535 as its largest value, which says nothing."""
    found = re.match(rb"P[56]" + 3 * rb"(?:\s|#[^\r\n]*[\r\n])+([0-9]+)" + rb"\s", data[:_PPM_HEADER_BYTES])
    return found is not None and tuple(map(int, found.groups())) == (*size[::-1], 65535)


def _find_jpeg2000_bits(data: bytes) -> int:
    """Return the bits of a sample of a JPEG 2000, which its first segment states behind the sizes."""
    return (data[data.index(b"\xff\x4f\xff\x51") + 42] & 0x7F) + 1
