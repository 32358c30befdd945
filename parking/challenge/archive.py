"""Reading of zip files that may be damaged or made on other systems; needs neither torch nor detectron2."""

import os
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from parking.data.datasets.file_names import name_key
from parking.utils.errors import UserError
from parking.utils.files import open_regular
from parking.utils.limits import MAX_ARCHIVE_RATIO, MAX_PATH_FOLDERS, MIN_BOMB_BYTES
from parking.utils.text import printable

# PKWARE's APPNOTE 6.3.10 defines the flags in section 4.4.4 and the compression methods in section 4.4.5.
_ENCRYPTED = 0x1 | 0x40
_UTF8_NAME = 0x800
# bzip2 and LZMA are refused: zipfile does not limit how much they unpack at once, and a few kB can hold gigabytes.
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_METHOD_NAMES = {
    **{1: "Shrink", 6: "Implode", 9: "Deflate64", 12: "bzip2", 14: "LZMA"},
    **{93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES encryption"},
}
_DOS_FOLDER = 0x10
_CHUNK = 1 << 20
# Exceptions that a damaged zip may cause. An OSError has no errno if the zip is damaged; it has one if the disk failed.
_DAMAGE = (
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
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
        info: the entry as ``zipfile`` needs it; its own file name may be decoded wrongly.
    """

    path: str
    info: zipfile.ZipInfo

    @property
    def size(self) -> int:
        """Size of the content in bytes, as the zip declares it."""
        return self.info.file_size


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
        """Size of all members together in bytes."""
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
        UserError: the file is not a readable zip; or a member's name cannot be decoded or would leave the folder that
            it is unpacked to; or two members would be the same file; or a member is a link, is encrypted, or is not
            packed with Deflate, the usual method; or the content would be far larger than that of real data.
    """
    file = Path(file)
    with open_zip(file) as archive:
        infos = archive.infolist()
    total, size = sum(info.file_size for info in infos), os.path.getsize(file)
    if total > max(MIN_BOMB_BYTES, MAX_ARCHIVE_RATIO * size):
        raise UserError(
            f"'{printable(file)}' has {size:,} bytes and would unpack to {total:,}, which real data never do; get it "
            "from a source you trust."
        )
    members, num_skipped = [], 0
    for info, name in zip(infos, _decode_names(infos, file), strict=True):
        if is_macos_litter(name.replace("\\", "/")):
            num_skipped += 1
            continue
        if _is_folder(info, name) and not name.strip("./\\"):
            continue  # the zip's top folder "./", for which some programs write an entry
        path = _to_relative_path(name, file)
        if _is_folder(info, name):
            continue
        _check_member(info, path, file)
        members.append(Member(path, info))
    if members and all(name_key(member.path).startswith(f"{name_key(leading_folder)}/") for member in members):
        members = [member._replace(path=member.path.split("/", 1)[1]) for member in members]
    _check_collisions([member.path for member in members], file)
    return Archive(file, members, num_skipped)


def read_member(archive: Archive, opened: zipfile.ZipFile, member: Member) -> Iterator[bytes]:
    """Yield the content of ``member`` in pieces, at most ``member.size`` bytes in all.

    Args:
        opened: the zip of ``archive``, opened by :func:`open_zip`.

    Raises:
        UserError: the content is damaged, or its size or checksum is not the declared one.
    """
    size = 0
    with _explain_damage(archive.file, member.path), opened.open(member.info) as source:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            yield chunk
        # Compare the sizes, because zipfile does not complain if the content is shorter than the declared size.
        if size != member.size:
            raise zipfile.BadZipFile(f"it has {size:,} bytes instead of {member.size:,}")


@contextmanager
def open_zip(file: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip; if that fails, raise a UserError that says why."""
    try:
        opened = open_regular(file)
    except OSError as e:
        raise UserError(f"'{printable(file)}' cannot be opened: {e.strerror or e}.") from e
    with opened:
        with _explain_damage(file):
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
    """Decode the names of all entries of a zip; folder separators stay as they are."""
    # zipfile decodes a name without the UTF-8 flag as cp437, which has a character for every byte. Encoding the name as
    # cp437 gives its raw bytes.
    unflagged = [info.orig_filename.encode("cp437") for info in infos if not info.flag_bits & _UTF8_NAME]
    # A name that is valid UTF-8 and has a character of three bytes, such as a Korean one, is hardly ever cp949. If no
    # character has three bytes (Latin, Greek), the name may be UTF-8 or cp949: decode it as cp949 if another name in
    # the zip is not UTF-8, else as UTF-8.
    has_cp949 = any(_decode(raw, ("utf-8",)) is None for raw in unflagged)
    names = []
    for info in infos:
        if info.flag_bits & _UTF8_NAME:
            names.append(info.orig_filename)
            continue
        raw = info.orig_filename.encode("cp437")
        as_utf8 = _decode(raw, ("utf-8",))
        is_ambiguous = as_utf8 is not None and max(as_utf8, default="") < "\u0800"
        names.append(_decode(raw, ("cp949", "utf-8") if is_ambiguous and has_cp949 else ("utf-8", "cp949")))
        if names[-1] is None:
            raise UserError(
                f"'{file}': the name {raw!r} is neither UTF-8 nor cp949 (Korean Windows); make the zip again "
                "with UTF-8 names."
            )
    return names


def _decode(raw: bytes, codecs: Sequence[str]) -> str | None:
    for codec in codecs:
        with suppress(UnicodeDecodeError):
            return raw.decode(codec)
    return None


def _to_relative_path(name: str, file: Path) -> str:
    path = name.replace("\\", "/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    is_absolute = path.startswith("/") or re.match("[A-Za-z]:", path)
    if is_absolute or ".." in parts or not parts or any(unicodedata.category(c) == "Cc" for c in path):
        raise UserError(
            f"'{file}': the name {name!r} must be a path below the folder to unpack to (not empty, not absolute, no "
            "drive letter, '..' or control character); nothing is unpacked, get the zip from a source you trust."
        )
    if len(parts) > MAX_PATH_FOLDERS:
        raise UserError(
            f"'{file}': the name '{printable(path[:40])}...' has {len(parts) - 1} folders; make the zip again with "
            "shorter paths."
        )
    return "/".join(parts)


def _is_folder(info: zipfile.ZipInfo, name: str) -> bool:
    # Zips made on Windows may mark a folder by a backslash at the end of its name, or only by an attribute of MS-DOS.
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
        raise UserError(f"'{file}': '{path}' is packed with {method}, which is not read here; unpack the zip by hand.")
    if info.volume:
        raise UserError(f"'{file}' is one of several parts of a zip; join them first (zip -s 0 PARTS.zip --out ONE).")


def _check_collisions(paths: Sequence[str], file: Path) -> None:
    # This dict maps the key of each path to the path itself and to whether it is a file. Two paths have the same key if
    # some disks cannot tell them apart.
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        parts = path.split("/")
        for i in range(1, len(parts) + 1):
            name, is_file = "/".join(parts[:i]), i == len(parts)
            found = seen.get(key := name_key(name))
            # A folder may occur many times, once for each file in it, but always in the same spelling.
            if found is not None and (is_file or found != (name, False)):
                raise UserError(
                    f"'{printable(file)}': '{printable(found[0])}' and '{printable(name)}' are the same name, or would "
                    "be on some disks; make the zip again without one of them."
                )
            seen[key] = name, is_file
