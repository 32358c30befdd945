"""What cutting predictions down to a submission costs in AP75, on annotated images."""

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from parking.data.datasets.categories import find_other_names
from parking.data.datasets.file_names import name_key
from parking.data.datasets.json_io import parse_json, read_image_records, read_json_object
from parking.evaluation.annotated_boxes import make_ground_truth, read_boxes
from parking.evaluation.coco_scores import rank_image_ids, score_boxes
from parking.structures.detections import Detections
from parking.utils.errors import UserError
from parking.utils.text import printable

logger = logging.getLogger(__name__)


class Ap75(NamedTuple):
    """AP75 in percent: the mean over the classes, and of each category id; nan without annotated boxes."""

    mean: float
    per_class: dict[int, float]


class Annotations:
    """The annotated boxes of the images that an inference has read."""

    def __init__(self, annotations: str, *, classes: Mapping[int, str], images: str | None = None):
        """
        Args:
            annotations: COCO-like json.
            classes: names by category id, for all ids that may occur; another name in the json causes a warning.
            images: ``images.json`` of an inference, [{"id", "file_name"}, ...]: only these images count, also those
                without boxes. None: all images of ``annotations`` count.

        Raises:
            UserError: a file cannot be read or is malformed, the two have no image in common, or an id stands for
                different images in the two.
        """
        content = read_json_object(annotations)
        records = read_image_records(content, annotations)
        names = {record["image_id"]: record["file_name"] for record in records}
        seen = names if images is None else _read_image_names(images)
        self._ranks = rank_image_ids(names.keys() & seen.keys())
        if not self._ranks:
            raise UserError(
                f"'{annotations}' has none of the images of '{images}'; give annotations of the same data set."
            )
        for image_id in self._ranks:
            if _get_key(names[image_id]) != _get_key(seen[image_id]):
                raise UserError(
                    f"The image {image_id!r} is '{names[image_id]}' in '{annotations}', but '{seen[image_id]}' in "
                    f"'{images}'; give annotations of the same data set (infer.py --annotations uses its ids)."
                )
        self._category_ids = list(classes)
        for finding in find_other_names(content, classes):
            logger.warning("%s: %s %s.", printable(annotations), finding.where, finding.detail)
        used = [record for record in records if record["image_id"] in self._ranks]
        boxes = read_boxes(
            content,
            annotations,
            used,
            listed=names,
            class_ids={category_id: i for i, category_id in enumerate(self._category_ids)},
            may_repair=False,
        )
        ranks = {row: self._ranks[record["image_id"]] for row, record in enumerate(used)}
        self._ground_truth = make_ground_truth(boxes, ranks, len(self._category_ids))
        self._annotated = set(boxes.classes[~boxes.crowd].tolist())

    @property
    def num_images(self) -> int:
        return len(self._ranks)

    def score(self, detections: Detections) -> Ap75:
        """AP75 of the ``detections`` on these images; detections on other images do not count."""
        if not self._annotated:
            return Ap75(math.nan, dict.fromkeys(self._category_ids, math.nan))
        known = detections[np.array([i in self._ranks for i in detections.image_ids.tolist()], dtype=bool)]
        places = {category_id: i for i, category_id in enumerate(self._category_ids)}
        known = replace(known, category_ids=np.array([places[i] for i in known.category_ids.tolist()], dtype=np.int64))
        stats, per_class = score_boxes(self._ground_truth, known, self._ranks)
        return Ap75(stats[2], dict(zip(self._category_ids, per_class[:, 2].tolist(), strict=True)))


def _read_image_names(images: str) -> dict[int | str, str]:
    """File names by image id, from an ``images.json``."""
    try:
        return {entry["id"]: str(entry["file_name"]) for entry in parse_json(images)[0]}
    except (KeyError, TypeError) as e:
        raise UserError(f"'{images}' is not the images.json of an inference; give another or none.") from e


def _get_key(name: str) -> str:
    return os.path.basename(name_key(name))
