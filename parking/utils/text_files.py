"""Read files that must be text; if a file is something else, say in the error what it is."""

import codecs
import os

from .files import UnusableFileError, read_regular

# This many bytes at the beginning of a file are enough to tell what it is.
_START_BYTES = 1024

_PICTURE = "is a picture; name the file itself"
_UTF16 = "is UTF-16 text; save it as UTF-8"
_WEB_PAGE = "is a web page; the download gave a page instead of the file: download it anew"
_STARTS = {
    b"PK\x03\x04": "is a zip file; unpack it and name the file that was in it",
    b"\x1f\x8b": "is packed with gzip; unpack it (gunzip) and name the file that was in it",
    b"\x89PNG": _PICTURE,
    b"\xff\xd8\xff": _PICTURE,
    b"version https://git-lfs": "is a Git LFS pointer and not the file itself; fetch that with 'git lfs pull'",
    codecs.BOM_UTF16_LE: _UTF16,
    codecs.BOM_UTF16_BE: _UTF16,
    b"<!doctype html": _WEB_PAGE,
    b"<html": _WEB_PAGE,
    b"<?xml": "is XML; save its content in the right format",
}


def read_text_file(path: str | os.PathLike, *, max_bytes: int) -> tuple[str, bool]:
    """Read a whole text file in UTF-8.

    Args:
        max_bytes: from :mod:`parking.utils.limits`.

    Returns:
        The text without a byte order mark, and whether the file begins with one.

    Raises:
        UnusableFileError: the file cannot be opened, is not a regular file, is too large, or is not text in UTF-8.
    """
    try:
        data = read_regular(path, max_bytes=max_bytes)
    except (OSError, ValueError) as e:
        raise UnusableFileError(path, f"cannot be opened: {getattr(e, 'strerror', None) or e}") from e
    if detail := describe_content(data[:_START_BYTES]):
        raise UnusableFileError(path, detail)
    if b"\0" in data:
        place = data.index(b"\0")
        raise UnusableFileError(path, f"is not text (a NUL at byte {place}), or was not copied whole")
    try:
        return data.decode("utf-8-sig"), data.startswith(codecs.BOM_UTF8)
    except UnicodeDecodeError as e:
        raise UnusableFileError(path, f"is not UTF-8 (at byte {e.start}); save it as UTF-8") from e


def describe_content(start: bytes) -> str | None:
    """Say what a file that begins with ``start`` is and what the user can do, in words that follow the file's name.

    The result is None if the file may be UTF-8 text, or if its kind is not known.
    """
    if not start:
        return "is empty"
    markup = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next(
        (detail for magic, detail in _STARTS.items() if start.startswith(magic) or markup.startswith(magic)), None
    )
