"""Read only regular files; write files that are either complete or absent; lock files."""

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

#: Ending of the names of unfinished files. A killed run leaves them behind, and a later run may remove them.
UNFINISHED_ENDING = ".parking-tmp"

# Seconds that `wait_for_lock` waits by default, and seconds between its tries. The default suits locks that are held
# only while a few bytes are written.
_MAX_LOCK_SECONDS, _LOCK_INTERVAL = 600, 0.005
_BLOCK_BYTES = 1 << 20
_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


class UnusableFileError(UserError):
    """A file that cannot be used.

    Attributes:
        detail: the message without the name of the file and the full stop, such as "is a zip file; unpack it".
    """

    def __init__(self, path: str | os.PathLike, detail: str):
        super().__init__(f"'{printable(path)}' {detail}.")
        self.detail = detail


def open_regular(path: str | os.PathLike, *, follow_links: bool = True) -> BinaryIO:
    """Open a regular file for reading; raise an OSError for anything else.

    Reading a FIFO could wait forever, and a device may never end.

    Args:
        follow_links: whether the file itself may be a link; folders on the path may always be links.

    Raises:
        OSError: the file cannot be opened, or is a folder, FIFO, socket or device; ``strerror`` says which.
        ValueError: the path contains a NUL.
    """
    # O_NONBLOCK keeps open() from waiting for the writer of a FIFO; it does not affect regular files.
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
        follow_links: see :func:`open_regular`.

    Raises:
        UnusableFileError: the file is larger than ``max_bytes``.
        OSError, ValueError: raised by :func:`open_regular`.
    """
    with open_regular(path, follow_links=follow_links) as file:
        # Check the size before reading: anybody can make a sparse file of many GB.
        size = os.fstat(file.fileno()).st_size
        if size > max_bytes:
            raise UnusableFileError(path, f"has {size:,} bytes; files of its kind may have {max_bytes:,}")
        blocks = [file.read(size)]
        # There may be more: another process may append just now, and the size of a file of /proc is stated as 0.
        while block := file.read(_BLOCK_BYTES):
            blocks.append(block)
            size += len(block)
            if size > max_bytes:
                raise UnusableFileError(path, f"has more than the {max_bytes:,} bytes that files of its kind may have")
        return b"".join(blocks)


def is_dead_link(path: str | os.PathLike) -> bool:
    """Whether ``path`` is a link that leads nowhere."""
    return os.path.lexists(path) and not os.path.exists(path)


def describe_missing(path: str | os.PathLike) -> str:
    """Say why there is no regular file at ``path``, in words that follow the file's name in a sentence."""
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
    """Open a new binary file that replaces ``path`` when the block ends, and is removed if the block raises an error.

    An interrupted run thus leaves the previous file, never a part of the new one. If ``path`` is a link, the link is
    replaced and the file that it leads to stays.

    Args:
        makes_folder: whether to make the folder if needed.
        before_replacing: called with the temporary path of the finished file, before this file replaces ``path``.
    """
    path = Path(path)
    if makes_folder:
        path.parent.mkdir(parents=True, exist_ok=True)
    # The temporary file is in the same folder, because os.replace is atomic only within one file system. Its name has a
    # random part, because containers that share the folder may have processes with the same id.
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
    """Keep other processes out of the ``with`` block by locking a file, which exists only during the block.

    A process that is killed in the block leaves the file behind, unlocked.

    On a file system that cannot lock, other processes are not kept out.

    Args:
        busy: error message if another process is in the block.
        max_seconds: how long to wait for another process to leave the block.

    Raises:
        UserError: another process is in the block, or the file cannot be made.
    """
    try:
        # O_NONBLOCK keeps open() from waiting forever if there is a FIFO at this path.
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
            # We write nothing into the lock file. Keep a file that has content, because it belongs to somebody else.
            if is_still_there(file, path) and not os.fstat(file.fileno()).st_size:
                # Ignore an error here: if the folder is no longer writable, the code in the ``with`` block reports it.
                with suppress(OSError):
                    os.unlink(path)


def remove_stale_lock(path: str | os.PathLike) -> None:
    """Remove the lock file that a process killed in :func:`locked` has left, unless another process holds the lock."""
    with suppress(UserError), locked(path, busy=""):
        pass


def open_locked(path: str | os.PathLike, mode: str, flags: int, **limits: Any) -> BinaryIO:
    """Open the file at ``path`` for appending, after making it if needed, and lock it.

    If another process removes or replaces the file meanwhile, the new one is opened and locked.

    Args:
        mode: argument of ``open``.
        flags: argument of ``os.open``; flags to create and to append are added.
        limits: ``busy`` and ``max_seconds`` of :func:`wait_for_lock`.

    Raises:
        OSError: the file cannot be opened, or is a link.
        UserError: another process keeps the file locked.
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
    """Whether the open ``file`` is still the one at ``path``: nobody has removed, moved or replaced it."""
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
    """Lock an open file; wait while other processes hold the lock.

    Args:
        operation: ``fcntl.LOCK_SH`` or ``LOCK_EX``.
        path: name of the file in the default error message.
        busy: error message to use instead.
        max_seconds: how long to wait for other processes; None stands for :data:`_MAX_LOCK_SECONDS`, for locks that are
            held only for moments.

    Raises:
        UserError: another process has kept the file locked for ``max_seconds``.
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
    """Turn an OSError of the ``with`` block into a UserError about the results, unless the disk is full."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f"'{printable(e.filename)}'" if e.filename else "The results"
        raise UserError(
            f"{where} cannot be written ({e.strerror or e}); fix that and run the same command again."
        ) from e


def check_writable(folder: str | os.PathLike, *, name: str, data_folders: Iterable[str | os.PathLike] = ()) -> None:
    """Make the folder for results, and check that it can be written to, before hours of work are spent on results.

    Args:
        name: what the user calls the folder, such as "--output".
        data_folders: folders in which nothing may be written.

    Raises:
        UserError: the folder cannot be made or written to, or lies in one of ``data_folders``.
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
    """Read a file that holds only a number; return 0 if there is no such file or it holds anything else."""
    try:
        return float(read_regular(path, max_bytes=MAX_NOTE_BYTES))
    except (OSError, ValueError, UserError):
        return 0.0
