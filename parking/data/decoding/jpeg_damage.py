"""Find faults of a JPEG that no decoder reports: a missing end, zeros in place of pixels, and far too many scans."""

import re
from collections.abc import Iterator

from parking.data.decoding.headers import JPEG_SCAN, JPEG_STANDALONE, walk_jpeg

_END, _HUFFMAN_TABLES = b"\xff\xd9", 0xC4
# Markers of the frames with Huffman coding whose pixels may all be in a single scan: baseline and extended.
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
# This many zero bytes in a row count as a hole: an intact picture would need more than two blocks in a row in which the
# codes and signs of all 63 coefficients consist of zero bits.
_HOLE = bytes(128)
# Matches a marker that begins a segment: the byte 0xff and one more byte. The second byte must not be 0x00 (then 0xff
# is pixel data), 0xff (then it is padding), or the code of a marker without a segment.
_MARKER = re.compile(rb"\xff[^\x00\xff%b]" % bytes(JPEG_STANDALONE))


def is_cut_off(data: bytes) -> bool:
    """Return whether a JPEG was cut off, so that no end marker follows the header of its first scan."""
    # Search only after that header, because a thumbnail in an earlier segment has an end marker of its own.
    _, start, _ = list(_walk(data))[-1]
    return data.rfind(_END, start) < 0


def has_hole(data: bytes) -> bool:
    """Return whether a part of the pixels was overwritten with zeros, as failing disks and downloads do.

    In the Huffman tables of cameras and most programs, zero bits mean one coefficient of -1 after another, so that no
    real picture has a long run of zeros. If the tables of a file let zero bits mean flat areas, the answer is False.
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
            # If the scan lacks components, answer False, because other scans follow, perhaps with other tables.
            if end > len(data) or data[begin + 4] != num_components:
                return False
            tables = [data[begin + 6 + 2 * i] & 0x0F for i in range(num_components)]
            if not any(first_symbols.get(table, 0) & 0x0F for table in tables):
                return False
            return data.find(_HOLE, end, data.find(_END, end)) >= 0
    return False


def has_more_scans(data: bytes, limit: int) -> bool:
    """Return whether a JPEG's first picture has more than ``limit`` scans; each may take as long as a whole picture."""
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
    """Map the number of each Huffman table of AC coefficients to the symbol whose code is all zero bits."""
    symbols, start = {}, 0
    while start + 17 < len(tables):
        if tables[start] >> 4:
            symbols[tables[start] & 0x0F] = tables[start + 17]
        start += 17 + sum(tables[start + 1 : start + 17])
    return symbols
