"""Read the annotated boxes against which detections are scored; needs neither torch nor detectron2."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from parking.data.checking.annotation_inspection import collect_annotations, inspect_boxes
from parking.data.checking.findings import KINDS, Finding, list_counts, stop_if_needed
from parking.data.datasets.areas import find_impossible_areas, stand_in_areas
from parking.data.datasets.json_io import find_list, paused_gc
from parking.utils.errors import UserError
from parking.utils.text import printable

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Truth:
    """The G annotated boxes of the images on which detections are scored; an image may have none.

    Attributes:
        image_ids: ids of the images; their order decides between detections with equal scores.
        category_ids: (K,) the ids that detections have for the classes; None for a class that no detection can have.
        rows: (G,) int, indices of ``image_ids``.
        classes: (G,) int, indices of ``category_ids``.
        boxes: (G, 4) float64, XYWH_ABS.
        areas: (G,) float64, square pixels, which say whether a box is small or large.
        crowd: (G,) bool.
    """

    image_ids: Sequence[int | str]
    category_ids: Sequence[int | None]
    rows: np.ndarray
    classes: np.ndarray
    boxes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    @property
    def num_boxes(self) -> np.ndarray:
        """Number of boxes of each class, without crowds, (K,) int."""
        return np.bincount(self.classes[~self.crowd], minlength=len(self.category_ids))

    def without_images(self, image_ids: Collection[int | str]) -> "Truth":
        """Return a copy that lacks the images with these ids, and the boxes on them."""
        kept = np.array([image_id not in image_ids for image_id in self.image_ids], dtype=bool)
        used = kept[self.rows]
        return replace(
            self,
            image_ids=[image_id for image_id, keep in zip(self.image_ids, kept, strict=True) if keep],
            rows=(np.cumsum(kept) - 1)[self.rows[used]],
            **{name: getattr(self, name)[used] for name in ("classes", "boxes", "areas", "crowd")},
        )


def make_truth(
    image_ids: Sequence[int | str],
    category_ids: Sequence[int | None],
    *,
    rows: np.ndarray,
    classes: np.ndarray,
    boxes: np.ndarray,
    areas: Sequence[Any],
    crowd: np.ndarray,
    order: Sequence[int | str] | None = None,
) -> Truth:
    """Make a :class:`Truth`: put the images in COCO's order, and replace impossible areas.

    Args:
        image_ids, category_ids, rows, classes, boxes, crowd: as in :class:`Truth`, the images in any order.
        areas: (G,) as in a json; width x height stands in for one that is NaN, None or impossible.
        order: ids by which to sort the images, numbers before strings; ``image_ids`` by default.
    """
    keys = image_ids if order is None else order
    places = sorted(range(len(keys)), key=lambda i: (isinstance(keys[i], str), keys[i]))
    new_rows = np.empty(len(places), dtype=np.int64)
    new_rows[places] = np.arange(len(places))
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    usable, _ = find_impossible_areas(areas, boxes)
    return Truth(
        [image_ids[place] for place in places],
        list(category_ids),
        new_rows[np.asarray(rows, dtype=np.int64)],
        np.asarray(classes, dtype=np.int64),
        boxes,
        stand_in_areas(usable, boxes),
        np.asarray(crowd, dtype=bool),
    )


def read_truth(
    content: Mapping[str, Any],
    path: str,
    records: Sequence[Mapping],
    *,
    listed: Collection,
    categories: Mapping[int, int | None],
    image_ids: Sequence[int | str] | None = None,
    policy: str = "strict",
    may_repair: bool = True,
) -> Truth:
    """Read the boxes annotated on the images ``records``, by the same rules as for data sets of DATASETS.COCO.

    Faulty boxes are clipped, left out or refused; a warning tells how many were clipped or left out.

    Args:
        content: what a COCO-like json holds.
        path: of the json, for messages.
        records: images with ``image_id`` and ``file_name``, and ``height`` and ``width`` if they are known. Without
            them, no box counts as outside of the image.
        listed: the ids of all images in the json.
        categories: for each category id that may occur in the json, the id that detections have; None if none has it.
        image_ids: the ids that detections have for the ``records``; by default those of the json.
        policy: DATASETS.POLICY.
        may_repair: whether the user can choose another policy.

    Raises:
        UserError: names the first annotation with a finding that stops under ``policy``.
    """
    findings: list[Finding] = []
    json_ids = [record["image_id"] for record in records]
    class_ids = {category_id: i for i, category_id in enumerate(categories)}
    unlimited = {"height": math.inf, "width": math.inf}
    entries, problem = find_list(content, "annotations")
    if problem:
        raise UserError(f"'{path}' {problem}.")
    with paused_gc():
        rows = {image_id: row for row, image_id in enumerate(json_ids)}
        annotations, _ = collect_annotations(entries, class_ids, rows, listed, findings)
        sized = [{**unlimited, **record} for record in records]
        annotations = inspect_boxes(annotations, entries, sized, findings, policy)
    stop_if_needed(path, findings, policy, may_repair=may_repair)
    notable = [finding for finding in findings if KINDS[finding.kind].severity != "note"]
    if notable:
        lines = "\n".join(list_counts(notable, policy))
        logger.warning("Found in %s (see tools/check_data.py):\n%s", printable(path), lines)
    return make_truth(
        json_ids if image_ids is None else image_ids,
        list(categories.values()),
        order=json_ids,
        rows=annotations.rows,
        classes=annotations.classes,
        boxes=annotations.boxes,
        areas=annotations.areas.tolist(),
        crowd=annotations.crowd,
    )
