"""Reading only regular files, and output files that exist either whole or not at all."""

import errno
import fcntl
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from .errors import UserError
from .limits import MAX_NOTE_BYTES
from .text import printable

#: Ending of the names of unfinished files, which a killed run leaves behind and a later one may remove.
UNFINISHED_ENDING = ".parking-tmp"

# Longest wait and interval of `wait_for_lock`, whose locks are held only while some bytes are written.
_MAX_LOCK_SECONDS, _LOCK_INTERVAL = 600, 0.005
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class UnusableFileError(UserError):
    """A file that cannot be used.

    Attributes:
        detail: the message without the file's name and the full stop, such as "is a zip file; unpack it".
    """

    def __init__(self, path: str | os.PathLike, detail: str):
        super().__init__(f"'{printable(path)}' {detail}.")
        self.detail = detail


def open_regular(path: str | os.PathLike, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading.

    Nothing else is ever read: a FIFO would wait for ever, and a device may never end.

    Args:
        follow_links: whether the file itself may be a link; folders on the way to it may be.

    Raises:
        OSError: it cannot be opened, or is a folder, FIFO, socket or device; ``strerror`` says what.
        ValueError: the path holds a NUL.
    """
    # O_NONBLOCK: opening a FIFO without a writer would wait; regular files do not care.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | (0 if follow_links else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as e:
        if e.errno == errno.ELOOP and not follow_links:
            raise OSError(0, "it is a link", os.fspath(path)) from e
        raise
    try:
        kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(0, f"it is {_KINDS.get(kind, 'not a regular file')}", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike, *, max_bytes: int, follow_links: bool = True) -> bytes:
    """Read all of a regular file.

    Args:
        max_bytes: from :mod:`parking.utils.limits`.
        follow_links: as of :func:`open_regular`.

    Raises:
        UnusableFileError: the file is larger.
        OSError, ValueError: as :func:`open_regular`.
    """
    with open_regular(path, follow_links=follow_links) as file:
        # Check the size first: a sparse file of many GB costs nothing to make.
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise UnusableFileError(path, f"has {size:,} bytes; files of its kind may have {max_bytes:,}")
        return file.read()


def is_dead_link(path: str | os.PathLike) -> bool:
    """Whether there is a link that leads nowhere."""
    return os.path.lexists(path) and not os.path.exists(path)


def describe_missing(path: str | os.PathLike) -> str:
    """Why there is no regular file at ``path``, as the end of a sentence that begins with its name."""
    if is_dead_link(path):
        return "is a link that leads nowhere"
    if os.path.isdir(path):
        return "is a folder"
    return "is not a regular file" if os.path.exists(path) else "does not exist"


@contextmanager
def open_atomic(
    path: str | os.PathLike,
    *,
    makes_folder: bool = True,
    before_replacing: Callable[[Path], object] = lambda temporary: None,
) -> Iterator[BinaryIO]:
    """Open a new binary file that takes the place of ``path`` when the block ends, and vanishes when it raises.

    So an interrupted run leaves the previous file, never half of the new one. A link at ``path`` is replaced itself,
    and what it leads to stays.

    Args:
        makes_folder: whether the folder is made if needed.
        before_replacing: called with the path of the finished file, still under another name.
    """
    path = Path(path)
    if makes_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because os.replace is atomic within one file system only.
    # With a random part, because processes of containers that share the folder may have the same number.
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED_ENDING}")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        before_replacing(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: str | os.PathLike, *, busy: str, max_seconds: float = 0.0) -> Iterator[None]:
    """Keep other processes out of the block by a locked file, which is removed afterwards; a kill leaves it behind.

    Where the file system cannot lock, nobody is kept out.

    Args:
        busy: what the error says.
        max_seconds: how long to wait for another process to leave the block.

    Raises:
        UserError: another process is in it.
    """
    try:
        # O_NONBLOCK: a FIFO would wait for ever.
        file = open_locked(path, "ab", os.O_WRONLY | os.O_NONBLOCK, busy=busy, max_seconds=max_seconds)
    except OSError as e:
        raise UserError(
            f"'{printable(path)}', which keeps other runs out, cannot be made ({e.strerror or e}); remove it, or give "
            "another folder for the results."
        ) from e
    with file:
        try:
            yield
        finally:
            # A file of this name that is not empty is somebody else's and stays.
            if is_still_there(file, path) and not os.fstat(file.fileno()).st_size:
                # If the folder cannot be written to any more, the block says so, not the lock.
                with suppress(OSError):
                    os.unlink(path)


def remove_stale_lock(path: str | os.PathLike) -> None:
    """Remove what a process that was killed in :func:`locked` has left; a lock that is held stays."""
    with suppress(UserError), locked(path, busy=""):
        pass


def open_locked(path: str | os.PathLike, mode: str, flags: int, **limits: Any) -> BinaryIO:
    """Open the file at ``path``, made if needed, for appending, and lock it; other processes may remove or replace it.

    Args:
        mode: of ``open``; flags: of ``os.open``, beside those that make and append.
        limits: ``busy`` and ``max_seconds`` of :func:`wait_for_lock`.

    Raises:
        OSError: it cannot be opened, or is a link.
    """
    flags |= os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        file = open(path, mode, buffering=0, opener=lambda name, _: os.open(name, flags, 0o666))  # noqa: SIM115
        try:
            with suppress(OSError):  # some network file systems cannot lock
                wait_for_lock(file, fcntl.LOCK_EX, path=path, **limits)
            if is_still_there(file, path):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def is_still_there(file: BinaryIO | int, path: str | os.PathLike) -> bool:
    """Whether an open file is still the one at ``path``: neither removed, moved nor replaced."""
    try:
        return os.path.samestat(
            os.fstat(file if isinstance(file, int) else file.fileno()), os.stat(path, follow_symlinks=False)
        )
    except FileNotFoundError:
        return False


def wait_for_lock(
    file: BinaryIO | int,
    operation: int,
    *,
    path: str | os.PathLike,
    busy: str | None = None,
    max_seconds: float | None = None,
) -> None:
    """Lock an open file.

    Args:
        operation: ``fcntl.LOCK_SH`` or ``LOCK_EX``.
        path: for the error.
        busy: what the error says instead.
        max_seconds: how long to wait for other processes; None: :data:`_MAX_LOCK_SECONDS`, for a lock that is held for
            moments only.

    Raises:
        UserError: another process has kept it locked for this long.
        OSError: the file system cannot lock.
    """
    end = time.monotonic() + (_MAX_LOCK_SECONDS if max_seconds is None else max_seconds)
    while True:
        try:
            return fcntl.flock(file, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                raise UserError(
                    f"'{printable(path)}' has been locked for {_MAX_LOCK_SECONDS // 60} minutes, by a process that was "
                    "stopped or waits for a disk; end that process."
                    if busy is None
                    else busy
                ) from None
            time.sleep(_LOCK_INTERVAL)


@contextmanager
def explaining_write_errors() -> Iterator[None]:
    """Turn an error in writing results into one sentence; a full disk is explained by the caller."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"'{printable(e.filename)}'" if e.filename else "The results"
        raise UserError(
            f"{where} cannot be written ({e.strerror or e}); mend that and run the same command again."
        ) from e


def check_writable(folder: str | os.PathLike, *, name: str, data_folders: Iterable[str | os.PathLike] = ()) -> None:
    """Make a folder for results, and try to write to it before hours of work are spent on the results.

    Args:
        name: the user's name for it, such as "--output".
        data_folders: folders in which nothing may be written.

    Raises:
        UserError: it cannot be made or written to, or lies in one of ``data_folders``.
    """
    for data_folder in data_folders:
        if Path(folder).resolve().is_relative_to(Path(data_folder).resolve()):
            raise UserError(
                f"{name} {folder} lies in the data folder {data_folder}, where nothing is written; give another folder."
            )
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(f"{name} {folder} cannot be written to ({e.strerror or e}); give another folder.") from e


def read_number(path: str | os.PathLike) -> float:
    """The number that a text file consists of; 0 if there is no such file, or if it holds anything else."""
    try:
        return float(read_regular(path, max_bytes=MAX_NOTE_BYTES))
    except (OSError, ValueError, UserError):
        return 0.0
