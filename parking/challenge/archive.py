"""Reading of zip files that may be damaged, hostile or made on other systems; needs neither torch nor detectron2.

The limits of a zip's list of contents are checked on its bytes before ``zipfile`` makes an object for each entry.
"""

import bz2
import copy
import lzma
import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from parking.data.datasets.file_names import name_key
from parking.utils.errors import UserError
from parking.utils.files import open_regular
from parking.utils.limits import (
    MAX_ARCHIVE_EXTRA_BYTES,
    MAX_ARCHIVE_LIST_BYTES,
    MAX_ARCHIVE_MEMBERS,
    MAX_ARCHIVE_RATIO,
    MAX_LZMA_BYTES,
    MAX_PATH_BYTES,
    MAX_PATH_FOLDERS,
    MIN_BOMB_BYTES,
)
from parking.utils.text import printable

# PKWARE's APPNOTE 6.3.10: general purpose bits (4.4.4), compression methods (4.4.5), Unicode path (4.6.9), LZMA (5.8),
# central directory header (4.3.12) and end (4.3.16), zip64's end and locator (4.3.14, 4.3.15).
_ENCRYPTED = 0x1 | 0x40
_LZMA_HAS_END = 0x2
_UTF8_NAME = 0x800
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
_METHOD_NAMES = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES encryption"}
_UNICODE_PATH = 0x7075
_DOS_FOLDER = 0x10
_CHUNK = 1 << 20
_END, _END_MAGIC = struct.Struct("<4s4H2LH"), b"PK\5\6"
_LOCATOR, _LOCATOR_MAGIC = struct.Struct("<4sLQL"), b"PK\6\7"
_END64, _END64_MAGIC = struct.Struct("<4sQ2H2L4Q"), b"PK\6\6"
_ENTRY, _ENTRY_MAGIC = struct.Struct("<4s6H3L5H2L"), b"PK\1\2"
_LOCAL_HEADER_BYTES = 30
_MAX_COMMENT = 0xFFFF
# Exceptions that a damaged zip may cause; bz2 raises an OSError without errno as well.
_DAMAGE = (
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    OSError,
)


class Member(NamedTuple):
    """A file in a zip.

    Attributes:
        path: relative path with slashes, without the leading folder; spelled as in the zip.
        size: bytes of the content, as the zip declares them.
        crc: CRC-32 of the content.
        info: the entry for ``zipfile``; the name in it may be decoded wrongly.
    """

    path: str
    size: int
    crc: int
    info: zipfile.ZipInfo


class Archive(NamedTuple):
    """The content of a zip.

    Attributes:
        file: path of the zip.
        members: its files, in the order of the zip.
        num_skipped: number of files that macOS adds (``__MACOSX``, ``.DS_Store``, ``._*``), not among ``members``.
    """

    file: Path
    members: list[Member]
    num_skipped: int

    @property
    def size(self) -> int:
        """Bytes of all members together."""
        return sum(member.size for member in self.members)


def is_macos_litter(path: str) -> bool:
    """Whether the file is one that macOS adds to folders and zips."""
    parts = path.split("/")
    return "__MACOSX" in parts or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


def read_archive(file: str | os.PathLike, *, leading_folder: str) -> Archive:
    """Read and check a zip's list of contents, without unpacking anything.

    Names are decoded as UTF-8 if the zip says so, else as UTF-8 or cp949, whichever fits. Backslashes separate folders
    as slashes do.

    Args:
        leading_folder: removed from the paths if all of them begin with it.

    Raises:
        UserError: the file is not a readable zip, or lists more than :mod:`parking.utils.limits` allows; or a member's
            name cannot be decoded or would leave the folder that it is unpacked to; or two members would be the same
            file or share bytes; or a member is a link, is encrypted, or needs a method of compression that Python
            lacks.
    """
    file = Path(file)
    with _open_zip(file) as archive:
        infos = archive.infolist()
    _check_sizes(infos, file)
    members, num_skipped = [], 0
    for info, name in zip(infos, _decode_names(infos, file), strict=True):
        if is_macos_litter(name.replace("\\", "/")):
            num_skipped += 1
            continue
        if _is_folder(info, name) and not name.strip("./\\"):
            continue  # an entry for the folder itself, which some programs write
        path = _to_relative_path(name, file)
        if _is_folder(info, name):
            continue
        _check_member(info, path, file)
        members.append(Member(path, info.file_size, info.CRC, info))
    if members and all(_is_below(member.path, leading_folder) for member in members):
        members = [member._replace(path=member.path.split("/", 1)[1]) for member in members]
    _check_collisions([member.path for member in members], file)
    return Archive(file, members, num_skipped)


@contextmanager
def open_members(archive: Archive) -> Iterator[Callable[[Member], Iterator[bytes]]]:
    """Yield a function ``read(member)``, which yields the content in pieces, at most ``member.size`` bytes in all.

    Raises:
        UserError: the zip cannot be opened; in ``read``, the content is damaged, or its size or checksum is not the
            declared one.
    """
    with _open_zip(archive.file) as opened:

        def read(member: Member) -> Iterator[bytes]:
            size = crc = 0
            with _explain_damage(archive.file, member.path):
                for chunk in _decompress(opened, member.info):
                    size += len(chunk)
                    if size > member.size:
                        break
                    crc = zlib.crc32(chunk, crc)
                    yield chunk
                if (size, crc) != (member.size, member.crc):
                    raise zipfile.BadZipFile("its size or checksum is not the declared one")

        yield read


def _decompress(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content in pieces of at most ``_CHUNK`` bytes, however strongly it is compressed."""
    if info.compress_type not in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with opened.open(info) as source:
            while chunk := source.read(_CHUNK):
                yield chunk
        return
    # zipfile puts no bound on what bzip2 and LZMA unpack to at once: a few kB can hold gigabytes.
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    del packed.CRC  # it is the checksum of the unpacked content
    with opened.open(packed) as source:
        is_bzip2 = info.compress_type == zipfile.ZIP_BZIP2
        decompressor = bz2.BZ2Decompressor() if is_bzip2 else _open_lzma(source, info)
        while not decompressor.eof:
            data = source.read(_CHUNK) if decompressor.needs_input else b""
            if decompressor.needs_input and not data:
                raise EOFError("its compressed data are cut off")
            yield decompressor.decompress(data, _CHUNK)


def _open_lzma(source, info: zipfile.ZipInfo) -> lzma.LZMADecompressor:
    """A decompressor for the data after the LZMA header, which is read from ``source``."""
    _, _, num_bytes = struct.unpack("<BBH", source.read(4))
    properties = source.read(num_bytes)
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=MAX_LZMA_BYTES)
    # A .lzma header consists of these properties and the size; a size of all ones means that the data has an end mark.
    size = 2**64 - 1 if info.flag_bits & _LZMA_HAS_END else info.file_size
    decompressor.decompress(properties + struct.pack("<Q", size), 0)
    return decompressor


@contextmanager
def _open_zip(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        opened = open_regular(file)
    except OSError as e:
        raise UserError(f"'{printable(file)}' cannot be opened: {e.strerror or e}.") from e
    with opened:
        with _explain_damage(file):
            _check_list(opened, file)
            archive = zipfile.ZipFile(opened)
        with archive:
            yield archive


@contextmanager
def _explain_damage(file: Path, path: str | None = None) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as e:
        if isinstance(e, OSError) and e.errno is not None:
            raise
        what = "it cannot be read as a zip" if path is None else f"'{path}' cannot be unpacked"
        raise UserError(
            f"'{file}' is damaged or was not copied whole: {what} ({str(e) or type(e).__name__}); "
            "get the file again, then run this again."
        ) from e


def _decode_names(infos: Sequence[zipfile.ZipInfo], file: Path) -> list[str]:
    """The decoded names; their separators stay as they are."""
    # zipfile decodes names without the UTF-8 flag as cp437, which has a character for every byte: undo that.
    raw = [info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8_NAME else "cp437") for info in infos]
    names = [_get_unicode_path(info, name) for info, name in zip(infos, raw, strict=True)]
    unknown = [i for i, name in enumerate(names) if name is None]
    # Korean text in cp949 is hardly ever valid as three-byte UTF-8. A few syllables are also valid as two-byte UTF-8
    # (Latin, Greek): such a name is taken for UTF-8 only if no other name of the zip must be cp949.
    has_cp949 = any(_decode(raw[i], ("utf-8",)) is None for i in unknown)
    for i in unknown:
        as_utf8 = _decode(raw[i], ("utf-8",))
        is_ambiguous = as_utf8 is not None and max(as_utf8, default="") < "\u0800"
        names[i] = _decode(raw[i], ("cp949", "utf-8") if is_ambiguous and has_cp949 else ("utf-8", "cp949"))
        if names[i] is None:
            raise UserError(
                f"'{file}': the name {raw[i]!r} is neither UTF-8 nor cp949 (Korean Windows); make the zip again "
                "with UTF-8 names."
            )
    return names


def _get_unicode_path(info: zipfile.ZipInfo, raw: bytes) -> str | None:
    """The name if it is certain to be UTF-8, by its flag or the extra field of Bandizip and WinRAR; else None."""
    if info.flag_bits & _UTF8_NAME:
        return info.orig_filename
    extra = info.extra
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<HH", extra)
        data, extra = extra[4 : 4 + length], extra[4 + length :]
        # The field begins with version 1 and a checksum of the name; a tool that renames leaves a field that is stale.
        if kind == _UNICODE_PATH and len(data) > 5 and data[:5] == struct.pack("<BL", 1, zlib.crc32(raw)):
            return _decode(data[5:], ("utf-8",))
    return None


def _decode(raw: bytes, codecs: Sequence[str]) -> str | None:
    for codec in codecs:
        try:
            return raw.decode(codec)
        except UnicodeDecodeError:
            continue
    return None


def _to_relative_path(name: str, file: Path) -> str:
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    is_absolute = path.startswith("/") or re.match("[A-Za-z]:", path)
    if is_absolute or ".." in parts or not parts or any(unicodedata.category(c) == "Cc" for c in path):
        raise UserError(
            f"'{file}': the name {name!r} must be that of a file below the folder (not empty, not absolute, no drive "
            "letter, '..' or control character); nothing is unpacked from such a zip, get it from a source you trust."
        )
    return "/".join(parts)


def _is_folder(info: zipfile.ZipInfo, name: str) -> bool:
    # Zips made on Windows may mark a folder by a backslash at the end of its name, or only by the attribute.
    return (
        name.endswith(("/", "\\"))
        or stat.S_ISDIR(info.external_attr >> 16)
        or (bool(info.external_attr & _DOS_FOLDER) and not info.file_size)
    )


def _check_member(info: zipfile.ZipInfo, path: str, file: Path) -> None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise UserError(f"'{file}': '{path}' is a link or a special file; make the zip again with the file itself.")
    if info.flag_bits & _ENCRYPTED:
        raise UserError(f"'{file}': '{path}' is encrypted; unpack the zip by hand with its password.")
    if info.compress_type not in _METHODS:
        method = _METHOD_NAMES.get(info.compress_type, f"method {info.compress_type}")
        raise UserError(f"'{file}': '{path}' is packed with {method}, which Python cannot read; unpack it by hand.")
    if info.volume:
        raise UserError(f"'{file}' is one of several parts of a zip; join them first (zip -s 0 PARTS.zip --out ONE).")


def _is_below(path: str, folder: str) -> bool:
    first, slash, _ = path.partition("/")
    return bool(slash) and name_key(first) == name_key(folder)


def _check_collisions(paths: Sequence[str], file: Path) -> None:
    # Nested dicts, one per folder: key of a name -> (spelling, content of the folder or None for a file). With whole
    # paths as keys, a long path would take memory again for every folder above it.
    root: dict[str, tuple[str, dict | None]] = {}
    for path in paths:
        folder = root
        parts = path.split("/")
        for i, part in enumerate(parts, start=1):
            is_file = i == len(parts)
            found = folder.get(key := name_key(part))
            # A folder occurs once for each file in it, which is fine as long as its spelling is the same.
            if found is not None and (is_file or found[1] is None or found[0] != part):
                above = "/".join(parts[: i - 1]) + "/" * (i > 1)
                raise UserError(
                    f"'{printable(file)}': '{printable(above + found[0])}' and '{printable(above + part)}' are the "
                    "same name, or would be on some disks; make the zip again without one of them."
                )
            if found is None:
                found = folder[key] = (part, None if is_file else {})
            folder = found[1]


def _check_list(file: BinaryIO, path: str | os.PathLike) -> None:
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


def _check_sizes(infos: Sequence[zipfile.ZipInfo], file: str | os.PathLike) -> None:
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
        raise zipfile.BadZipFile("it has no list of contents")
    size = _END.unpack_from(tail, found)[5]
    end = start + found
    if tail[max(found - _LOCATOR.size, 0) : found][:4] == _LOCATOR_MAGIC:
        end -= _LOCATOR.size + _END64.size
        if end < 0:
            raise zipfile.BadZipFile("its list of contents is cut off")
        file.seek(end)
        header = file.read(_END64.size)
        if header[:4] == _END64_MAGIC:
            size = _END64.unpack(header)[8]
        else:
            end += _LOCATOR.size + _END64.size
    if size > end:
        raise zipfile.BadZipFile("its list of contents is cut off")
    file.seek(end - size)
    return size
