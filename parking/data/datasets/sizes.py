"""Sizes and orientations of images, from the files' headers: remembered outside the data folder; and what follows of
them for the images of one json or image list."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from parking.data.checking.findings import Finding
from parking.data.decoding.orientation import APPLY, IGNORE, choose_for_ambiguous, is_applied, turn_size
from parking.data.image_io import UnreadableImageError, read_image_header
from parking.utils.errors import UserError
from parking.utils.files import open_atomic, read_regular
from parking.utils.limits import MAX_JSON_BYTES
from parking.utils.text import printable

logger = logging.getLogger(__name__)


class StoredSize(NamedTuple):
    """Height and width in pixels as stored; EXIF's orientation, 1..8; whether further pictures follow the first."""

    height: int
    width: int
    orientation: int = 1
    has_more: bool = False


#: From paths to what each header says, or what is wrong with the file.
HeaderReader = Callable[[Sequence[str]], Sequence[StoredSize | UnreadableImageError]]

# Reading headers is mostly waiting for the disk.
_NUM_THREADS = 16


def read_headers(
    paths: Sequence[str], *, root: str, cache_dir: str | None = None
) -> list[StoredSize | UnreadableImageError]:
    """What the headers of images say; they are read in parallel unless they were read before.

    A file counts as read before while its path, size and modification time are the same. Several processes may do this
    at once; whichever ends last decides what is remembered. A cache that cannot be read or written is done without.

    Args:
        root: of the images: what is below one root is remembered together.
        cache_dir: folder to remember it in, outside ``root``; None: nowhere.

    Returns:
        In the order of ``paths``: the size, or the error, for the caller to decide on.
    """
    cache_file = _get_cache_file(cache_dir, root) if cache_dir else None
    known = _read_cache(cache_file) if cache_file else {}
    states = [_get_state(path) for path in paths]
    sizes: list = [None] * len(paths)
    for i, (path, state) in enumerate(zip(paths, states, strict=True)):
        entry = known.get(path)
        if entry is not None and state is not None and entry[:2] == state:
            sizes[i] = StoredSize(*entry[2:5], bool(entry[5]))
    unknown = [i for i, size in enumerate(sizes) if size is None]
    if not unknown:
        return sizes
    with ThreadPoolExecutor(_NUM_THREADS) as pool:
        for i, size in zip(unknown, pool.map(_read_size, [paths[i] for i in unknown]), strict=True):
            sizes[i] = size
            # The state is of before the file was read: a file that changes meanwhile is read again.
            if isinstance(size, StoredSize) and states[i] is not None:
                known[paths[i]] = [*states[i], *map(int, size)]
    if cache_file:
        _write_cache(cache_file, known)
    return sizes


def settle_sizes(
    records: Sequence[dict], sizes: Sequence[StoredSize | UnreadableImageError | None], policy: str
) -> list[Finding]:
    """Decide for each image of one json or list whether it is turned upright, by all that is known of them together.

    Args:
        records: with ``file_name``, and ``height`` and ``width`` where they are stated. Changed in place: where the
            picture is not stored upright, ``exif_orientation`` becomes "apply" or "ignore"; and where no size is
            stated, ``height`` and ``width`` become those of the picture as it will be read.
        sizes: of each; an error or None where there is nothing to decide by.
        policy: INPUT.EXIF_ORIENTATION.

    Returns:
        Findings about pictures that are not stored upright, and about files that hold several; each names its
        ``file_name``.
    """
    turned = [
        (record, size, _get_stated(record))
        for record, size in zip(records, sizes, strict=True)
        if isinstance(size, StoredSize) and size.orientation != 1
    ]
    decisions = [is_applied(policy, size.orientation, size[:2], stated) for _, size, stated in turned]
    rest = choose_for_ambiguous(
        decision for (_, _, stated), decision in zip(turned, decisions, strict=True) if stated is not None
    )
    for (record, _, _), decision in zip(turned, decisions, strict=True):
        record["exif_orientation"] = rest if decision is None else APPLY if decision else IGNORE
    for record, size in zip(records, sizes, strict=True):
        if isinstance(size, StoredSize) and _get_stated(record) is None:
            is_upright = record.get("exif_orientation") == APPLY
            record["height"], record["width"] = turn_size(size[:2], size.orientation) if is_upright else size[:2]
    return [*_describe_turned(turned, decisions), *_describe_several(records, sizes)]


def settle_images(
    images: Sequence[Mapping], policy: str, stated: Mapping[int | str, tuple[int, int]]
) -> tuple[list[dict], list[Finding]]:
    """:func:`settle_sizes` for the images of an inference, by their headers.

    Args:
        images: ``file_name``, ``relative_path``, ``image_id``; ``height`` and ``width`` where a list states them.
        policy: INPUT.EXIF_ORIENTATION.
        stated: height and width by image id, from annotations. They decide about orientations only: a picture of
            another size is used, and a finding names it.

    Returns:
        What is to be added to each image's dict: ``height``, ``width`` and ``exif_orientation`` as there, where its
        header can be read. And findings, which name the relative paths.
    """
    sizes = read_headers([image["file_name"] for image in images], root=".")
    additions, findings = [], []
    for image, size in zip(images, sizes, strict=True):
        known, annotated = (image.get("height"), image.get("width")), stated.get(image["image_id"])
        if None in known and annotated is not None and isinstance(size, StoredSize):
            if annotated not in (size[:2], turn_size(size[:2], size.orientation)):
                detail = f"is {size.width} x {size.height} pixels, the json says {annotated[1]} x {annotated[0]}"
                findings.append(Finding("size_differs", printable(image["relative_path"]), detail))
            elif size.orientation != 1:
                known = annotated
        found = {} if None in known else {"height": known[0], "width": known[1]}
        additions.append({"file_name": image["relative_path"], **found})
    findings += settle_sizes(additions, sizes, policy)
    for addition in additions:
        del addition["file_name"]
    return additions, findings


def _describe_several(records, sizes) -> Iterator[Finding]:
    for record, size in zip(records, sizes, strict=True):
        if isinstance(size, StoredSize) and size.has_more:
            detail = "holds further frames or pages, which are not read"
            yield Finding("several_pictures", printable(record["file_name"]), detail)


def _describe_turned(turned, decisions) -> Iterator[Finding]:
    for (record, size, stated), decision in zip(turned, decisions, strict=True):
        name = printable(record["file_name"])
        is_upright = record["exif_orientation"] == APPLY
        what = f"has the EXIF orientation {size.orientation}"
        if decision is None and stated in (size[:2], size[1::-1]):
            done = "turned upright like the rest of the json" if is_upright else "used as stored"
            detail = f"{what} and is {done}; its size in the json fits either way"
            yield Finding("exif_ambiguous", name, detail)
        elif decision is not None:
            yield Finding("exif_applied" if decision else "exif_ignored", name, what)


def _get_stated(record: dict) -> tuple[int, int] | None:
    return (record["height"], record["width"]) if "height" in record else None


def _read_size(path):
    try:
        header = read_image_header(path)
        return StoredSize(header.height, header.width, header.orientation, header.has_more)
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
    """Path -> [bytes, modification time in ns, height, width, orientation, whether there are more pictures]."""
    try:
        known = json.loads(read_regular(cache_file, max_bytes=MAX_JSON_BYTES))
    except (OSError, ValueError, RecursionError, UserError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {path: entry for path, entry in known.items() if _is_sound(entry)}


def _is_sound(entry) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 6
        and {type(value) for value in entry} == {int}
        and min(entry[2:5]) > 0
        and entry[4] <= 8
    )


def _write_cache(cache_file: str, known: dict[str, list[int]]) -> None:
    try:
        with open_atomic(cache_file) as f:
            f.write(json.dumps(known).encode())
    except OSError as e:
        logger.warning(f"Image sizes cannot be remembered in {cache_file}: {e.strerror or e}.")
