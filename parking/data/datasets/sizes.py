"""Sizes of images whose json does not tell them: from the files' headers, remembered outside the data folder."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from parking.data.image_io import UnreadableImageError, read_image_size
from parking.utils.files import open_atomic

logger = logging.getLogger(__name__)

#: From paths to (height, width) each, or what is wrong with the file.
SizeReader = Callable[[Sequence[str]], Sequence[tuple[int, int] | UnreadableImageError]]

# Reading headers is mostly waiting for the disk.
_NUM_THREADS = 16


def read_sizes(
    paths: Sequence[str], *, root: str, cache_dir: str | None = None
) -> list[tuple[int, int] | UnreadableImageError]:
    """Height and width of each image, from headers that are read in parallel unless they were read before.

    A file counts as read before while its path, size and modification time are the same. Several processes may do this
    at once; whichever ends last decides what is remembered. A cache that cannot be read or written is done without.

    Args:
        root: of the images: what is below one root is remembered together.
        cache_dir: folder to remember sizes in, outside ``root``; None: nowhere.

    Returns:
        In the order of ``paths``: (height, width), or the error, for the caller to decide on.
    """
    cache_file = _get_cache_file(cache_dir, root) if cache_dir else None
    known = _read_cache(cache_file) if cache_file else {}
    states = [_get_state(path) for path in paths]
    sizes: list = [None] * len(paths)
    for i, (path, state) in enumerate(zip(paths, states, strict=True)):
        entry = known.get(path)
        if entry is not None and state is not None and entry[:2] == state:
            sizes[i] = (entry[2], entry[3])
    unknown = [i for i, size in enumerate(sizes) if size is None]
    if not unknown:
        return sizes
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for i, size in zip(unknown, pool.map(_read_size, [paths[i] for i in unknown]), strict=True):
            sizes[i] = size
            # The state is of before the file was read: a file that changes meanwhile is read again.
            if isinstance(size, tuple) and states[i] is not None:
                known[paths[i]] = [*states[i], *size]
    if cache_file:
        _write_cache(cache_file, known)
    return sizes


def _read_size(path):
    try:
        return read_image_size(path)
    except UnreadableImageError as e:
        return e


def _get_state(path) -> list[int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _get_cache_file(cache_dir: str, root: str) -> str | None:
    folder, root = os.path.realpath(cache_dir), os.path.realpath(root)
    if os.path.commonpath([folder, root]) == root:
        logger.warning(f"Image sizes are not remembered: the cache folder {cache_dir} lies in the data folder {root}.")
        return None
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return os.path.join(folder, "sizes", f"{name}.json")


def _read_cache(cache_file: str) -> dict[str, list[int]]:
    """Path -> [bytes, modification time in ns, height, width]."""
    try:
        with open(cache_file, "rb") as f:
            known = json.loads(f.read())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {path: entry for path, entry in known.items() if _is_sound(entry)}


def _is_sound(entry) -> bool:
    return (
        isinstance(entry, list) and len(entry) == 4 and {type(value) for value in entry} == {int} and min(entry[2:]) > 0
    )


def _write_cache(cache_file: str, known: dict[str, list[int]]) -> None:
    try:
        with open_atomic(cache_file) as f:
            f.write(json.dumps(known).encode())
    except OSError as e:
        logger.warning(f"Image sizes cannot be remembered in {cache_file}: {e.strerror or e}.")
