"""Find what is wrong with a data set's json, without decoding images; needs neither torch nor detectron2."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from parking.data.datasets.categories import find_other_names
from parking.data.datasets.columns import Columns
from parking.data.datasets.file_names import DIFFER_ONLY_IN_FORM, FileIndex, NameIndex, is_image_name
from parking.data.datasets.json_io import find_list, inspect_image_records, paused_gc
from parking.data.datasets.sizes import HeaderReader, settle_sizes
from parking.data.decoding.headers import Header
from parking.data.decoding.orientation import AUTO
from parking.utils.text import printable

from .annotation_inspection import Annotations, collect_annotations, inspect_boxes, inspect_classes
from .findings import KINDS, STOP, Finding

_ABOUT_OUTSIDE = (
    "only absolute names may, with DATASETS.ALLOW_OUTSIDE True (check_data.py: --allow-outside), if you trust the json"
)


class Inspection(NamedTuple):
    """The usable part of a json and what is wrong with the rest, as :func:`inspect_content` returns them.

    Attributes:
        columns: the images and boxes that can be used; anything that would stop a loader is left out, too.
        findings: in the order in which they were found.
        num_lost_boxes: number of sound annotations that were left out only because their image was left out.
    """

    columns: Columns
    findings: list[Finding]
    num_lost_boxes: int


def inspect_content(
    content: dict,
    categories: Mapping[int, str],
    files: FileIndex,
    *,
    read_headers: HeaderReader,
    policy: str = "repair",
    with_annotations: bool = True,
    exif_orientation: str = AUTO,
) -> Inspection:
    """Find everything that is wrong with a parsed json, the names of its image files and the images' headers.

    Args:
        content: a parsed COCO-like json.
        categories: the class names by category id, in the order of the classes; other ids are findings.
        files: the files below the image folder.
        read_headers: called at most once, with the paths of all images if ``exif_orientation`` is "auto", else of
            those whose size the json lacks.
        policy: decides what is mended or left out in ``columns``; the findings do not depend on it.
        with_annotations: False if the json is a list of images only.
        exif_orientation: INPUT.EXIF_ORIENTATION.
    """
    # The block makes up to a million objects without reference cycles, so garbage collection would only take time.
    with paused_gc():
        records, findings = inspect_image_records(content)
        all_ids = [record["image_id"] for record in records]
        listed = set(all_ids)
        findings += inspect_names([record["file_name"] for record in records], files)
        records = _match_files(records, files, findings, policy)
        records = _add_sizes(records, read_headers, findings, exif_orientation)
        entries, problem = find_list(content, "annotations") if with_annotations else ([], "")
        if problem:
            findings.append(Finding("json_structure", "the json", problem))
        if with_annotations:
            findings += find_other_names(content, categories)
        rows = {record["image_id"]: row for row, record in enumerate(records)}
        class_ids = {category_id: i for i, category_id in enumerate(categories)}
        annotations, num_lost = collect_annotations(entries, class_ids, rows, listed, findings)
        annotations = inspect_boxes(annotations, entries, records, findings, policy)
        if with_annotations and records and not any(KINDS[finding.kind].repair == STOP for finding in findings):
            inspect_classes(annotations, categories, findings)
        columns = _make_columns(records, annotations, all_ids)
        if with_annotations:
            for row in np.flatnonzero(np.diff(columns.starts) == 0):
                findings.append(Finding("image_without_boxes", printable(columns.names[row]), "has no boxes"))
    return Inspection(columns, findings, num_lost)


def inspect_names(names: Sequence[str], files: FileIndex) -> list[Finding]:
    """Find names in the json, and names of image files, that differ only in case or Unicode form."""
    on_disk = [pair for pair in files.ambiguous if is_image_name(pair[0])]
    pairs = dict.fromkeys([*NameIndex(names).ambiguous, *on_disk])
    return [
        Finding("name_ambiguous", printable(first), f"and '{printable(second)}' {DIFFER_ONLY_IN_FORM}")
        for first, second in pairs
    ]


def _match_files(records: Iterable[dict], files: FileIndex, findings: list[Finding], policy: str) -> list[dict]:
    """Return the ``records`` whose file exists, each with the file's ``path``; add what is wrong to ``findings``."""
    matched, seen, used = [], {}, set()
    for record in records:
        name = record["file_name"]
        path = files.find(name)
        used.add(path)
        if name in seen:
            first = seen[name]
            detail = f"is listed as the images {first!r} and {record['image_id']!r}"
            findings.append(Finding("file_name_twice", printable(name), detail))
            if KINDS["file_name_twice"].is_left_out(policy):
                continue
        seen.setdefault(name, record["image_id"])
        if path is None:
            kind, detail = "image_missing", f"is not in the image folder '{printable(files.root)}'"
            if files.is_outside(name):
                kind = "image_outside"
                detail = f"leads out of the image folder '{printable(files.root)}'; {_ABOUT_OUTSIDE}"
            findings.append(Finding(kind, printable(name), detail))
            continue
        record["path"] = path
        matched.append(record)
    for name in files.names:
        if is_image_name(name) and files.path(name) not in used:
            findings.append(Finding("image_unlisted", printable(name), "is not listed in the json"))
    return matched


def _add_sizes(
    records: list[dict], read_headers: HeaderReader, findings: list[Finding], exif_orientation: str
) -> list[dict]:
    """Return the ``records`` whose size is stated or read from a header, with the keys that ``settle_sizes`` adds."""
    wanted = records
    if exif_orientation != AUTO:
        wanted = [record for record in records if "height" not in record]
        for record in records:
            record["exif_orientation"] = exif_orientation
    if not wanted:
        return records
    headers = read_headers([record["path"] for record in wanted])
    for record, header in zip(wanted, headers, strict=True):
        # Report a bad header only if the json states no size; otherwise, it is reported when the image is read.
        if not isinstance(header, Header) and "height" not in record:
            findings.append(Finding(header.kind, printable(record["file_name"]), f"has no size: {header}".rstrip(".")))
    findings += settle_sizes(wanted, headers, exif_orientation)
    return [record for record in records if "height" in record]


def _make_columns(records: list[dict], annotations: Annotations, listed_ids: list) -> Columns:
    order = np.argsort(annotations.rows, kind="stable")
    starts = np.zeros(len(records) + 1, dtype=np.int64)
    np.cumsum(np.bincount(annotations.rows, minlength=len(records)), out=starts[1:])
    annotations = annotations.take(order)
    return Columns(
        names=[record["file_name"] for record in records],
        file_names=[record["path"] for record in records],
        image_ids=[record["image_id"] for record in records],
        heights=[record["height"] for record in records],
        widths=[record["width"] for record in records],
        starts=starts,
        boxes=annotations.boxes,
        classes=annotations.classes,
        crowd=annotations.crowd,
        areas=annotations.areas,
        exif_orientations=[record.get("exif_orientation", "") for record in records],
        listed_ids=listed_ids,
    )
