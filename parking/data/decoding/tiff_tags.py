"""The tags of a TIFF directory, which is also what EXIF consists of."""

import struct
from collections.abc import Callable
from typing import NamedTuple

#: Returns the bytes (offset, length) of a file; fewer where it ends before.
Reader = Callable[[int, int], bytes]

NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
ORIENTATION, SAMPLES, MAX_SAMPLE, EXTRA_SAMPLES, SAMPLE_FORMAT, S_MAX_SAMPLE = 274, 277, 281, 338, 339, 341
PLANAR_CONFIG, DNG_VERSION = 284, 50706
STRIP_OFFSETS, ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 273, 278, 322, 323, 324

_WANTED = frozenset(
    {NEW_SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLES, MAX_SAMPLE}
    | {EXTRA_SAMPLES, SAMPLE_FORMAT, S_MAX_SAMPLE, PLANAR_CONFIG, DNG_VERSION, ROWS_PER_STRIP, TILE_WIDTH, TILE_LENGTH}
)
# By the number of a type: BYTE, SHORT, LONG, SBYTE, SSHORT, SLONG, FLOAT, DOUBLE, LONG8, SLONG8, IFD8.
_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 16: "Q", 17: "q", 18: "Q"}
# More tags in a directory than any program writes, and more values than a tag of _WANTED can need.
_MAX_TAGS, _MAX_VALUES = 4096, 64


class Directory(NamedTuple):
    """The tags of a picture.

    Attributes:
        tags: values of those that are of use here.
        next_offset: where the directory of the next picture begins, 0 without one.
        num_parts: strips or tiles for which a place is stated.
    """

    tags: dict[int, tuple]
    next_offset: int
    num_parts: int = 0

    def first(self, tag: int, default=None):
        """The first value of a tag."""
        return self.tags.get(tag, (default,))[0]

    def lacks_parts(self) -> bool:
        """Whether there are fewer strips or tiles than the picture's size needs: the rest would be black."""
        height, width = self.first(HEIGHT, 0), self.first(WIDTH, 0)
        part_height = self.first(TILE_LENGTH if TILE_LENGTH in self.tags else ROWS_PER_STRIP) or height
        part_width = self.first(TILE_WIDTH) or width
        num_needed = -(-height // part_height) * -(-width // part_width)
        return self.num_parts < num_needed * (self.first(SAMPLES, 1) if self.first(PLANAR_CONFIG, 1) == 2 else 1)


class _Entries(NamedTuple):
    """The entries of a directory: their bytes, where they begin in the file, and how they are to be read."""

    content: bytes
    offset: int
    order: str
    is_big: bool

    @property
    def size(self) -> int:
        """Bytes of an entry."""
        return 20 if self.is_big else 12


def read_directory(read: Reader, offset: int | None = None) -> Directory | None:
    """The directory at ``offset``, by default the first one; None for what is not a TIFF or is cut off before it."""
    try:
        entries = _read_entries(read, offset)
        if entries is None:
            return None
        content, start, order, is_big = entries
        rest = read(start + len(content), 8 if is_big else 4)
        next_offset = int.from_bytes(rest, "little" if order == "<" else "big")
        pairs = (_read_entry(read, content, i, order, is_big) for i in range(0, len(content), entries.size))
        tags: dict[int, tuple] = {}
        for tag, values in pairs:
            # The first one counts, as for libtiff.
            if values:
                tags.setdefault(tag, values)
        return Directory(tags, next_offset, _count_parts(entries))
    except (struct.error, OverflowError):
        return None


def _count_parts(entries: _Entries) -> int:
    content, _, order, is_big = entries
    for i in range(0, len(content), entries.size):
        tag, _, count = struct.unpack_from(order + ("HHQ" if is_big else "HHI"), content, i)
        if tag in (STRIP_OFFSETS, TILE_OFFSETS):
            return count
    return 0


def drop_orientation(data: bytes) -> bytes:
    """A TIFF whose first picture states no other orientation than upright, so that no decoder turns it."""
    entries = _read_entries(lambda offset, length: data[offset : offset + length], None)
    if entries is None:
        return data
    content, start, order, is_big = entries
    changed = bytearray(data)
    for i in range(0, len(content), entries.size):
        if struct.unpack_from(order + "H", content, i)[0] == ORIENTATION:
            upright = struct.pack(order + ("HHQH" if is_big else "HHIH"), ORIENTATION, 3, 1, 1)
            changed[start + i : start + i + entries.size] = upright.ljust(entries.size, b"\0")
    return bytes(changed)


def _read_entries(read: Reader, offset: int | None) -> _Entries | None:
    start = read(0, 16)
    order = {b"II": "<", b"MM": ">"}.get(start[:2])
    if order is None or len(start) < 8:
        return None
    is_big = struct.unpack_from(order + "H", start, 2)[0] == 43
    if offset is None:
        offset = struct.unpack_from(order + ("Q" if is_big else "I"), start, 8 if is_big else 4)[0]
    count_size, entry_size = (8, 20) if is_big else (2, 12)
    (count,) = struct.unpack(order + ("Q" if is_big else "H"), read(offset, count_size))
    if count > _MAX_TAGS:
        return None
    content = read(offset + count_size, count * entry_size)
    return None if len(content) < count * entry_size else _Entries(content, offset + count_size, order, is_big)


def read_orientation(exif: bytes) -> int:
    """The orientation, 1..8, that EXIF states; 1 where it states none, or something else."""
    exif = exif.removeprefix(b"Exif\0\0")
    directory = read_directory(lambda offset, length: exif[offset : offset + length])
    return clean_orientation(None if directory is None else directory.first(ORIENTATION))


def clean_orientation(value) -> int:
    """``value`` if it is an orientation, 1..8, else 1."""
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _read_entry(read: Reader, entries: bytes, start: int, order: str, is_big: bool) -> tuple[int, tuple]:
    tag, type_number = struct.unpack_from(order + "HH", entries, start)
    code = _TYPES.get(type_number)
    if tag not in _WANTED or code is None:
        return tag, ()
    (count,) = struct.unpack_from(order + ("Q" if is_big else "I"), entries, start + 4)
    if not 0 < count <= _MAX_VALUES:
        return tag, ()
    layout = f"{order}{count}{code}"
    size, inline = struct.calcsize(layout), 8 if is_big else 4
    value = entries[start + (12 if is_big else 8) :][:inline]
    if size > inline:
        value = read(struct.unpack(order + ("Q" if is_big else "I"), value)[0], size)
    return tag, struct.unpack(layout, value[:size])
