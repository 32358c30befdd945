"""Find what is wrong with annotations, quickly if they are sound; needs neither torch nor detectron2."""

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

from .findings import KINDS, Finding

# A box may extend beyond the image by this many pixels without a finding, because its numbers may be rounded.
_TOLERANCE = 1e-3
# Numbers above this are not accepted as coordinates, because products of such numbers may be infinite.
_LARGEST = 1e150
_NUMBERS = frozenset({int, float})
_NEEDED_KEYS = frozenset({"image_id", "category_id", "bbox"})
# Boxes narrower or lower than this many pixels are tiny.
_TINY = 2.0
# A finding names up to this many category ids.
_NUM_EXAMPLES = 20
# A box that covers at least this part of the image's area counts as covering the whole image.
_WHOLE = 0.95
# The boxes of a data set are taken for another format, such as (x0, y0, x1, y1), if there are at least this many boxes
# and at least this share of them looks like that format.
_MIN_BOXES, _MIN_SHARE = 20, 0.9
# A box that extends beyond the image by more than this part of the image's side is not just carelessly drawn.
_FAR_OUTSIDE = 0.1
# If boxes (x0, y0, x1, y1) are wrongly read as (x, y, width, height), at least this share of them extends beyond the
# image by more than _FAR_OUTSIDE, because most boxes outside the top-left quarter of the image do.
_MIN_OUTSIDE_SHARE = 0.2
# Whether the boxes of pictures that are used as stored were drawn on the turned pictures is judged from this many boxes
# on. Fewer than _MIN_BOXES suffice, because the EXIF orientation is further evidence.
_MIN_TURNED_BOXES = 5


@dataclass(frozen=True)
class Annotations:
    """Arrays that describe A annotations.

    Attributes:
        numbers: (A,) ints, indices into the json's list.
        rows: (A,) ints, indices of the images.
        classes: (A,) ints, contiguous.
        boxes: (A, 4) float64: x, y, width, height.
        crowd: (A,) bool.
        areas: (A,) float64, of masks; NaN if the json has none or an impossible one.
    """

    numbers: np.ndarray
    rows: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    crowd: np.ndarray
    areas: np.ndarray

    def take(self, index: np.ndarray) -> "Annotations":
        """Return the annotations that a mask or an array of indices selects."""
        return Annotations(*(getattr(self, field.name)[index] for field in fields(self)))


def collect_annotations(
    entries: Sequence[Any],
    class_ids: Mapping[int, int],
    rows: Mapping[Any, int],
    listed: Collection,
    findings: list[Finding],
) -> tuple[Annotations, int]:
    """Collect the annotations that can be read and whose images are used.

    Args:
        entries: the json's list of annotations.
        class_ids: category id -> contiguous class.
        rows: image id -> index of the image, for the images that are used.
        listed: all image ids of the json.
        findings: extended by what is wrong with the remaining annotations.

    Returns:
        The annotations, and how many sound ones were left out because their image was left out.
    """
    numbers, num_lost, ids = [], 0, set()
    for number, entry in enumerate(entries):
        annotation_id = _get_id(entry)
        if annotation_id in ids:
            detail = f"occurs again as annotations[{number}]"
            findings.append(Finding("annotation_id_twice", _name_entry(entries, number), detail))
        elif annotation_id is not None:
            ids.add(annotation_id)
        kind, detail = _find_problem(entry, class_ids, listed)
        if kind:
            findings.append(Finding(kind, _name_entry(entries, number), detail))
        elif entry["image_id"] not in rows:
            num_lost += 1
        else:
            numbers.append(number)
    sound = [entries[number] for number in numbers]
    boxes = np.fromiter(chain.from_iterable(entry["bbox"] for entry in sound), np.float64, 4 * len(sound))
    annotations = Annotations(
        numbers=np.array(numbers, dtype=np.int64),
        rows=np.array([rows[entry["image_id"]] for entry in sound], dtype=np.int64),
        classes=np.array([class_ids[entry["category_id"]] for entry in sound], dtype=np.int64),
        boxes=boxes.reshape(-1, 4),
        crowd=np.array([entry.get("iscrowd", 0) for entry in sound], dtype=bool),
        areas=np.full(len(sound), math.nan),  # filled in by inspect_boxes
    )
    return annotations, num_lost


def inspect_boxes(
    annotations: Annotations, entries: Sequence[Any], records: Sequence[dict], findings: list[Finding], policy: str
) -> Annotations:
    """Add to ``findings`` what is wrong with boxes and areas; return the annotations that ``policy`` keeps or mends.

    If most boxes look as if they were not x, y, width, height in pixels of the picture as stored, one finding says so,
    and no box is used or inspected by itself.

    Args:
        records: the images, with ``height``, ``width``, ``file_name`` and, if it is settled, ``exif_orientation``.
    """
    used = np.ones(len(annotations.rows), dtype=bool)
    sizes = np.array([(r["width"], r["height"]) for r in records], dtype=np.float64).reshape(-1, 2)[annotations.rows]

    def note(kind: str, mask: np.ndarray, detail: str) -> None:
        for i in np.flatnonzero(mask):
            number = int(annotations.numbers[i])
            box, image = entries[number]["bbox"], printable(records[annotations.rows[i]]["file_name"])
            findings.append(Finding(kind, _name_entry(entries, number), f"has the bbox {box} in {image}; {detail}"))
        if KINDS[kind].is_left_out(policy):
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
        return annotations.take(np.zeros(0, dtype=np.int64))
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
    note("annotation_twice", sound & _find_repeated(annotations), "it repeats another annotation")
    note("crowd", annotations.crowd, "it is a crowd, which is not trained on")
    return annotations.take(used)


def inspect_classes(annotations: Annotations, categories: Mapping[int, str], findings: list[Finding]) -> None:
    """Add findings about classes that have no box in ``annotations``, and one if at least half of the boxes are crowds.

    Args:
        categories: names by category id, in the order of the contiguous classes.
    """
    counts = np.bincount(annotations.classes[~annotations.crowd], minlength=len(categories))
    num_crowds = int(annotations.crowd.sum())
    # Give a hint, because annotators may not know that their tool makes crowds: CVAT sets iscrowd to 1 for all masks.
    # Keep the hint short, because tables cut long texts off.
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
            detail = f"({shown_name(name)}) has no box"
            findings.append(Finding("class_without_boxes", f"category {category_id}", detail))


def _inspect_areas(annotations: Annotations, entries, findings: list[Finding]) -> np.ndarray:
    """Return (A,) areas, NaN where width x height must be used instead; add impossible areas to ``findings``."""
    numbers = annotations.numbers.tolist()
    values = [entries[number].get("area") for number in numbers]
    areas, problems = find_impossible_areas(values, annotations.boxes)
    for i, why in sorted(problems.items()):
        detail = f"has the area {shorten(values[i])}, which {why}; its bbox is {entries[numbers[i]]['bbox']}"
        findings.append(Finding("area_impossible", _name_entry(entries, numbers[i]), detail))
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
            detail = f"has ignore {shorten(ignore)}, but is used like any other; set iscrowd to 1 to exclude it"
            findings.append(Finding("annotation_ignored", _name_entry(entries, number), detail))


def _find_problem(entry, class_ids, listed) -> tuple[str, str]:
    """Return the kind and detail of what makes an annotation unusable; two empty texts if it is sound."""
    if not isinstance(entry, dict):
        return "annotation_structure", f"is {shorten(entry)}, not a JSON object"
    if not entry.keys() >= _NEEDED_KEYS:
        key = next(key for key in ("image_id", "category_id", "bbox") if key not in entry)
        return "bbox_missing" if key == "bbox" else "annotation_structure", f"has no '{key}'"
    image_id, category_id, box = entry["image_id"], entry["category_id"], entry["bbox"]
    if not _is_exact_id(image_id) or image_id not in listed:
        detail = f"belongs to the image id {shorten(image_id)}, which is not among the 'images'"
        return "annotation_without_image", detail
    if not _is_exact_id(category_id) or category_id not in class_ids:
        # Name only some of the known ids, because there may be many, and each such annotation gets this text.
        known = ", ".join(map(str, islice(class_ids, _NUM_EXAMPLES))) + ", ..." * (len(class_ids) > _NUM_EXAMPLES)
        return "category_unknown", f"has the unknown category id {shorten(category_id)}; known are {known}"
    if not isinstance(box, list) or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        kind = "bbox_missing" if box is None else "annotation_structure"
        return kind, f"has the bbox {shorten(box)}; it must be [x, y, width, height]"
    if any(abs(value) > _LARGEST for value in box):
        return "bbox_not_finite", "has a bbox with infinite numbers, or numbers too large to compute with"
    crowd = entry.get("iscrowd", 0)
    if not isinstance(crowd, int | float) or crowd not in (0, 1):
        return "annotation_structure", f"has the iscrowd {shorten(crowd)}; it must be 0 or 1"
    return "", ""


def _is_exact_id(value: Any) -> bool:
    """Return whether ``value`` can be an id: a text, an integer (not a bool), or a whole float of at most 2^53."""
    return type(value) in (int, str) or (type(value) is float and value.is_integer() and abs(value) <= 2.0**53)


def _get_id(entry: Any) -> int | str | None:
    """Return a hashable key for the id of an annotation; None if the id is missing or neither an integer nor a text."""
    annotation_id = entry.get("id") if isinstance(entry, dict) else None
    if is_too_large_id(annotation_id):
        # Return a text, because many large integers can share one hash, which would make a set of them slow.
        return f"{annotation_id:x}"
    return annotation_id if isinstance(annotation_id, int | str) else None


def _find_mistaken_format(boxes: np.ndarray, sizes: np.ndarray) -> Finding | None:
    if len(boxes) < _MIN_BOXES:
        return None
    normalised = ((boxes >= 0) & (boxes <= 1)).all(axis=1).mean()
    if normalised >= _MIN_SHARE:
        detail = (
            f"has boxes that look divided by the image's size: {normalised:.0%} of them have numbers from 0 to 1 only; "
            "they must be in pixels"
        )
        return Finding("boxes_look_normalised", "the json", detail)
    first, second = boxes[:, :2], boxes[:, 2:]
    as_corners = ((second > first) & (second <= sizes + 1) & (first >= -1)).all(axis=1).mean()
    outside = (first + second > (1 + _FAR_OUTSIDE) * sizes).any(axis=1).mean()
    if as_corners >= _MIN_SHARE and outside >= _MIN_OUTSIDE_SHARE:
        detail = (
            f"has boxes that look like x0, y0, x1, y1 instead of x, y, width, height: read as corners, "
            f"{as_corners:.0%} of them fit into their image; read as sizes, {outside:.0%} reach far out of it"
        )
        return Finding("boxes_look_xyxy", "the json", detail)
    return None


def _find_upright_boxes(boxes: np.ndarray, sizes: np.ndarray) -> Finding | None:
    """Return a finding if pictures are used as stored, but their boxes fit the pictures turned upright.

    Args:
        sizes: (A, 2) width and height of the pictures as stored, equal to those in the json.
    """
    if len(boxes) < _MIN_TURNED_BOXES:
        return None
    ends = boxes[:, :2] + boxes[:, 2:]
    outside = (ends > (1 + _FAR_OUTSIDE) * sizes).any(axis=1).mean()
    upright = (ends <= sizes[:, ::-1] + 1).all(axis=1).mean()
    if outside < _MIN_OUTSIDE_SHARE or upright < _MIN_SHARE:
        return None
    detail = (
        f"states the sizes of pictures before EXIF turns them, but {outside:.0%} of their boxes reach far out of the "
        f"pictures as stored, and {upright:.0%} fit into the turned ones; state the sizes after turning"
    )
    return Finding("boxes_look_upright", "the json", detail)


def _find_repeated(annotations: Annotations) -> np.ndarray:
    """Return (A,) bool: whether an earlier annotation has the same image, class, box and crowd."""
    table = np.column_stack([annotations.rows, annotations.classes, annotations.crowd, annotations.boxes])
    # Hashing the rows as bytes is much faster than sorting them. Adding 0.0 turns -0.0 into 0.0, whose bytes differ.
    keys = (table + 0.0).view(f"V{8 * table.shape[1]}")[:, 0].tolist()
    seen = set()
    return np.array([key in seen or seen.add(key) is not None for key in keys], dtype=bool)


def _name_entry(entries, number: int) -> str:
    entry = entries[number]
    if isinstance(entry, dict) and "id" in entry:
        return f"annotation {shorten(entry['id'])}"
    return f"annotations[{number}]"
