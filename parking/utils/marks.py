"""Marks: files that list what this product wrote, so that it never replaces or removes anything else.

Each folder with results holds a mark, a hidden file of JSON lines with the name :data:`MARK_NAME`. Its first line says
that this product wrote it. Each other line names a file in the folder, with the size and a digest of what was written.
The last line about a file counts; outdated lines are removed now and then::

    {"parking": "files that parking wrote here and may replace or remove", "version": 1}
    {"name": "predictions.json", "size": 1234, "digest": "..."}
    {"name": "log.txt", "size": null, "digest": null}

A line is written before the file appears under its name. A line without a size is about a file that is still being
written, or that grows with each run: such a file is ours whatever it contains. Any other file is "ours" only while its
size and digest are the noted ones: a file that the user has changed or replaced belongs to the user.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from .errors import UserError
from .files import UNFINISHED_ENDING, open_atomic, open_locked, open_regular, read_regular
from .limits import MAX_MARK_BYTES
from .text import printable

#: Name of the mark in each folder.
MARK_NAME = ".parking-files.jsonl"

_HEADER = {"parking": "files that parking wrote here and may replace or remove", "version": 1}
_BLOCK_BYTES = 1 << 20
# Number of contents remembered for each file: a file is ours if its content is the latest or the previous one. The
# latest is not enough: a process notes new content in the mark first, and may be killed before it replaces the file.
_NUM_CONTENTS = 2
# A mark is rewritten without outdated lines when it has more lines than _MAX_LINES_PER_FILE for each file plus
# _MAX_MORE_LINES.
_MAX_LINES_PER_FILE, _MAX_MORE_LINES = 4, 1000


@dataclass
class _Entry:
    """What the lines of a mark say about one file.

    Attributes:
        written: (size, digest) of the last contents, oldest first.
        is_open: whether the last line has no size, so that the file is ours whatever it contains.
        source: where the content comes from, see :meth:`OutputFolder.open`.
    """

    written: list[tuple[int, str]] = field(default_factory=list)
    is_open: bool = False
    source: Mapping[str, Any] | None = None

    def says(self, written: tuple[int, str] | None, source: Mapping[str, Any] | None) -> bool:
        """Whether the entry already has these values, so that a line with them would change nothing."""
        is_known = self.is_open if written is None else not self.is_open and self.written[-1:] == [written]
        return is_known and self.source == source

    def take(self, written: tuple[int, str] | None, source: Mapping[str, Any] | None) -> None:
        """Update the entry with the values of the next line about its file."""
        self.is_open, self.source = written is None, source
        if written is not None:
            self.written = [*(other for other in self.written if other != written), written][-_NUM_CONTENTS:]

    def has_size(self, size: int) -> bool:
        """Whether a file of ``size`` bytes may be the file that this product wrote."""
        return self.is_open or any(size == written for written, _ in self.written)


class OutputFolder:
    """A folder for results in which only files that this product wrote are replaced or removed.

    The module's docstring says what "ours" means. File names are relative to the folder, with slashes. Links and what
    they lead to are never ours, but the folder itself may be a link.
    """

    def __init__(self, root: str | os.PathLike, *, option: str = "--output"):
        """
        Args:
            root: path of the folder, which need not exist yet.
            option: the option by which the user gives the folder; error messages advise the user to change it.
        """
        self.root = Path(root)
        self._option = option
        self._marks: dict[Path, _Marks] = {}

    def is_ours(self, name: str, *, by_size: bool = False) -> bool:
        """Whether ``name`` is a regular file that this product wrote and nobody has changed since.

        Args:
            by_size: compare only the size, not the content.
        """
        path = self.root / name
        if self._find_obstacle(name) or path.is_symlink() or not path.is_file():
            return False
        entry = self._marks_beside(path).entries.get(path.name)
        if entry is None or not entry.has_size(path.stat().st_size):
            return False
        return by_size or entry.is_open or _measure(path) in entry.written

    def source_of(self, name: str) -> Mapping[str, Any] | None:
        """Return the ``source`` that :meth:`open` or :meth:`start` was given for the file; None if there is none."""
        path = self.root / name
        entry = self._marks_beside(path).entries.get(path.name)
        return None if entry is None else entry.source

    def check(self, names: Iterable[str], *, by_size: bool = False) -> None:
        """Raise a UserError for the first of ``names`` that is taken by something that is not ours.

        Args:
            by_size: compare only sizes, which is fast for a hundred thousand pictures; contents are compared later,
                before each file is replaced.
        """
        for name in names:
            path = self.root / name
            problem = self._find_obstacle(name)
            if not problem and os.path.lexists(path) and not self.is_ours(name, by_size=by_size):
                problem = self._describe_stranger(path)
            if problem:
                raise UserError(f"{problem}; move it away, or give another {self._option}.")

    @contextmanager
    def open(self, name: str, *, source: Mapping[str, Any] | None = None) -> Iterator[BinaryIO]:
        """Open a file by :func:`parking.utils.files.open_atomic`, and mark it as ours.

        Args:
            source: plain values that say where the content comes from; the mark keeps them.

        Raises:
            UserError: the file would replace something that is not ours.
        """
        self.check([name])
        path = self.root / name
        with open_atomic(path, before_replacing=lambda temporary: self._mark_written(path, temporary, source)) as file:
            yield file
            # Check again: hours may have passed, and somebody may have put another file there.
            self.check([name])

    def replace(self, temporary: str | os.PathLike, name: str, *, source: Mapping[str, Any] | None = None) -> None:
        """Move the finished file ``temporary``, which this product wrote, to ``name``, and mark it."""
        self.check([name])
        path = self.root / name
        self._mark_written(path, Path(temporary), source)
        os.replace(temporary, path)

    def start(self, name: str, *, source: Mapping[str, Any] | None = None) -> Path:
        """Mark a file that will be written or appended to in place, and return its path; see :meth:`finish`."""
        self.check([name])
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._marks_beside(path).append(path.name, None, source)
        return path

    def finish(self, name: str) -> None:
        """Note the content of a file that :meth:`start` marked; the file is ours only while it has this content."""
        path = self.root / name
        self._marks_beside(path).append(path.name, _measure(path), self.source_of(name))

    def claim(self, patterns: Iterable[str]) -> None:
        """Mark files as ours whatever they contain, because runs keep writing to them.

        The caller must have checked files that already have such names.

        Args:
            patterns: file names, in which ``*`` stands for any text.
        """
        for pattern in patterns:
            self._marks_beside(self.root / pattern).append(pattern, None, None)

    def has_claimed(self, pattern: str) -> bool:
        """Whether :meth:`claim` was called with this pattern, in this run or an earlier one."""
        entry = self._marks_beside(self.root / pattern).entries.get(pattern)
        return entry is not None and entry.is_open

    def adopt_unmarked(self, name: str, *, start: bytes) -> None:
        """Mark a file of a version that made no marks, if it begins with ``start`` and its folder has no mark."""
        path = self.root / name
        if self._find_obstacle(name) or not path.is_file() or self._marks_beside(path).exists:
            return
        with suppress(OSError), open_regular(path, follow_links=False) as file:
            if file.read(len(start)) == start:
                self._marks_beside(path).append(path.name, _measure(path), None)

    def remove(self, name: str) -> bool:
        """Remove a file if it is ours; return whether it was ours."""
        if not self.is_ours(name):
            return False
        (self.root / name).unlink(missing_ok=True)
        return True

    def _mark_written(self, path: Path, temporary: Path, source) -> None:
        self._marks_beside(path).append(path.name, _measure(temporary), source)

    def _marks_beside(self, path: Path) -> "_Marks":
        if path.parent not in self._marks:
            self._marks[path.parent] = _Marks(path.parent)
        return self._marks[path.parent]

    def _find_obstacle(self, name: str) -> str:
        """Say what is wrong with the folders between ``root`` and the file; return "" if nothing is."""
        folder = self.root
        for part in Path(name).parts[:-1]:
            folder = folder / part
            if folder.is_symlink():
                return f"'{printable(folder)}' is a link, and nothing is written through one"
            if folder.exists() and not folder.is_dir():
                return f"'{printable(folder)}' is in the way: it is not a folder"
        return ""

    def _describe_stranger(self, path: Path) -> str:
        shown = printable(path)
        if path.is_symlink():
            return f"'{shown}' is a link, which is neither followed nor replaced"
        if not path.is_file():
            return f"'{shown}' is in the way: it is not a file"
        if path.name in self._marks_beside(path).entries:
            return f"'{shown}' was changed after it was written, so it is not replaced"
        return (
            f"'{shown}' is not known to be a result of this product ({MARK_NAME} beside it, which versions before this "
            "one did not write, does not name it), so it is not replaced"
        )


def describe_file(path: str | os.PathLike) -> str:
    """Return the size and a digest of a file as a text that is equal only for files of equal content."""
    size, digest = _measure(Path(path))
    return f"{size} {digest}"


def open_output(path: str | os.PathLike, *, option: str = "--output") -> AbstractContextManager[BinaryIO]:
    """Open one file by :meth:`OutputFolder.open`; ``option`` is the option by which the user gives its path."""
    folder, name = os.path.split(os.fspath(path))
    return OutputFolder(folder, option=option).open(name)


class MarkedFiles:
    """Tells whether this product wrote a file, in any folder, so that its own pictures are not taken for inputs.

    A file counts as written by us if its name and size are noted. Contents are not compared, because that
    would take too long for every picture of a folder.
    """

    def __init__(self):
        self._marks: dict[str, _Marks] = {}

    def __contains__(self, path: str | os.PathLike) -> bool:
        path = os.fspath(path)
        if os.path.islink(path):
            path = os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._marks:
            # Let this raise a UserError if the mark is unreadable, because then nobody knows which pictures are inputs.
            self._marks[folder] = _Marks(Path(folder))
        entry = self._marks[folder].entries.get(name)
        if entry is None:
            return False
        try:
            return entry.has_size(os.lstat(path).st_size)
        except OSError:
            return False


def make_own_folder(folder: Path) -> None:
    """Make a folder that only this product writes to, and a mark in it; keep both if they exist.

    Raises:
        UserError: there is something else at this path.
    """
    try:
        os.makedirs(folder.parent, exist_ok=True)
        os.mkdir(folder)
    except FileExistsError:
        if folder.is_symlink() or not folder.is_dir() or _has_strangers(folder):
            raise UserError(
                f"'{printable(folder)}' is not a folder that parking made, and results of an interrupted run would go "
                "there; move it away, or give another folder for the results."
            ) from None
    if not (folder / MARK_NAME).exists():
        with open_atomic(folder / MARK_NAME) as file:
            file.write(_encode(_HEADER))


def _has_strangers(folder: Path) -> bool:
    # An empty folder may be ours, if we were killed before making its mark. List the files first and look for the mark
    # afterwards: another process may be making the mark just now, and will write files only after it.
    names = [name for name in os.listdir(folder) if name != MARK_NAME and not name.endswith(UNFINISHED_ENDING)]
    return bool(names) and not is_own_folder(folder)


def is_own_folder(folder: Path) -> bool:
    """Whether :func:`make_own_folder` made the folder."""
    try:
        return _Marks(folder).exists and not folder.is_symlink()
    except UserError:
        return False


def remove_own_folder(folder: Path, own_names: re.Pattern) -> bool:
    """Remove a folder that :func:`make_own_folder` made, if all files and folders in it have ``own_names``.

    If it holds anything else, what has ``own_names`` is removed, and the folder stays with the rest. Folders in it are
    treated in the same way. Of links, only the links are removed, never what they lead to.

    Returns:
        Whether the folder held nothing else.
    """
    for name in _list_others(folder):
        path = folder / name
        if not own_names.fullmatch(name):
            continue
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        # An empty folder is ours, too: we may have been killed before making its mark.
        elif is_own_folder(path) or (path.is_dir() and not _list_others(path)):
            remove_own_folder(path, own_names)
    if _list_others(folder):
        return False
    (folder / MARK_NAME).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return True


def _list_others(folder: Path) -> list[str]:
    """List the names in a folder except its mark; return [] if another process has just removed the folder."""
    try:
        return [name for name in os.listdir(folder) if name != MARK_NAME]
    except FileNotFoundError:
        return []


class _Marks:
    """The mark of one folder, as it was when this object read it.

    Several processes may append to a mark at the same time; none needs to know what others have added meanwhile.

    Attributes:
        path: path of the mark.
        exists: whether the folder has a mark.
        entries: what the mark says about each file, by file name.
    """

    def __init__(self, folder: Path):
        self.path = folder / MARK_NAME
        self._read()

    def _read(self) -> None:
        """Read the mark; raise a UserError if the file at its path is not a mark."""
        self.entries: dict[str, _Entry] = {}
        self.exists, self._num_lines = False, 0
        try:
            data = read_regular(self.path, max_bytes=MAX_MARK_BYTES, follow_links=False)
        except FileNotFoundError:
            return
        except OSError as e:
            raise UserError(
                f"'{printable(self.path)}', which says what may be replaced there, cannot be read "
                f"({e.strerror or e}); remove it, or give another folder."
            ) from e
        if not data.startswith(_encode(_HEADER)):
            if _encode(_HEADER).startswith(data):
                return  # the disk was full, so only the beginning of the first line was written
            raise UserError(f"'{printable(self.path)}' is not a mark of this version of parking; move it away.")
        self.exists = True
        for line in data[: data.rfind(b"\n")].splitlines():  # leave out the last line if a kill cut it off
            self._take(line)

    def append(self, name: str, written: tuple[int, str] | None, source: Mapping[str, Any] | None) -> None:
        entry = self.entries.get(name)
        if entry is not None and entry.says(written, source):
            return
        with open_locked(self.path, "r+b", os.O_RDWR) as file:
            end = file.seek(0, os.SEEK_END)
            if end < len(_encode(_HEADER)):
                file.truncate(0)
                start = _encode(_HEADER)
            else:
                file.seek(end - 1)
                start = b"" if file.read(1) == b"\n" else b"\n"
            line = _encode_entry(name, written, source)
            if file.write(start + line) < len(start + line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self.exists = True
        self._take(line)
        if self._num_lines > _MAX_LINES_PER_FILE * len(self.entries) + _MAX_MORE_LINES:
            self._shorten()

    def _shorten(self) -> None:
        """Rewrite the mark without outdated lines."""
        with open_locked(self.path, "r+b", os.O_RDWR):
            self._read()
            with open_atomic(self.path) as file:
                file.write(_encode(_HEADER))
                for name, entry in self.entries.items():
                    for written in [*entry.written, *([None] if entry.is_open else [])]:
                        file.write(_encode_entry(name, written, entry.source))
            self._read()

    def _take(self, line: bytes) -> None:
        self._num_lines += 1
        try:
            content = json.loads(line)
            name, size, digest, source = (content.get(key) for key in ("name", "size", "digest", "source"))
        except (ValueError, RecursionError, AttributeError):
            return  # ignore a damaged line; its file then does not count as ours
        is_sound = isinstance(name, str) and isinstance(source, dict | None)
        if not is_sound or (type(size), type(digest)) not in ((int, str), (type(None), type(None))):
            return
        self.entries.setdefault(name, _Entry()).take(None if size is None else (size, digest), source)


def _encode(line: Mapping[str, Any]) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _encode_entry(name: str, written: tuple[int, str] | None, source: Mapping[str, Any] | None) -> bytes:
    size, digest = written or (None, None)
    return _encode({"name": name, "size": size, "digest": digest, **({"source": source} if source else {})})


def _measure(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes and a digest of its content."""
    with open_regular(path, follow_links=False) as file:
        size, digest = 0, hashlib.blake2b(digest_size=16)
        # Digest the whole file: a user who has changed a single character of a large file must not lose that change.
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()
