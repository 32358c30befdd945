"""Read the tags in the directory of a TIFF; EXIF data has the same form."""

import struct
from typing import Any, BinaryIO

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from parking.data.decoding.problem import cut_off, unsupported

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, PHOTOMETRIC = 254, 256, 257, 258, 262
ORIENTATION, SAMPLES, MAX_SAMPLE, SAMPLE_FORMAT, S_MAX_SAMPLE = 274, 277, 281, 339, 341
PLANAR_CONFIG, DNG_VERSION = 284, 50706
STRIP_OFFSETS, ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 273, 278, 322, 323, 324

# Look at no more than this many tags of a directory; no program writes as many.
_MAX_TAGS = 4096
# TIFF type -> code of ``struct``, for the types in which an orientation may be stored: integers of 8, 16 and 32 bits.
_ORIENTATION_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}


def read_directory(file: BinaryIO) -> ImageFileDirectory_v2:
    """Read the tags of a TIFF's first picture; ``next`` of the result is the offset of the second picture's tags, or 0.

    Raises:
        ImageProblem: the file ends before its tags, or is of a kind whose tags Pillow misreads.
    """
    file.seek(0)
    start = file.read(16)
    if start[:4] == b"MM\0+":
        raise unsupported("a BigTIFF with the high byte first")
    directory = ImageFileDirectory_v2(start if start[:4] == b"II+\0" else start[:8])
    file.seek(directory.next)
    directory.load(file)
    if WIDTH not in directory:
        raise cut_off()
    return directory


def first(directory: ImageFileDirectory_v2, tag: int, default: Any = None) -> Any:
    """Return the first value of a tag; ``default`` if the directory lacks the tag."""
    values = directory.get(tag, default)
    # Pillow returns numbers of the type BYTE as bytes.
    return values[0] if isinstance(values, tuple | bytes) else values


def lacks_parts(directory: ImageFileDirectory_v2) -> bool:
    """Return whether strips or tiles of the picture are missing; a decoder would make their pixels black."""
    height, width = first(directory, HEIGHT, 0), first(directory, WIDTH, 0)
    part_height = first(directory, TILE_LENGTH if TILE_LENGTH in directory else ROWS_PER_STRIP) or height
    part_width = first(directory, TILE_WIDTH) or width
    num_needed = -(-height // part_height) * -(-width // part_width)
    num_layers = first(directory, SAMPLES, 1) if first(directory, PLANAR_CONFIG, 1) == 2 else 1
    offsets = directory.get(STRIP_OFFSETS, directory.get(TILE_OFFSETS, ()))
    return (len(offsets) if isinstance(offsets, tuple) else 1) < num_needed * num_layers


def read_orientation(exif: bytes) -> int:
    """Return the orientation, 1..8, that EXIF data states; 1 if it is missing or invalid."""
    exif = exif.removeprefix(b"Exif\0\0")
    found = _find_orientation(exif)
    if not found:
        return 1
    order, value_offset, entry = found
    code = _ORIENTATION_TYPES.get(struct.unpack_from(order + "H", exif, entry + 2)[0])
    return clean_orientation(struct.unpack_from(order + code, exif, entry + value_offset)[0]) if code else 1


def clean_orientation(value: Any) -> int:
    """Return ``value`` if it is a valid orientation, 1..8, else 1."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def drop_orientation(data: bytes) -> bytes:
    """Return a TIFF's bytes with the first picture's orientation set to upright, so that no decoder turns it."""
    found = _find_orientation(data)
    if not found:
        return data
    order, value_offset, entry = found
    changed = bytearray(data)
    # Change the type to a 16-bit integer, too: Pillow obeys an orientation of any type, and a fraction, for example, is
    # stored outside the entry.
    struct.pack_into(order + "H", changed, entry + 2, 3)
    struct.pack_into(order + ("Q" if value_offset == 12 else "I"), changed, entry + 4, 1)
    struct.pack_into(order + "H", changed, entry + value_offset, 1)
    return bytes(changed)


def _find_orientation(tiff: bytes) -> tuple[str, int, int] | None:
    """Find where a TIFF stores the orientation of its first picture.

    Pillow is not used, because it warns on the terminal about every small fault in EXIF, and photographs have many.

    Returns:
        The byte order as in ``struct``, the offset of the value in the entry, and the offset of the entry; None if the
        entry is missing.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    is_big = tiff[2:4] in (b"+\0", b"\0+")
    try:
        (start,) = struct.unpack_from(order + ("Q" if is_big else "I"), tiff, 8 if is_big else 4)
        (count,) = struct.unpack_from(order + ("Q" if is_big else "H"), tiff, start)
        entry_size, value_offset = (20, 12) if is_big else (12, 8)
        for entry in range(start + (8 if is_big else 2), len(tiff), entry_size)[: min(count, _MAX_TAGS)]:
            (tag,) = struct.unpack_from(order + "H", tiff, entry)
            if tag == ORIENTATION and entry + entry_size <= len(tiff):
                return order, value_offset, entry
    except (struct.error, OverflowError):
        pass
    return None
