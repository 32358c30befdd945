"""Reading files that must be text; the error says what any other file is."""

import codecs
import os

from .errors import UserError
from .files import open_regular
from .text import printable

_CHUNK = 16 << 20
# Bytes that are enough to tell what a file is.
_START_BYTES = 1024

_BINARY_STARTS = {
    b"PK\x03\x04": "is a zip file; unpack it and name the file that was in it",
    b"PK\x05\x06": "is an empty zip file; name the file itself",
    b"\x1f\x8b": "is packed with gzip; unpack it (gunzip) and name the file that was in it",
    b"BZh": "is packed with bzip2; unpack it (bunzip2) and name the file that was in it",
    b"\xfd7zXZ\0": "is packed with xz; unpack it (unxz) and name the file that was in it",
    b"7z\xbc\xaf\x27\x1c": "is a 7z file; unpack it and name the file that was in it",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it (unzstd) and name the file that was in it",
    b"Rar!": "is a rar file; unpack it and name the file that was in it",
    b"%PDF": "is a PDF; name the file itself",
    b"\x89PNG": "is a picture (PNG); name the file itself",
    b"\xff\xd8\xff": "is a picture (JPEG); name the file itself",
    b"\x80\x02": "is a Python pickle; save its content in the right format",
    b"\x89HDF": "is an HDF5 file; save its content in the right format",
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; fetch that with 'git lfs pull'",
}
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_MARKUP_STARTS = {
    b"<!doctype html": "is a web page; the download gave a page instead of the file: download it anew",
    b"<html": "is a web page; the download gave a page instead of the file: download it anew",
    b"<?xml": "is XML; save its content in the right format",
}


class UnusableFileError(UserError):
    """A file that cannot be used.

    Attributes:
        detail: the message without the file's name and the full stop, such as "is a zip file; unpack it".
    """

    def __init__(self, path: str | os.PathLike, detail: str):
        super().__init__(f"'{printable(path)}' {detail}.")
        self.detail = detail


def read_text_file(path: str | os.PathLike, *, max_bytes: int) -> tuple[str, bool]:
    """All of a text file in UTF-8.

    Args:
        max_bytes: from :mod:`parking.utils.limits`.

    Returns:
        The text without a byte order mark, and whether the file begins with one.

    Raises:
        UnusableFileError: the file cannot be opened, is not a regular one, is too large, or is not such a text.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise UnusableFileError(path, f"has {size:,} bytes; files of its kind may have {max_bytes:,}")
            data = _read_without_nul(file, path, max_bytes)
    except (OSError, ValueError) as e:
        raise UnusableFileError(path, f"cannot be opened: {getattr(e, 'strerror', None) or e}") from e
    try:
        return data.decode("utf-8-sig"), data.startswith(codecs.BOM_UTF8)
    except UnicodeDecodeError as e:
        raise UnusableFileError(path, f"is not UTF-8 (at byte {e.start}); save it as UTF-8") from e


def describe_content(start: bytes) -> str | None:
    """What a file that begins like this is, and what to do, if it is a known kind that is not UTF-8 text.

    The rest of a sentence that begins with the file's name.
    """
    if not start:
        return "is empty"
    for magic, detail in _BINARY_STARTS.items():
        if start.startswith(magic):
            return detail
    encoding = _find_wide_encoding(start)
    if encoding:
        return f"is {encoding} text; save it as UTF-8"
    stripped = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next((detail for magic, detail in _MARKUP_STARTS.items() if stripped.startswith(magic)), None)


def _find_wide_encoding(start: bytes) -> str | None:
    for mark, encoding in _WIDE_MARKS.items():
        if start.startswith(mark):
            return encoding
    # Without a byte order mark: ASCII letters, each with one or three zeros.
    pair = [byte != 0 for byte in start[:4]]
    if len(pair) == 4 and sum(pair) == 1 and (pair[0] or pair[3]):
        return "UTF-32"
    return "UTF-16" if pair in ([True, False, True, False], [False, True, False, True]) else None


def _read_without_nul(file, path, max_bytes: int) -> bytes:
    chunks, size = [], 0
    while chunk := file.read(_CHUNK if chunks else _START_BYTES):
        if not chunks and (detail := describe_content(chunk)):
            raise UnusableFileError(path, detail)
        # A sparse file of many GB costs nothing to make, and no text holds a NUL.
        if b"\0" in chunk:
            position = size + chunk.index(b"\0")
            raise UnusableFileError(path, f"is not text (a NUL at byte {position}), or was not copied whole")
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise UnusableFileError(path, f"has more than the {max_bytes:,} bytes that files of its kind may have")
    if not chunks:
        raise UnusableFileError(path, "is empty")
    return b"".join(chunks)
