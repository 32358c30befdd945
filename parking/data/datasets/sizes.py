"""Read sizes and orientations of images from the files' headers, and decide which pictures EXIF turns.

What the headers say is remembered outside the data folder.
"""

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
    """What a header says: height and width as stored, EXIF's orientation (1..8), whether there are more pictures."""

    height: int
    width: int
    orientation: int = 1
    has_more: bool = False


#: Maps paths to what each header says, or to what is wrong with the file.
HeaderReader = Callable[[Sequence[str]], Sequence[StoredSize | UnreadableImageError]]

# More than CPUs, because reading headers is mostly waiting for the disk.
_NUM_THREADS = 16


def read_headers(
    paths: Sequence[str], *, root: str, cache_dir: str | None = None
) -> list[StoredSize | UnreadableImageError]:
    """Return what the headers of images say, reading in parallel those that the cache does not know.

    The cache knows a file as long as its path, size and modification time are the same. If several processes write it
    at once, the last one wins. A cache that cannot be read or written is ignored, with a warning for the latter.

    Args:
        root: folder of the images; each root has a cache file of its own.
        cache_dir: folder of the cache, outside ``root``; None: no cache.

    Returns:
        For each path, in order, the size or the error.
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
            # The state is older than the reading, so that a file that changes meanwhile is read again.
            if isinstance(size, StoredSize) and states[i] is not None:
                known[paths[i]] = [*states[i], *map(int, size)]
    if cache_file:
        _write_cache(cache_file, known)
    return sizes


def settle_sizes(
    records: Sequence[dict], sizes: Sequence[StoredSize | UnreadableImageError | None], policy: str
) -> list[Finding]:
    """Decide for each image of one json or list whether it is turned upright, given all images of the list.

    Args:
        records: dicts with ``file_name`` and, if they are stated, ``height`` and ``width``. Changed in place: a picture
            that is not stored upright gets ``exif_orientation``, "apply" or "ignore"; a record without size gets
            ``height`` and ``width`` of the picture as it will be read.
        sizes: what each image's header says; an image with an error or None is skipped.
        policy: INPUT.EXIF_ORIENTATION.

    Returns:
        Findings, by ``file_name``, about pictures that are not stored upright and files with several pictures.
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
    """Apply :func:`settle_sizes` to the images of an inference, after reading their headers.

    Args:
        images: dicts with ``file_name``, ``relative_path``, ``image_id`` and, if a list states them, ``height`` and
            ``width``.
        policy: INPUT.EXIF_ORIENTATION.
        stated: height and width by image id, from annotations. They decide about orientations only; a picture of
            another size is used, and a finding names it.

    Returns:
        ``height``, ``width`` and ``exif_orientation`` to add to each image's dict, as far as its header can be read;
        and findings that name the relative paths.
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
            detail = f"{what} and is {done}; its size fits either way, so set INPUT.EXIF_ORIENTATION if this is wrong"
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
        logger.warning(f"Image sizes are not remembered, because the cache folder {cache_dir} lies in the data {root}.")
        return None
    name = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return os.path.join(folder, "sizes", f"{name}.json")


def _read_cache(cache_file: str) -> dict[str, list[int]]:
    """Return path -> [bytes, modification time in ns, height, width, orientation, whether there are more pictures]."""
    try:
        known = json.loads(read_regular(cache_file, max_bytes=MAX_JSON_BYTES))
        return {path: entry for path, entry in known.items() if _is_sound(entry)}
    except (OSError, ValueError, AttributeError, RecursionError, UserError):
        return {}


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
