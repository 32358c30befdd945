"""Fuse what several models have found in the same images."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from parking.modeling import DetectionFusion
from parking.structures.detections import Detections, make_id_column
from parking.structures.instances import to_detections

_FUSE_AT_ONCE = 64  # number of images


def fuse_results(
    opinions: Sequence[Detections], fusion: DetectionFusion, *, image_ids: Sequence, classes: Mapping[str, int]
) -> Detections:
    """Fuse the detections of several models, image by image.

    Args:
        opinions: the detections of each model in all images.
        image_ids: in the order that the result shall have.
        classes: category id by name, of all classes that occur.

    Returns:
        Boxes to 0.001 px and scores to 6 places, of each image the best first.
    """
    category_ids = make_id_column(list(classes.values()))
    # Scores that were rounded to 0 cannot weight anything.
    by_image = [opinion[opinion.scores > 0].split(image_ids) for opinion in opinions]
    parts = [Detections.from_columns([], [], [], [])]
    for start in range(0, len(image_ids), _FUSE_AT_ONCE):
        some_ids = image_ids[start : start + _FUSE_AT_ONCE]
        fused = fusion([[_to_instances(next(found), category_ids) for _ in some_ids] for found in by_image])
        parts += [to_detections(i, found, category_ids.tolist()) for i, found in zip(some_ids, fused, strict=True)]
    return Detections.concatenate(parts)


def _to_instances(found: Detections, category_ids: np.ndarray) -> Instances:
    """The detections of one image, as a model gives them."""
    places = {category_id: i for i, category_id in enumerate(category_ids.tolist())}
    return Instances(
        (0, 0),  # not known here, and not needed
        pred_boxes=Boxes(torch.from_numpy(found.corners.astype(np.float32))),
        scores=torch.from_numpy(found.scores.astype(np.float32)),
        pred_classes=torch.tensor([places[i] for i in found.category_ids.tolist()], dtype=torch.int64),
    )
