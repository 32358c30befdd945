"""COCO's box metrics of plain columns, through faster-coco-eval; needs neither torch nor detectron2."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval import COCO
from faster_coco_eval.core import COCOeval_faster

from parking.data.datasets.areas import find_impossible_areas, stand_in_areas
from parking.structures.detections import Detections


def rank_image_ids(image_ids: Iterable[int | str]) -> dict[int | str, int]:
    """{image id: its rank}, from 1. COCOeval wants integers, and breaks ties in score by their order."""
    ordered = sorted(image_ids, key=lambda i: (isinstance(i, str), i))
    return {image_id: rank for rank, image_id in enumerate(ordered, start=1)}


def make_annotations(
    *,
    image_ids: Sequence[int],
    category_ids: Sequence[int],
    boxes: np.ndarray,
    areas: Sequence[Any],
    crowd: Sequence[bool],
) -> list[dict]:
    """The ``annotations`` of the COCO json that :func:`score_boxes` takes.

    Args:
        image_ids: ranks.
        boxes: (A, 4) XYWH_ABS.
        areas: as in a json, or NaN or None where there are none; width x height stands in for impossible ones.
    """
    usable, _ = find_impossible_areas(areas, boxes)
    columns = (image_ids, category_ids, boxes.tolist(), stand_in_areas(usable, boxes).tolist(), crowd)
    return [
        # Not from 0: COCOeval takes a match with annotation 0 for no match.
        {"id": i, "image_id": image_id, "category_id": c, "bbox": box, "area": area, "iscrowd": int(is_crowd)}
        for i, (image_id, c, box, area, is_crowd) in enumerate(zip(*columns, strict=True), start=1)
    ]


def score_boxes(
    ground_truth: dict, detections: Detections, ranks: Mapping[int | str, int]
) -> tuple[list[float], np.ndarray]:
    """Score the boxes as COCO does (cocodataset.org/#detection-eval), at most 100 of an image and class.

    Args:
        ground_truth: a COCO json with ranks for image ids and :func:`make_annotations`.
        ranks: :func:`rank_image_ids` of all images of ``ground_truth``, among which those of ``detections`` are.

    Returns:
        COCO's twelve numbers, and an array (categories, 3): AP, AP50 and AP75 of each category of ``ground_truth``, in
        its order. All in percent, or nan where there is nothing to tell it by.
    """
    coco_gt = COCO(ground_truth)
    columns = (detections.image_ids, detections.category_ids, detections.boxes, detections.scores)
    # The empty segmentation keeps loadRes from making a polygon for every box.
    coco_dt = coco_gt.loadRes(
        [
            {"image_id": ranks[image_id], "category_id": category, "bbox": box, "score": score, "segmentation": []}
            for image_id, category, box, score in zip(*(c.tolist() for c in columns), strict=True)
        ]
    )
    coco_eval = COCOeval_faster(coco_gt, coco_dt, iouType="bbox", print_function=_discard)
    coco_eval.run()
    stats = [_percent([value]) for value in coco_eval.stats]

    # (IoU thresholds, recalls, categories, area ranges, maximal detections)
    precision = coco_eval.eval["precision"][:, :, :, 0, -1]
    thresholds = coco_eval.params.iouThrs
    at = [slice(None), *(np.flatnonzero(np.isclose(thresholds, t)) for t in (0.5, 0.75))]
    per_class = [[_percent(precision[rows, :, k]) for rows in at] for k in range(precision.shape[2])]
    return stats, np.array(per_class)


def _percent(values):
    """Mean of what COCOeval could compute, in percent; it marks the rest with -1."""
    values = np.asarray(values)
    values = values[values > -1]
    return float(values.mean() * 100) if values.size else math.nan


def _discard(*lines) -> None:
    """Instead of COCOeval's own lines."""
