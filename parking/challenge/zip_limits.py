"""Limits of a zip's list of contents, checked on its bytes before ``zipfile`` makes an object for each entry.

PKWARE's APPNOTE 6.3.10: central directory header (4.3.12) and end (4.3.16), zip64's end and locator (4.3.14, 4.3.15).
"""

import os
import struct
from collections.abc import Sequence
from typing import BinaryIO
from zipfile import BadZipFile, ZipInfo

from parking.utils.errors import UserError
from parking.utils.limits import (
    MAX_ARCHIVE_EXTRA_BYTES,
    MAX_ARCHIVE_LIST_BYTES,
    MAX_ARCHIVE_MEMBERS,
    MAX_ARCHIVE_RATIO,
    MAX_PATH_BYTES,
    MAX_PATH_FOLDERS,
    MIN_BOMB_BYTES,
)
from parking.utils.text import printable

_END, _END_MAGIC = struct.Struct("<4s4H2LH"), b"PK\5\6"
_LOCATOR, _LOCATOR_MAGIC = struct.Struct("<4sLQL"), b"PK\6\7"
_END64, _END64_MAGIC = struct.Struct("<4sQ2H2L4Q"), b"PK\6\6"
_ENTRY, _ENTRY_MAGIC = struct.Struct("<4s6H3L5H2L"), b"PK\1\2"
_LOCAL_HEADER_BYTES = 30
_MAX_COMMENT = 0xFFFF


def check_list(file: BinaryIO, path: str | os.PathLike) -> None:
    """Check the length of a zip's list of contents, the number of its entries, and the lengths of their names.

    Args:
        path: path of the zip, for errors.

    Raises:
        UserError: one of them is above its limit.
        BadZipFile: the file has no list of contents.
    """
    name = printable(path)
    size = _find_list_size(file)
    if size > MAX_ARCHIVE_LIST_BYTES:
        raise UserError(f"'{name}' lists its content in {size:,} bytes; {MAX_ARCHIVE_LIST_BYTES:,} are allowed.")
    content = file.read(size)
    start = num_entries = 0
    while start + _ENTRY.size <= len(content) and content[start : start + 4] == _ENTRY_MAGIC:
        lengths = _ENTRY.unpack_from(content, start)[10:13]
        num_entries += 1
        if num_entries > MAX_ARCHIVE_MEMBERS:
            raise UserError(f"'{name}' lists more than the {MAX_ARCHIVE_MEMBERS:,} files that are allowed.")
        raw = content[start + _ENTRY.size : start + _ENTRY.size + lengths[0]]
        num_folders = raw.count(b"/") + raw.count(b"\\")
        if lengths[0] > MAX_PATH_BYTES or num_folders > MAX_PATH_FOLDERS:
            raise UserError(
                f"'{name}' lists a name of {lengths[0]} bytes and {num_folders} folders, '{_show(raw)}...'; "
                f"{MAX_PATH_BYTES} bytes and {MAX_PATH_FOLDERS} folders are allowed."
            )
        # A search through the extra fields copies the rest of them at every step.
        if lengths[1] > MAX_ARCHIVE_EXTRA_BYTES:
            raise UserError(
                f"'{name}' lists {lengths[1]:,} bytes of extra fields for '{_show(raw)}'; "
                f"{MAX_ARCHIVE_EXTRA_BYTES:,} are allowed."
            )
        start += _ENTRY.size + sum(lengths)


def _show(raw: bytes) -> str:
    return printable(raw[:40].decode("utf-8", "replace"))


def check_sizes(infos: Sequence[ZipInfo], file: str | os.PathLike) -> None:
    """Raise a UserError if members share bytes of the zip, or would unpack to more than any real data do."""
    total, size = sum(info.file_size for info in infos), os.path.getsize(file)
    if total > max(MIN_BOMB_BYTES, MAX_ARCHIVE_RATIO * size):
        raise UserError(
            f"'{printable(file)}' has {size:,} bytes and would unpack to {total:,}, which no real data do; get it from "
            "a source you trust."
        )
    end, last = 0, ""
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise UserError(
                f"'{printable(file)}': '{printable(last)}' and '{printable(info.filename)}' share bytes of the zip; it "
                "is damaged or made to harm."
            )
        end, last = info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size, info.filename


def _find_list_size(file: BinaryIO) -> int:
    """Size in bytes of the list of contents; moves ``file`` to its beginning."""
    file_size = file.seek(0, os.SEEK_END)
    start = max(file_size - _MAX_COMMENT - _END.size - _LOCATOR.size, 0)
    file.seek(start)
    tail = file.read()
    found = tail.rfind(_END_MAGIC)
    if found < 0 or found + _END.size > len(tail):
        raise BadZipFile("it has no list of contents")
    size = _END.unpack_from(tail, found)[5]
    end = start + found
    if tail[max(found - _LOCATOR.size, 0) : found][:4] == _LOCATOR_MAGIC:
        end -= _LOCATOR.size + _END64.size
        if end < 0:
            raise BadZipFile("its list of contents is cut off")
        file.seek(end)
        header = file.read(_END64.size)
        if header[:4] == _END64_MAGIC:
            size = _END64.unpack(header)[8]
        else:
            end += _LOCATOR.size + _END64.size
    if size > end:
        raise BadZipFile("its list of contents is cut off")
    file.seek(end - size)
    return size
