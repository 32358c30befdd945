"""Fuse the detections of several models in the same images."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from parking.modeling import DetectionFusion
from parking.structures.detections import Detections, make_id_column
from parking.structures.instances import to_detections

# Images that are fused in one call.
_FUSE_AT_ONCE = 64


def fuse_results(
    opinions: Sequence[Detections], fusion: DetectionFusion, *, image_ids: Sequence, classes: Mapping[str, int]
) -> Detections:
    """Fuse the detections of several models, image by image.

    Args:
        opinions: the detections of each model in all images.
        image_ids: ids of all images, in the order of the result.
        classes: category id by class name; all detections must have one of these ids.

    Returns:
        Detections rounded to 0.001 pixels and 6 decimals of the score; the best of each image comes first.
    """
    category_ids = make_id_column(list(classes.values()))
    # Leave out boxes whose score was rounded to 0: weighted averages of boxes would divide by 0.
    by_image = [opinion[opinion.scores > 0].split(image_ids) for opinion in opinions]
    parts = [Detections.from_columns([], [], [], [])]
    for start in range(0, len(image_ids), _FUSE_AT_ONCE):
        some_ids = image_ids[start : start + _FUSE_AT_ONCE]
        fused = fusion([[_to_instances(next(found), category_ids) for _ in some_ids] for found in by_image])
        parts += [to_detections(i, found, category_ids.tolist()) for i, found in zip(some_ids, fused, strict=True)]
    return Detections.concatenate(parts)


def _to_instances(found: Detections, category_ids: np.ndarray) -> Instances:
    """Convert the detections of one image to detectron2's ``Instances``."""
    places = {category_id: i for i, category_id in enumerate(category_ids.tolist())}
    return Instances(
        (0, 0),  # the size of the image, which fusion does not need
        pred_boxes=Boxes(torch.from_numpy(found.corners.astype(np.float32))),
        scores=torch.from_numpy(found.scores.astype(np.float32)),
        pred_classes=torch.tensor([places[i] for i in found.category_ids.tolist()], dtype=torch.int64),
    )
