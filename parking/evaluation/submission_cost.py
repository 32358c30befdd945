"""What cutting predictions down to a submission costs where the truth is known."""

import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from parking.data.datasets.file_names import name_key
from parking.data.datasets.json_io import get_list, parse_json, read_image_records, read_json_object
from parking.evaluation.coco_scores import rank_image_ids, score_boxes
from parking.evaluation.detections import Detections
from parking.evaluation.ground_truth import convert_annotations
from parking.utils.errors import UserError


class Ap75(NamedTuple):
    """AP75 in percent: the mean over the classes, and of each category id; nan without annotated boxes."""

    mean: float
    per_class: dict[int, float]


class Annotations:
    """The annotated boxes of the images that a model has seen."""

    def __init__(self, annotations: str, *, category_ids: Sequence[int], images: str | None = None):
        """
        Args:
            annotations: COCO-like json.
            category_ids: those that may occur.
            images: ``images.json`` of an inference, [{"id", "file_name"}, ...]: only these images count, also those
                without boxes. None: all that are annotated.

        Raises:
            UserError: a file cannot be read or is malformed, the two have no image in common, or one of them means
                another image by an id.
        """
        content = read_json_object(annotations)
        names = {record["image_id"]: record["file_name"] for record in read_image_records(content, annotations)}
        seen = names if images is None else _read_image_names(images)
        self._ranks = rank_image_ids(names.keys() & seen.keys())
        if not self._ranks:
            raise UserError(f"'{annotations}' has none of the images of '{images}'; were they another data set's?")
        for image_id in self._ranks:
            if _get_key(names[image_id]) != _get_key(seen[image_id]):
                raise UserError(
                    f"The image {image_id!r} is '{names[image_id]}' in '{annotations}', but '{seen[image_id]}' in "
                    f"'{images}'; give infer.py the annotations as --image-info to have their ids."
                )
        self._category_ids = list(category_ids)
        self._ground_truth = {
            "images": [{"id": rank} for rank in self._ranks.values()],
            "annotations": convert_annotations(
                get_list(content, "annotations", annotations),
                annotations,
                image_ids=self._ranks,
                category_ids={i: i for i in category_ids},
            ),
            "categories": [{"id": i, "name": str(i)} for i in self._category_ids],
        }

    @property
    def num_images(self) -> int:
        return len(self._ranks)

    def score(self, detections: Detections) -> Ap75:
        """AP75 of ``detections``, those on other images left out."""
        image_ids, index = np.unique(detections.image_ids, return_inverse=True)
        known = np.array([image_id in self._ranks for image_id in image_ids.tolist()], dtype=bool)[index]
        if not known.any() or not self._ground_truth["annotations"]:
            annotated = {annotation["category_id"] for annotation in self._ground_truth["annotations"]}
            per_class = {i: 0.0 if i in annotated else math.nan for i in self._category_ids}
            return Ap75(0.0 if annotated else math.nan, per_class)
        stats, per_class = score_boxes(self._ground_truth, detections[known], self._ranks)
        return Ap75(stats[2], dict(zip(self._category_ids, per_class[:, 2].tolist(), strict=True)))


def _read_image_names(images: str) -> dict[int | str, str]:
    """The names by id of an ``images.json``."""
    try:
        return {entry["id"]: str(entry["file_name"]) for entry in parse_json(images)[0]}
    except (KeyError, TypeError) as e:
        raise UserError(f"'{images}' is not the images.json of an inference; give another or none.") from e


def _get_key(name: str) -> str:
    return os.path.basename(name_key(name))
