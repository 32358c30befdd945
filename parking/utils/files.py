"""Output files that exist either whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import UserError


@contextmanager
def open_atomic(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Open a new binary file that takes the place of ``path`` when the block ends, and vanishes when it raises.

    The folder is made if needed. An interrupted run so leaves the previous file, never half of the new one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because os.replace is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(folder: str | os.PathLike, *, name: str) -> None:
    """Make a folder for results, and try it before hours of work are put into what goes there.

    Args:
        name: what the user calls it, such as "--output".

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise UserError(f"{name} {folder} cannot be written to ({e.strerror or e}); give another folder.") from e


def read_number(path: str | os.PathLike) -> float:
    """The number that is all of a text file's content; 0 where there is no such file, or something else in it."""
    try:
        return float(Path(path).read_text())
    except (OSError, ValueError):
        return 0.0
