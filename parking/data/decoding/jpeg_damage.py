"""Faults of a JPEG that no decoder reports: a lost end, zeros instead of pixels, more scans than any picture needs."""

import re
from collections.abc import Iterator

from parking.data.decoding.headers import JPEG_SCAN, JPEG_STANDALONE, walk_jpeg

_END, _HUFFMAN_TABLES = b"\xff\xd9", 0xC4
# Markers of frames whose one scan may hold all pixels, coded by Huffman: baseline and extended.
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
# More zero bytes than two whole blocks can have, each with 63 coefficients whose codes and signs are zero bits.
_HOLE = bytes(128)
# A marker among the pixels, other than stuffed bytes, padding, and markers without a segment.
_MARKER = re.compile(rb"\xff[^\x00\xff%b]" % bytes(JPEG_STANDALONE))


def is_cut_off(data: bytes) -> bool:
    """Whether the marker of the end is missing, perhaps with everything behind the first pixels."""
    # Segments before the pixels may hold a whole thumbnail, with an end of its own.
    _, start, _ = list(_walk(data))[-1]
    return data.rfind(_END, start) < 0


def has_hole(data: bytes) -> bool:
    """Whether a part of the pixels was overwritten with zeros, as failed disks and downloads leave it.

    In the tables of cameras and of most programs, zeros stand for coefficients of -1, one after the other, so that long
    runs of zeros occur in no picture. In tables where zeros may stand for flat areas, no hole is found.
    """
    if _HOLE not in data:
        return False
    first_symbols, num_components = {}, 0
    for marker, begin, end in _walk(data):
        if marker in _SEQUENTIAL_FRAMES and end - begin > 9:
            num_components = data[begin + 9]
        elif marker == _HUFFMAN_TABLES:
            first_symbols |= _read_first_symbols(data[begin + 4 : end])
        elif marker == JPEG_SCAN:
            # A scan with fewer components is followed by others, perhaps with other tables.
            if end > len(data) or data[begin + 4] != num_components:
                return False
            tables = [data[begin + 6 + 2 * i] & 0x0F for i in range(num_components)]
            if not any(first_symbols.get(table, 0) & 0x0F for table in tables):
                return False
            return data.find(_HOLE, end, data.find(_END, end)) >= 0
    return False


def has_more_scans(data: bytes, limit: int) -> bool:
    """Whether the first picture has more than ``limit`` scans: a decoder goes through all pixels for each."""
    if data.count(b"\xff\xda") <= limit:
        return False
    _, start, _ = list(_walk(data))[-1]
    num_scans = 0
    while num_scans <= limit and (found := _MARKER.search(data, start)):
        start = found.start()
        if data[start : start + 2] == _END:
            break
        num_scans += data[start + 1] == JPEG_SCAN
        start += 2 + max(int.from_bytes(data[start + 2 : start + 4], "big"), 2)
    return num_scans > limit


def _walk(data: bytes) -> Iterator[tuple[int, int, int]]:
    return walk_jpeg(lambda offset, length: data[offset : offset + length])


def _read_first_symbols(tables: bytes) -> dict[int, int]:
    """Return the symbol whose code consists of zeros, by the number of each table of AC coefficients."""
    symbols, start = {}, 0
    while start + 17 < len(tables):
        if tables[start] >> 4:
            symbols[tables[start] & 0x0F] = tables[start + 17]
        start += 17 + sum(tables[start + 1 : start + 17])
    return symbols
