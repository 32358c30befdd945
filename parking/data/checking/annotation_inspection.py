"""Finding what is wrong with annotations, by whole arrays where nothing is; needs neither torch nor detectron2."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, islice
from typing import Any

import numpy as np

from parking.data.datasets.areas import find_impossible_areas
from parking.data.datasets.json_io import is_too_large_id, shorten
from parking.data.decoding.orientation import IGNORE
from parking.utils.class_names import shown_name
from parking.utils.text import printable

from .findings import (
    KEEP,
    KINDS,
    MEND,
    Finding,
)

# Pixels by which sums of rounded numbers may pass the border.
_TOLERANCE = 1e-3
_TINY = 2.0
# Category ids that a finding names.
_NUM_EXAMPLES = 20
_WHOLE = 0.95
# Of a data set whose boxes look like something else: at least so many boxes, of which such a share look so.
_MIN_BOXES, _MIN_SHARE = 20, 0.9
# Carelessly drawn boxes leave the image by less than such a part of its side; corners taken for sizes by more, unless
# the object is in the top-left quarter.
_FAR_OUTSIDE, _MIN_OUTSIDE_SHARE = 0.1, 0.2
# Few, because a picture that EXIF would turn is a sign already.
_MIN_TURNED_BOXES = 5


@dataclass(frozen=True)
class Annotations:
    """A annotations as arrays.

    Attributes:
        numbers: (A,) ints: which entries of the json's list.
        rows: (A,) ints: which images.
        classes: (A,) ints, contiguous.
        boxes: (A, 4) float64: x, y, width, height.
        crowd: (A,) bool.
        areas: (A,) float64, of masks; NaN where there is none, or an impossible one.
    """

    numbers: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    @classmethod
    def empty(cls) -> "Annotations":
        ints = np.zeros(0, dtype=np.int64)
        return cls(ints, ints, ints, np.zeros((0, 4)), np.zeros(0, dtype=bool), np.zeros(0))

    def take(self, index: np.ndarray) -> "Annotations":
        """Those that a mask or array of indices selects."""
        return Annotations(*(getattr(self, field.name)[index] for field in fields(self)))


def collect_annotations(
    entries: Sequence[Any],
    class_ids: Mapping[int, int],
    rows: Mapping[Any, int],
    listed: Collection,
    findings: list[Finding],
) -> tuple[Annotations, int]:
    """The annotations that can be read, of images that can be used.

    Args:
        entries: the json's list.
        rows: image id -> index of the image, for those that are used.
        listed: all image ids of the json.
        findings: what is wrong with the others is added.

    Returns:
        The annotations, and how many were left out only because their image was.
    """
    _inspect_ids(entries, findings)
    num_lost = 0
    annotations = _collect_sound(entries, np.arange(len(entries)), class_ids, rows)
    if annotations is None:
        numbers = []
        for number, entry in enumerate(entries):
            kind, detail = _find_problem(entry, class_ids, listed)
            if kind:
                findings.append(Finding(kind, _name_entry(entries, number), detail))
            elif entry["image_id"] not in rows:
                num_lost += 1
            else:
                numbers.append(number)
        sound = [entries[number] for number in numbers]
        annotations = _collect_sound(sound, np.array(numbers, dtype=np.int64), class_ids, rows)
    return annotations, num_lost


def inspect_boxes(
    annotations: Annotations, entries: Sequence[Any], records: Sequence[dict], findings: list[Finding], policy: str
) -> Annotations:
    """Add to ``findings`` what is wrong with boxes and areas, and leave out or mend what ``policy`` says.

    Boxes that, as a whole, are no x, y, width, height are not looked at one by one.

    Args:
        records: the images, with ``height``, ``width`` and ``file_name``, and ``exif_orientation`` where it is settled.
    """
    used = np.ones(len(annotations.rows), dtype=bool)
    sizes = np.array([(r["width"], r["height"]) for r in records], dtype=np.float64).reshape(-1, 2)[annotations.rows]

    def note(kind: str, mask: np.ndarray, detail: str) -> None:
        for i in np.flatnonzero(mask):
            number = int(annotations.numbers[i])
            box, image = entries[number]["bbox"], printable(records[annotations.rows[i]]["file_name"])
            findings.append(Finding(kind, _name_entry(entries, number), f"has the bbox {box} in {image}; {detail}"))
        if KINDS[kind].action(policy) not in (KEEP, MEND):
            used[mask] = False

    boxes = annotations.boxes.copy()
    finite = np.isfinite(boxes).all(axis=1)
    note("bbox_not_finite", ~finite, "the numbers must be finite")
    mistake = _find_mistaken_format(boxes[finite], sizes[finite])
    if not mistake:
        as_stored = np.array([r.get("exif_orientation") == IGNORE for r in records], dtype=bool)[annotations.rows]
        mistake = _find_upright_boxes(boxes[finite & as_stored], sizes[finite & as_stored])
    if mistake:
        findings.append(mistake)
        return annotations.take(np.zeros(len(used), dtype=bool))  # they are no x, y, width, height
    areas = _inspect_areas(annotations, entries, findings)
    _inspect_flags(annotations, entries, findings)
    boxes[~finite] = 0.0
    starts, ends = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    empty = finite & (boxes[:, 2:] <= 0).any(axis=1)
    note("bbox_empty", empty, "width and height must be above 0")
    outside = finite & ~empty & ((starts >= sizes) | (ends <= 0)).any(axis=1)
    note("bbox_outside", outside, "it lies outside the image")
    sound = finite & ~empty & ~outside
    partly = sound & ((starts < -_TOLERANCE) | (ends > sizes + _TOLERANCE)).any(axis=1)
    note("bbox_partly_outside", partly, "it lies partly outside the image")
    starts, ends = starts.clip(0, sizes), ends.clip(0, sizes)
    boxes[partly] = np.concatenate([starts, ends - starts], axis=1)[partly]
    note("bbox_tiny", sound & (boxes[:, 2:] < _TINY).any(axis=1), f"it is narrower or lower than {_TINY:g} pixels")
    whole = sound & (boxes[:, 2:].prod(axis=1) >= _WHOLE * sizes.prod(axis=1))
    note("bbox_whole_image", whole, f"it is {_WHOLE:.0%} of the image or more")
    annotations = replace(annotations, boxes=boxes, areas=areas)
    note("annotation_twice", sound & _find_repeated(annotations), "another annotation says the same")
    note("crowd", annotations.crowd, "it is a crowd, which is not trained on")
    return annotations.take(used)


def inspect_classes(annotations: Annotations, categories: Mapping[int, str], findings: list[Finding]) -> None:
    """Add to ``findings`` what nothing can be learned from in ``annotations``, those that are used.

    Args:
        categories: names by category id, in the order of the contiguous classes.
    """
    counts = np.bincount(annotations.classes[~annotations.crowd], minlength=len(categories))
    num_crowds = int(annotations.crowd.sum())
    # Short: a table shows the beginning only. CVAT, for one, sets iscrowd 1 for all masks.
    hint = "set iscrowd to 0 where a box is one object"
    if not counts.any():
        detail = f"has no box to learn from, but {num_crowds} crowds; {hint}"
        findings.append(Finding("nothing_to_learn", "the json", detail if num_crowds else "has no box to learn from"))
        return
    if num_crowds >= counts.sum():
        detail = f"has {num_crowds} crowds, not trained on, and {counts.sum()} other boxes; {hint}"
        findings.append(Finding("mostly_crowds", "the json", detail))
    for (category_id, name), count in zip(categories.items(), counts.tolist(), strict=True):
        if not count:
            findings.append(
                Finding("class_without_boxes", f"category {category_id}", f"({shown_name(name)}) has no box")
            )


def _inspect_areas(annotations: Annotations, entries, findings: list[Finding]) -> np.ndarray:
    """(A,) areas, NaN where width x height shall stand in."""
    values = [entries[number].get("area") for number in annotations.numbers.tolist()]
    areas, problems = find_impossible_areas(values, annotations.boxes)
    for i, why in sorted(problems.items()):
        where = _name_entry(entries, int(annotations.numbers[i]))
        box = entries[annotations.numbers[i]]["bbox"]
        findings.append(
            Finding("area_impossible", where, f"has the area {shorten(values[i])}, which {why}; its bbox is {box}")
        )
    return areas


def _inspect_flags(annotations: Annotations, entries, findings: list[Finding]) -> None:
    for number, is_crowd in zip(annotations.numbers.tolist(), annotations.crowd.tolist(), strict=True):
        entry = entries[number]
        attributes = entry.get("attributes")
        if attributes.__class__ is not dict:
            attributes = {}
        rotation = entry.get("rotation") or attributes.get("rotation")
        if rotation and not (type(rotation) in (int, float) and rotation % 360 == 0):
            detail = f"has the rotation {shorten(rotation)}; its bbox is used as if it were upright"
            findings.append(Finding("bbox_rotated", _name_entry(entries, number), detail))
        ignore = entry.get("ignore") or attributes.get("ignore")
        if ignore and not is_crowd:
            detail = f"has ignore {shorten(ignore)}; it is used like any other, set iscrowd to 1 where it shall not be"
            findings.append(Finding("annotation_ignored", _name_entry(entries, number), detail))


def _collect_sound(entries, numbers, class_ids, rows) -> Annotations | None:
    """None unless all of ``entries`` are sound and of images that are used."""
    if not entries:
        return Annotations.empty()
    try:
        image_ids, category_ids = ([entry[key] for entry in entries] for key in ("image_id", "category_id"))
        for ids in (image_ids, category_ids):
            if not {int, str}.issuperset(map(type, ids)) and not all(map(_is_exact_id, ids)):
                return None
        image_rows, classes = [rows[i] for i in image_ids], [class_ids[i] for i in category_ids]
        boxes = [entry["bbox"] for entry in entries]
        crowd = [entry.get("iscrowd", 0) for entry in entries]
        if set(map(type, boxes)) != {list} or set(map(len, boxes)) != {4} or not {0, 1}.issuperset(crowd):
            return None
        # Not left to numpy, which would read numbers from texts.
        if not {int, float}.issuperset(map(type, chain.from_iterable(boxes))):
            return None
        coordinates = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * len(boxes))
        return Annotations(
            numbers=numbers,
            rows=np.array(image_rows, dtype=np.int64),
            classes=np.array(classes, dtype=np.int64),
            boxes=coordinates.reshape(-1, 4),
            crowd=np.array(crowd, dtype=bool),
            areas=np.full(len(boxes), math.nan),  # looked at later
        )
    except (KeyError, TypeError, AttributeError, OverflowError):
        return None


def _find_problem(entry, class_ids, listed) -> tuple[str, str]:
    """Kind and detail of what keeps an annotation from being read; empty where nothing does."""
    if not isinstance(entry, dict):
        return "annotation_structure", f"is {shorten(entry)}, not a JSON object"
    for key in ("image_id", "category_id", "bbox"):
        if key not in entry:
            return "bbox_missing" if key == "bbox" else "annotation_structure", f"has no '{key}'"
    image_id, category_id, box = entry["image_id"], entry["category_id"], entry["bbox"]
    if not _is_exact_id(image_id) or image_id not in listed:
        return (
            "annotation_without_image",
            f"belongs to the image id {shorten(image_id)}, which is not among the 'images'",
        )
    if not _is_exact_id(category_id) or category_id not in class_ids:
        # Not all of them: this is said for every such annotation.
        known = ", ".join(map(str, islice(class_ids, _NUM_EXAMPLES))) + ", ..." * (len(class_ids) > _NUM_EXAMPLES)
        return "category_unknown", f"has the unknown category id {shorten(category_id)}; known are {known}"
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        kind = "bbox_missing" if box is None else "annotation_structure"
        return kind, f"has the bbox {shorten(box)}; it must be [x, y, width, height]"
    if any(1e300 < abs(value) < math.inf for value in box):
        return "bbox_not_finite", "has a bbox with numbers too large to compute with"
    crowd = entry.get("iscrowd", 0)
    if not isinstance(crowd, int | float) or crowd not in (0, 1):
        return "annotation_structure", f"has the iscrowd {shorten(crowd)}; it must be 0 or 1"
    return "", ""


def _is_exact_id(value: Any) -> bool:
    """Whether it can name one of the ids of a json; true is no 1, and a float above 2^53 stands for several numbers."""
    return type(value) in (int, str) or (type(value) is float and value.is_integer() and abs(value) <= 2.0**53)


def _inspect_ids(entries, findings: list[Finding]) -> None:
    try:
        ids = [_to_key(entry.get("id")) for entry in entries]
        if len(set(ids)) == len(ids):
            return
    except (AttributeError, TypeError):
        ids = [_to_key(entry.get("id")) if isinstance(entry, dict) else None for entry in entries]
    seen = set()
    for number, annotation_id in enumerate(ids):
        if isinstance(annotation_id, int | str):
            if annotation_id in seen:
                findings.append(
                    Finding(
                        "annotation_id_twice", _name_entry(entries, number), f"occurs again as annotations[{number}]"
                    )
                )
            seen.add(annotation_id)


def _to_key(annotation_id):
    return f"{annotation_id:x}" if is_too_large_id(annotation_id) else annotation_id


def _find_mistaken_format(boxes: np.ndarray, sizes: np.ndarray) -> Finding | None:
    if len(boxes) < _MIN_BOXES:
        return None
    normalised = ((boxes >= 0) & (boxes <= 1)).all(axis=1).mean()
    if normalised >= _MIN_SHARE:
        detail = (
            f"has boxes that look divided by the image's size: all numbers of {normalised:.0%} of them lie within 0 "
            "and 1; they must be pixels"
        )
        return Finding("boxes_look_normalised", "the json", detail)
    first, second = boxes[:, :2], boxes[:, 2:]
    as_corners = ((second > first) & (second <= sizes + 1) & (first >= -1)).all(axis=1).mean()
    outside = (first + second > (1 + _FAR_OUTSIDE) * sizes).any(axis=1).mean()
    if as_corners >= _MIN_SHARE and outside >= _MIN_OUTSIDE_SHARE:
        detail = (
            f"has boxes that look like x0, y0, x1, y1: read so, {as_corners:.0%} of them fit into their image; read as "
            f"x, y, width, height, as they must be, {outside:.0%} reach far out of it"
        )
        return Finding("boxes_look_xyxy", "the json", detail)
    return None


def _find_upright_boxes(boxes: np.ndarray, sizes: np.ndarray) -> Finding | None:
    """Whether boxes of pictures that are used as stored look as if they were of the pictures turned upright.

    Args:
        sizes: (A, 2) width and height of the stored pictures, which the json states.
    """
    if len(boxes) < _MIN_TURNED_BOXES:
        return None
    ends = boxes[:, :2] + boxes[:, 2:]
    outside = (ends > (1 + _FAR_OUTSIDE) * sizes).any(axis=1).mean()
    upright = (ends <= sizes[:, ::-1] + 1).all(axis=1).mean()
    if outside < _MIN_OUTSIDE_SHARE or upright < _MIN_SHARE:
        return None
    detail = (
        f"states the sizes of pictures as they are stored, where EXIF turns them; {outside:.0%} of their boxes reach "
        f"far out of these, but {upright:.0%} fit into the pictures turned upright; state the upright sizes"
    )
    return Finding("boxes_look_upright", "the json", detail)


def _find_repeated(annotations: Annotations) -> np.ndarray:
    """(A,) bool: image, class, box and crowd are those of an earlier annotation."""
    table = np.column_stack([annotations.rows, annotations.classes, annotations.crowd, annotations.boxes])
    # Sorting one hash is much faster than sorting rows; equal rows have equal hashes, so they come together.
    weights = np.random.default_rng(0).integers(1, 2**63, size=table.shape[1], dtype=np.uint64) | np.uint64(1)
    hashes = ((table + 0.0).view(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    order = np.argsort(hashes, kind="stable")
    table = table[order]
    repeated = np.zeros(len(table), dtype=bool)
    repeated[order[1:]] = (table[1:] == table[:-1]).all(axis=1)
    return repeated


def _name_entry(entries, number: int) -> str:
    entry = entries[number]
    if isinstance(entry, dict) and "id" in entry:
        return f"annotation {shorten(entry['id'])}"
    return f"annotations[{number}]"
