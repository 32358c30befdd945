"""Read the header of a picture without decoding its pixels."""

import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from typing import BinaryIO, NamedTuple

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from parking.data.decoding import pillow, tiff_tags
from parking.data.decoding.kinds import NUM_BYTES, PNG_START, describe_other, identify
from parking.data.decoding.orientation import Size, turn_size
from parking.data.decoding.problem import ImageProblem, cut_off, damaged, unsupported
from parking.data.decoding.tiff_tags import first, read_orientation
from parking.utils.limits import MAX_IMAGE_PIXELS

#: A function that returns the bytes of a file at (offset, length), or fewer bytes if the file ends earlier.
Reader = Callable[[int, int], bytes]

# Look at no more than this many segments of a JPEG, chunks of a PNG or WebP, or directories of a TIFF.
_MAX_PARTS = 10_000
_MAX_PROFILE_BYTES = 2**20

#: JPEG markers that stand alone, without a segment, such as the restart markers.
JPEG_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
#: JPEG marker of a scan's header, which is followed by the scan's pixels; JPEG marker of the end of the picture.
JPEG_SCAN, JPEG_END = 0xDA, 0xD9
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Markers of frames that can be decoded: baseline, extended and progressive with Huffman coding; extended and
# progressive with arithmetic coding.
_JPEG_READ_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_PNG_MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}


class Header(NamedTuple):
    """What a picture's header says.

    Attributes:
        format: one of :data:`.kinds.FORMATS`.
        height, width: in pixels, as they are stored.
        mode: Pillow's name of the pixel format, such as "RGB", "L", "P", "RGBA", "CMYK" or "I;16"; it ends with ";16"
            for 16-bit colours, which Pillow would reduce to 8 bits.
        orientation: the EXIF orientation, 1..8, which says how to turn the stored picture upright.
        has_more: whether there are further pictures (frames, pages) behind the first one.
        bits: bits a channel of a JPEG or TIFF; 0 for other formats.
    """

    format: str
    height: int
    width: int
    mode: str
    orientation: int = 1
    has_more: bool = False
    bits: int = 0

    @property
    def stored_size(self) -> Size:
        """Height and width as they are stored."""
        return self.height, self.width

    def get_size(self, *, is_upright: bool) -> Size:
        """Return height and width of the picture: turned upright by its orientation, or as it is stored."""
        return turn_size(self.stored_size, self.orientation) if is_upright else self.stored_size


def read_header(file: BinaryIO) -> Header:
    """Read the header of a picture from the beginning of ``file``, whatever its current position.

    Raises:
        ImageProblem: the file has no usable header, or the header states more than ``MAX_IMAGE_PIXELS`` pixels.
    """

    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    start = read(0, NUM_BYTES)
    if not start:
        raise ImageProblem("image_empty", "the file is empty")
    image_format = identify(start)
    if not image_format:
        raise describe_other(start)
    readers = {"JPEG": _read_jpeg, "PNG": _read_png, "WEBP": _read_webp}
    try:
        if image_format in readers:
            header = readers[image_format](read)
        else:
            header = _read_tiff(file) if image_format == "TIFF" else _read_by_pillow(file, image_format)
    except (struct.error, IndexError) as e:
        raise cut_off() from e
    if header.height < 1 or header.width < 1:
        raise damaged("its header states no size")
    if header.height * header.width > MAX_IMAGE_PIXELS:
        raise ImageProblem(
            "image_too_large",
            f"its header states {header.width} x {header.height} pixels, and at most {MAX_IMAGE_PIXELS:,} are read",
        )
    return header


def walk_jpeg(read: Reader) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment of a JPEG, up to the header of the first scan or the end marker.

    Raises:
        ImageProblem: the file ends before the last of these segments, or other bytes lie between the segments.
    """
    start = 2
    for _ in range(_MAX_PARTS):
        head = read(start, 4)
        if len(head) < 4:
            raise cut_off()
        if head[0] != 0xFF:
            raise damaged("other bytes stand where one of its segments must begin")
        marker = head[1]
        if marker == 0xFF:  # padding
            start += 1
        elif marker in JPEG_STANDALONE:
            start += 2
        else:
            end = start + 2 + int.from_bytes(head[2:], "big")
            yield marker, start, end
            if marker in (JPEG_SCAN, JPEG_END):
                return
            start = end


def _read_jpeg(read: Reader) -> Header:
    orientation, frame = 1, None
    for marker, start, end in walk_jpeg(read):
        if marker == 0xE1 and orientation == 1 and read(start + 4, 6) == b"Exif\0\0":
            orientation = read_orientation(read(start + 4, end - start - 4))
        elif marker in _JPEG_FRAMES and frame is None:
            if marker not in _JPEG_READ_FRAMES:
                raise unsupported("a lossless or hierarchical JPEG")
            frame = struct.unpack(">BHHB", read(start + 4, 6))
    if frame is None:
        raise damaged("it states no size before its pixels")
    bits, height, width, components = frame
    return Header("JPEG", height, width, {1: "L", 3: "RGB", 4: "CMYK"}.get(components, ""), orientation, bits=bits)


def _read_png(read: Reader) -> Header:
    width, height, depth, color = struct.unpack(">IIBB", read(16, 10))
    mode = _PNG_MODES.get(color, "")
    if read(12, 4) != b"IHDR" or not mode or depth not in (1, 2, 4, 8, 16):
        raise damaged("its header is not that of a PNG")
    if depth == 16:
        mode = "I;16" if mode == "L" else f"{mode};16"
    elif depth == 1 and mode == "L":
        mode = "1"
    orientation, has_more = None, False
    # Use only metadata before the pixels, as the PNG standard says and image viewers do.
    for kind, start, end in islice(walk_png(read), _MAX_PARTS):
        place, length = start + 8, end - start - 12
        if kind in (b"IDAT", b"IEND"):
            break
        if kind == b"acTL":
            has_more = int.from_bytes(read(place, 4), "big") > 1
        elif orientation is None and length < _MAX_PROFILE_BYTES:
            # Check the checksum, because damaged metadata must not turn a picture.
            if kind == b"eXIf" and zlib.crc32(read(start + 4, length + 4)) == int.from_bytes(read(end - 4, 4), "big"):
                orientation = read_orientation(read(place, length))
            elif kind in (b"tEXt", b"zTXt"):
                orientation = _read_raw_profile(kind, read(place, length))
    return Header("PNG", height, width, mode, orientation or 1, has_more)


def walk_png(read: Reader) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and end of each chunk of a PNG, up to IEND; the last end may lie beyond the end of the file."""
    start = len(PNG_START)
    while len(head := read(start, 8)) == 8:
        end = start + 12 + int.from_bytes(head[:4], "big")
        yield head[4:], start, end
        if head[4:] == b"IEND":
            return
        start = end


def _read_raw_profile(kind: bytes, content: bytes) -> int | None:
    """Return the orientation in EXIF data that ImageMagick wrote as a text chunk; None for any other ``content``.

    The text holds the length of the EXIF data in decimal, and then the data in hexadecimal digits.
    """
    keyword, _, text = content.partition(b"\0")
    if keyword not in (b"Raw profile type exif", b"Raw profile type APP1"):
        return None
    try:
        if kind == b"zTXt":
            text = zlib.decompressobj().decompress(text[1:], _MAX_PROFILE_BYTES)
        exif = bytes.fromhex("".join(text.decode("ascii").split("\n")[3:]))
    except (zlib.error, ValueError):
        return None
    return read_orientation(exif)


def _read_webp(read: Reader) -> Header:
    end = 8 + int.from_bytes(read(4, 4), "little")
    kind, head = read(12, 4), read(20, 10)
    if kind == b"VP8 ":
        if head[3:6] != b"\x9d\x01\x2a":
            raise damaged("its header is not that of a WebP")
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", head, 6))
        return Header("WEBP", height, width, "RGB")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", head, 1)
        if head[0] != 0x2F:
            raise damaged("its header is not that of a WebP")
        return Header("WEBP", (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1, "RGBA" if bits >> 28 & 1 else "RGB")
    if kind != b"VP8X":
        raise damaged("its header is not that of a WebP")
    if len(head) < 10:
        raise cut_off()
    width, height = (1 + int.from_bytes(head[i : i + 3], "little") for i in (4, 7))
    mode = "RGBA" if head[0] & 0x10 else "RGB"
    return Header("WEBP", height, width, mode, _find_webp_exif(read, end), bool(head[0] & 0x02))


def _find_webp_exif(read: Reader, end: int) -> int:
    offset = 12
    for _ in range(_MAX_PARTS):
        head = read(offset, 8)
        if len(head) < 8 or offset >= end:
            return 1
        length = int.from_bytes(head[4:], "little")
        if head[:4] == b"EXIF":
            return read_orientation(read(offset + 8, min(length, _MAX_PROFILE_BYTES)))
        offset += 8 + length + length % 2
    return 1


def _read_tiff(file: BinaryIO) -> Header:
    with pillow.explaining_errors():
        directory = tiff_tags.read_directory(file)
        height, width = first(directory, tiff_tags.HEIGHT, 0), first(directory, tiff_tags.WIDTH, 0)
        bits = max(directory.get(tiff_tags.BITS, (1,)))
        mode = _name_tiff_mode(directory, bits)
        if tiff_tags.DNG_VERSION in directory or first(directory, tiff_tags.PHOTOMETRIC) in (32803, 34892):
            raise unsupported("a camera's raw file", "convert it to JPEG")
        if first(directory, tiff_tags.NEW_SUBFILE_TYPE, 0) & 1:
            raise unsupported("a TIFF whose first picture is a preview of a later one, as in cameras' raw files")
        if not (isinstance(height, int) and isinstance(width, int)):
            raise damaged("its header states no size")
        orientation = tiff_tags.clean_orientation(first(directory, tiff_tags.ORIENTATION))
        return Header("TIFF", height, width, mode, orientation, _has_more_pages(file, directory), bits)


def _name_tiff_mode(directory: ImageFileDirectory_v2, bits: int) -> str:
    photometric, samples = first(directory, tiff_tags.PHOTOMETRIC, 1), first(directory, tiff_tags.SAMPLES, 1)
    mode = {0: "L", 1: "L", 2: "RGB", 3: "P", 5: "CMYK", 6: "RGB" if bits <= 8 else "YCbCr", 8: "LAB"}.get(
        photometric, ""
    )
    mode += "A" if (mode == "RGB" and samples > 3) or (mode == "L" and samples > 1) else ""
    if first(directory, tiff_tags.SAMPLE_FORMAT, 1) == 3:
        return "F" if mode == "L" else f"{mode};{bits}F"
    if bits == 1 and mode == "L":
        return "1"
    if bits > 8:
        return "I;16" if mode == "L" and bits <= 16 else f"{mode};{bits}"
    return mode


def _has_more_pages(file: BinaryIO, directory: ImageFileDirectory_v2) -> bool:
    """Return whether any later page of a TIFF is more than a smaller copy of the first page.

    Args:
        directory: the tags of the first page; changed to those of a later page.
    """
    seen = set()
    while directory.next and directory.next not in seen and len(seen) < _MAX_PARTS:
        seen.add(directory.next)
        file.seek(directory.next)
        directory.load(file)
        if directory and not first(directory, tiff_tags.NEW_SUBFILE_TYPE, 0) & 1:
            return True
    return False


def _read_by_pillow(file: BinaryIO, image_format: str) -> Header:
    with pillow.opened(file, image_format) as image:
        orientation = read_orientation(image.info.get("exif", b"")) if image_format == "AVIF" else 1
        has_more = getattr(image, "is_animated", False)
        return Header(image_format, image.height, image.width, image.mode, orientation, has_more)
