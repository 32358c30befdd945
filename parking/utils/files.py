"""Output files that exist either whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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


def read_number(path: str | os.PathLike) -> float:
    """The number that is all of a text file's content; 0 where there is no such file, or something else in it."""
    try:
        return float(Path(path).read_text())
    except (OSError, ValueError):
        return 0.0
