"""What several models have found, as one."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from detectron2.structures import Boxes, Instances

from parking.modeling import DetectionFusion
from parking.structures.detections import Detections, make_id_column
from parking.structures.instances import to_detections

_FUSE_AT_ONCE = 64  # images


def fuse_results(
    opinions: Sequence[Detections], fusion: DetectionFusion, *, image_ids: Sequence, classes: Mapping[str, int]
) -> Detections:
    """
    Args:
        opinions: of each model, on all images.
        image_ids: in the order that the result shall have.
        classes: category id by name, of all that occur.

    Returns:
        Boxes to 0.001 px and scores to 6 places, of each image the best first.
    """
    category_ids = make_id_column(list(classes.values()))
    by_image = [_split(opinion, image_ids, category_ids) for opinion in opinions]
    parts = [Detections.from_columns([], [], [], [])]
    for start in range(0, len(image_ids), _FUSE_AT_ONCE):
        some_ids = image_ids[start : start + _FUSE_AT_ONCE]
        fused = fusion([[next(instances) for _ in some_ids] for instances in by_image])
        parts += [to_detections(i, found, category_ids.tolist()) for i, found in zip(some_ids, fused, strict=True)]
    return Detections.concatenate(parts)


def _split(detections: Detections, image_ids: Sequence, category_ids: np.ndarray) -> Iterator[Instances]:
    """The detections of each image, as a model gives them."""
    # Drop scores that were rounded to 0: they cannot weight anything.
    detections = detections[detections.scores > 0].in_order(image_ids)
    counts = Counter(detections.image_ids.tolist())
    ends = np.cumsum([0, *(counts[image_id] for image_id in image_ids)])
    places = {category_id: i for i, category_id in enumerate(category_ids.tolist())}
    classes = np.array([places[i] for i in detections.category_ids.tolist()], dtype=np.int64)
    corners = detections.corners.astype(np.float32)
    for start, end in itertools.pairwise(ends):
        yield Instances(
            (0, 0),  # not known here, and not needed
            pred_boxes=Boxes(torch.from_numpy(corners[start:end])),
            scores=torch.from_numpy(detections.scores[start:end].astype(np.float32)),
            pred_classes=torch.from_numpy(classes[start:end]),
        )
