"""Annotated boxes beside the ones that an inference finds; needs neither torch nor detectron2."""

import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from parking.data.datasets.areas import find_impossible_areas, stand_in_areas
from parking.data.datasets.categories import read_categories
from parking.data.datasets.file_names import name_key
from parking.data.datasets.findings import KINDS, STOP, count_kinds
from parking.data.datasets.json_io import get_list, read_image_records, read_json_object
from parking.evaluation.coco_scores import rank_image_ids, score_boxes
from parking.evaluation.detections import Detections
from parking.utils.class_names import find_classes
from parking.utils.errors import UserError
from parking.utils.text import printable

logger = logging.getLogger(__name__)

#: The first of COCO's numbers, which :meth:`GroundTruth.score` gives.
METRICS = ("AP", "AP50", "AP75")


class GroundTruth:
    """The annotated boxes of those images of an inference that a COCO-like json lists, found by their names."""

    def __init__(self, path: str, images: Sequence[dict], classes: Mapping[str, int]):
        """
        Args:
            path: the json. Its ids need not be those of the inference: images and categories are found by name, and
                categories by id where it does not name them.
            images: dicts with ``image_id`` and ``relative_path``.
            classes: category id by name of the model's classes. Boxes of others are left out, with a warning.

        Raises:
            UserError: the file cannot be read or is malformed, or lists none of the images.
        """
        content = read_json_object(path)
        records = read_image_records(content, path)
        image_ids = _match_images(records, images, path)
        if not image_ids:
            raise UserError(f"'{path}' lists none of the images, by their names; are they another data set's?")
        if len(set(image_ids.values())) < len(image_ids):
            raise UserError(f"'{path}' lists one of the images twice, with other folders in front.")
        #: Height and width in pixels by our image id, where the json states them.
        self.sizes = {
            image_ids[record["image_id"]]: (record["height"], record["width"])
            for record in records
            if record["image_id"] in image_ids and "height" in record
        }
        category_ids = _match_categories(content, path, classes)
        entries = get_list(content, "annotations", path)
        self._annotations = convert_annotations(entries, path, image_ids=image_ids, category_ids=category_ids)
        self._category_ids = list(classes.values())
        self._ranks = rank_image_ids(image_ids.values())
        self._boxes = defaultdict(list)
        for annotation in self._annotations:
            if not annotation["iscrowd"]:
                self._boxes[annotation["image_id"]].append((*annotation["bbox"], annotation["category_id"]))

    def __contains__(self, image_id: int | str) -> bool:
        return image_id in self._ranks

    def __len__(self) -> int:
        """Images that are both annotated and among those of the inference."""
        return len(self._ranks)

    def boxes_of(self, image_id: int | str) -> Detections:
        """What is annotated on an image, with scores of 1; regions marked as crowds are left out."""
        table = np.array(self._boxes.get(image_id, ()), dtype=np.float64).reshape(-1, 5)
        return Detections.from_columns([image_id] * len(table), table[:, 4], table[:, :4], np.ones(len(table)))

    def score(self, detections: Detections) -> dict[str, float]:
        """:data:`METRICS` in percent of the boxes on annotated images; nan where nothing is annotated."""
        known = np.array([image_id in self._ranks for image_id in detections.image_ids.tolist()], dtype=bool)
        if not self._annotations or not known.any():
            return dict.fromkeys(METRICS, 0.0 if self._annotations else math.nan)
        ground_truth = {
            "images": [{"id": rank} for rank in self._ranks.values()],
            "annotations": [{**a, "image_id": self._ranks[a["image_id"]]} for a in self._annotations],
            "categories": [{"id": i, "name": str(i)} for i in self._category_ids],
        }
        stats, _ = score_boxes(ground_truth, detections[known], self._ranks)
        return dict(zip(METRICS, stats, strict=False))


def _match_images(records: Sequence[dict], images: Sequence[dict], path: str) -> dict[int | str, int | str]:
    """Our image id for the id of each record that means one of our images.

    It does where both have the same path, else where one of the two paths is the end of the other: "a.png" may be
    "day/a.png", but "night/a.png" is not.
    """
    by_key = {name_key(image["relative_path"]): image["image_id"] for image in images}
    by_base = defaultdict(list)
    for key in by_key:
        by_base[key.rpartition("/")[2]].append(key)
    matched = {}
    for record in records:
        key = name_key(record["file_name"]).lstrip("/")
        ends = by_base.get(key.rpartition("/")[2], ())
        # The longest is the nearest: of those that are the end of the record's path there is one of each length.
        fitting = sorted((own for own in ends if f"/{key}".endswith(f"/{own}")), key=len)[-1:]
        fitting = fitting or [own for own in ends if own.endswith(f"/{key}")]
        if len(fitting) > 1:
            raise UserError(
                f"'{path}': '{record['file_name']}' may be '{fitting[0]}' or '{fitting[1]}'; name it with its folder."
            )
        if fitting:
            matched[record["image_id"]] = by_key[fitting[0]]
    return matched


def _match_categories(content: dict, path: str, classes: Mapping[str, int]) -> dict[int, int | None]:
    """Our category id for each one of the json; None: the model has no such class."""
    if not content.get("categories"):
        return {category_id: category_id for category_id in classes.values()}
    names, findings = read_categories(content)
    for finding in findings:
        if KINDS[finding.kind].strict == STOP:
            raise UserError(f"'{path}' {finding.detail}.")
    if findings:
        counts = [f"{count} {KINDS[kind].title}" for kind, count in count_kinds(findings).items()]
        logger.warning("%s: %s (see tools/check_data.py).", printable(path), "; ".join(counts))
    own = dict(zip(names, find_classes(names.values(), classes), strict=True))
    unknown = sorted(names[category_id] for category_id, name in own.items() if name is None)
    if unknown:
        logger.warning(
            "%s: the model has no class %s; their boxes are left out.", printable(path), printable(", ".join(unknown))
        )
    category_ids = {category_id: None if name is None else classes[name] for category_id, name in own.items()}
    if any(own_id not in (None, category_id) for category_id, own_id in category_ids.items()):
        logger.warning(
            "%s: its classes have other ids than the model's, which the results carry; they are matched by name.",
            printable(path),
        )
    return category_ids


def convert_annotations(
    entries: list, path: str, *, image_ids: Mapping[int | str, int | str], category_ids: Mapping[int, int | None]
) -> list[dict]:
    """The ``annotations`` of a COCO-like json under other ids, numbered from 1.

    Args:
        path: for the errors.
        image_ids: the new id of each image; annotations of others are left out.
        category_ids: likewise, None for a category that is left out.

    Returns:
        Dicts with ``id``, ``image_id``, ``category_id``, ``bbox`` (floats, XYWH_ABS), ``area`` (see
        :mod:`parking.data.datasets.areas`) and ``iscrowd``.

    Raises:
        UserError: an entry is malformed, or of a category that is not in ``category_ids``.
    """
    converted = []
    for i, entry in enumerate(entries):
        try:
            image_id = image_ids.get(entry["image_id"])
            category, box = entry["category_id"], [float(value) for value in entry["bbox"]]
            is_crowd = int(entry.get("iscrowd") or 0)
            is_sound = category in category_ids and len(box) == 4 and all(map(math.isfinite, box))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            is_sound = False
        if not is_sound:
            known = sorted(category_ids, key=str)
            raise UserError(
                f"'{path}': annotations[{i}] cannot be used: it needs an image_id, a bbox of four numbers and a "
                f"category_id of {known[0]} to {known[-1]}."
            )
        if image_id is not None and category_ids[category] is not None:
            converted.append(
                {
                    "id": len(converted) + 1,
                    "image_id": image_id,
                    "category_id": category_ids[category],
                    "bbox": box,
                    "area": entry.get("area"),
                    "iscrowd": is_crowd,
                }
            )
    boxes = np.array([annotation["bbox"] for annotation in converted], dtype=np.float64).reshape(-1, 4)
    areas, _ = find_impossible_areas([annotation["area"] for annotation in converted], boxes)
    for annotation, area in zip(converted, stand_in_areas(areas, boxes).tolist(), strict=True):
        annotation["area"] = area
    return converted
