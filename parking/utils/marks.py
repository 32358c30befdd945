"""Which files this product wrote, so that it replaces and removes nothing else.

Every folder that gets results holds a hidden file, :data:`MARK_NAME`, of JSON lines. The first says that the file is
ours. Each other line names a file beside it, with the size and a digest of what was written there; the last line about
a file counts, and outdated ones are removed now and then::

    {"parking": "files that parking wrote here and may replace or remove", "version": 1}
    {"name": "predictions.json", "size": 1234, "digest": "..."}
    {"name": "log.txt", "size": null, "digest": null}

A line is written before the file appears under its name. Without a size the file is still being written, or grows with
every run: it is ours whatever it holds. Whoever changes or replaces a file makes it theirs: the digest differs.
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

#: The hidden file that names what this product wrote into the folder that holds it.
MARK_NAME = ".parking-files.jsonl"

_HEADER = {"parking": "files that parking wrote here and may replace or remove", "version": 1}
_BLOCK_BYTES = 1 << 20
# How many of a file's last contents are ours: a kill may come after the line about new content and before the file.
_NUM_CONTENTS = 2
# A mark is written anew, without outdated lines, when it has more lines than the first number times its files plus the
# second number.
_MAX_LINES_PER_FILE, _MAX_MORE_LINES = 4, 1000


@dataclass
class _Entry:
    """What the lines about one file say: ``written`` holds (size, digest) of its last contents, oldest first."""

    written: list[tuple[int, str]] = field(default_factory=list)
    is_open: bool = False
    source: Mapping[str, Any] | None = None

    def says(self, written: tuple[int, str] | None, source: Mapping[str, Any] | None) -> bool:
        """Whether another line like this would add nothing."""
        is_known = self.is_open if written is None else not self.is_open and self.written[-1:] == [written]
        return is_known and self.source == source

    def take(self, written: tuple[int, str] | None, source: Mapping[str, Any] | None) -> None:
        """Note what another line says."""
        self.is_open, self.source = written is None, source
        if written is not None:
            self.written = [*(other for other in self.written if other != written), written][-_NUM_CONTENTS:]

    def has_size(self, size: int) -> bool:
        """Whether a file of this many bytes may be ours."""
        return self.is_open or any(size == written for written, _ in self.written)


class OutputFolder:
    """A folder for results in which only files that this product wrote are replaced or removed.

    Names are relative to the folder, with slashes. A link is never ours, nor is anything behind one; the folder itself
    may be a link.
    """

    def __init__(self, root: str | os.PathLike, *, option: str = "--output"):
        """
        Args:
            root: need not exist yet.
            option: what the user calls it; the errors advise to give another.
        """
        self.root = Path(root)
        self._option = option
        self._marks: dict[Path, _Marks] = {}

    def is_ours(self, name: str, *, by_size: bool = False) -> bool:
        """Whether there is a regular file of this name, just as this product wrote it.

        Args:
            by_size: look at its size only, not at its content.
        """
        path = self.root / name
        if self._find_obstacle(name) or path.is_symlink() or not path.is_file():
            return False
        entry = self._marks_beside(path).entries.get(path.name)
        if entry is None or not entry.has_size(path.stat().st_size):
            return False
        return by_size or entry.is_open or _measure(path) in entry.written

    def source_of(self, name: str) -> Mapping[str, Any] | None:
        """The ``source`` that :meth:`open` or :meth:`start` was given for the file; None without."""
        path = self.root / name
        entry = self._marks_beside(path).entries.get(path.name)
        return None if entry is None else entry.source

    def check(self, names: Iterable[str], *, by_size: bool = False) -> None:
        """Raise a UserError for the first of ``names`` that would replace something that is not ours.

        Args:
            by_size: look at sizes only: for a hundred thousand pictures, each of which is checked when it is written.
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
        """:func:`parking.utils.files.open_atomic` for a file that is marked as ours.

        Args:
            source: plain values that say where the content comes from; they are kept in the mark.

        Raises:
            UserError: it would replace something that is not ours.
        """
        self.check([name])
        path = self.root / name
        with open_atomic(path, before_replacing=lambda temporary: self._mark_written(path, temporary, source)) as file:
            yield file
            # Check again: hours may have passed in the block.
            self.check([name])

    def replace(self, temporary: str | os.PathLike, name: str, *, source: Mapping[str, Any] | None = None) -> None:
        """Give a finished file of ours its name."""
        self.check([name])
        path = self.root / name
        self._mark_written(path, Path(temporary), source)
        os.replace(temporary, path)

    def start(self, name: str, *, source: Mapping[str, Any] | None = None) -> Path:
        """Mark a file that is about to be written, or appended to, under its own name; its path."""
        self.check([name])
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._marks_beside(path).append(path.name, None, source)
        return path

    def finish(self, name: str) -> None:
        """Note the content of a file of :meth:`start`, which from now on is ours only while it stays as it is."""
        path = self.root / name
        self._marks_beside(path).append(path.name, _measure(path), self.source_of(name))

    def claim(self, patterns: Iterable[str]) -> None:
        """Mark files as ours, whatever they hold, because runs go on writing to them; ``*`` stands for any text.

        The caller has checked the files that have such names already.
        """
        for pattern in patterns:
            self._marks_beside(self.root / pattern).append(pattern, None, None)

    def has_claimed(self, pattern: str) -> bool:
        """Whether :meth:`claim` noted it."""
        entry = self._marks_beside(self.root / pattern).entries.get(pattern)
        return entry is not None and entry.is_open

    def adopt_unmarked(self, name: str, *, start: bytes) -> None:
        """Mark a file that a version without marks wrote: it begins with ``start``, and no mark is beside it."""
        path = self.root / name
        if self._find_obstacle(name) or not path.is_file() or self._marks_beside(path).exists:
            return
        with suppress(OSError), open_regular(path, follow_links=False) as file:
            if file.read(len(start)) == start:
                self._marks_beside(path).append(path.name, _measure(path), None)

    def remove(self, name: str) -> bool:
        """Remove a file if it is ours; return whether it was."""
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
        """What is wrong with the folders between ``root`` and a file; "" if nothing."""
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
    """A text that differs if the content of two files does: size and digest."""
    size, digest = _measure(Path(path))
    return f"{size} {digest}"


def open_output(path: str | os.PathLike, *, option: str = "--output") -> AbstractContextManager[BinaryIO]:
    """:meth:`OutputFolder.open` for one file; ``option`` is what the user calls its place."""
    folder, name = os.path.split(os.fspath(path))
    return OutputFolder(folder, option=option).open(name)


class MarkedFiles:
    """Tells which files, wherever they lie, this product wrote, so that they are not taken for inputs.

    By name and size only, since every picture of a folder is asked for.
    """

    def __init__(self):
        self._marks: dict[str, _Marks] = {}

    def __contains__(self, path: str | os.PathLike) -> bool:
        path = os.fspath(path)
        if os.path.islink(path):
            path = os.path.realpath(path)
        folder, name = os.path.split(path)
        if folder not in self._marks:
            # Raises if the mark cannot be read: nobody knows then which pictures are inputs.
            self._marks[folder] = _Marks(Path(folder))
        entry = self._marks[folder].entries.get(name)
        if entry is None:
            return False
        try:
            return entry.has_size(os.lstat(path).st_size)
        except OSError:
            return False


def make_own_folder(folder: Path) -> None:
    """Make a folder that only this product writes to, with a mark in it, unless it is there.

    Raises:
        UserError: something else has its name.
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
    # An empty folder may be ours, left by a kill before its mark. List first and look for the mark afterwards: another
    # process may be making the mark just now, and puts files there only after it.
    names = [name for name in os.listdir(folder) if name != MARK_NAME and not name.endswith(UNFINISHED_ENDING)]
    return bool(names) and not is_own_folder(folder)


def is_own_folder(folder: Path) -> bool:
    """Whether :func:`make_own_folder` made it."""
    try:
        return _Marks(folder).exists and not folder.is_symlink()
    except UserError:
        return False


def remove_own_folder(folder: Path, own_names: re.Pattern) -> bool:
    """Remove what has one of ``own_names`` from a folder of ours and from the folders of ours in it.

    Links are removed themselves, never what they lead to.

    Returns:
        Whether nothing else was in it, and it is gone.
    """
    for name in _list_others(folder):
        path = folder / name
        if not own_names.fullmatch(name):
            continue
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        elif is_own_folder(path) or (path.is_dir() and not _list_others(path)):  # a kill may come before the mark
            remove_own_folder(path, own_names)
    if _list_others(folder):
        return False
    (folder / MARK_NAME).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()
    return True


def _list_others(folder: Path) -> list[str]:
    """What is in a folder except its mark; nothing if another process, perhaps of another machine, has removed it."""
    try:
        return [name for name in os.listdir(folder) if name != MARK_NAME]
    except FileNotFoundError:
        return []


class _Marks:
    """The mark file of one folder: whether it ``exists``, and its ``entries`` by file name, when it was read.

    Several processes may append to it at once; none needs to know what another wrote meanwhile.
    """

    def __init__(self, folder: Path):
        self.path = folder / MARK_NAME
        self._read()

    def _read(self) -> None:
        """Raises a UserError where the file is not one of ours."""
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
                return  # a full disk cut off its first line
            raise UserError(f"'{printable(self.path)}' is not a mark of this version of parking; move it away.")
        self.exists = True
        for line in data[: data.rfind(b"\n")].splitlines():  # a line that a kill cut off does not count
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
        """Write the mark anew, without what is outdated."""
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
            return  # a file is not ours because of a damaged line
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
    """Size in bytes and a digest of the content."""
    with open_regular(path, follow_links=False) as file:
        size, digest = 0, hashlib.blake2b(digest_size=16)
        # Read all of it: a user who changes one character of a large file must not lose it.
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            digest.update(block)
    return size, digest.hexdigest()
