"""Convert a model's ``Instances`` to the table of boxes."""

import logging
from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances

from .detections import Detections, make_id_column

logger = logging.getLogger(__name__)


def to_detections(image_id: int | str, instances: Instances, category_ids: Sequence[int | None]) -> Detections:
    """Convert the detections in one image to a table, rounded as in the result files.

    Args:
        instances: ``pred_boxes`` in pixels of the original image, ``scores`` and ``pred_classes``, on any device.
        category_ids: for each of the model's classes the data set's category id; None leaves boxes of the class out.

    Raises:
        ValueError: the model predicts a class beyond the end of ``category_ids``.
    """
    instances = instances.to("cpu")
    classes = instances.pred_classes.numpy()
    if classes.size and not 0 <= classes.min() <= classes.max() < len(category_ids):
        raise ValueError(
            f"the model predicts class {classes.max()}, but the data set has {len(category_ids)} classes: "
            "does MODEL.YOLO.NUM_CLASSES match it?"
        )
    kept = np.array([category_id is not None for category_id in category_ids], dtype=bool)[classes]
    corners = instances.pred_boxes.tensor.detach().double().numpy()[kept]
    return Detections.from_columns(
        [image_id] * len(corners),
        make_id_column(category_ids)[classes[kept]],
        np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
        instances.scores.detach().double().numpy()[kept],
    ).round()


def drop_not_finite(detections: Detections) -> Detections:
    """Drop boxes with a coordinate or score that is not finite, and log a warning if there are any."""
    finite = detections.is_finite()
    if not finite.all():
        logger.warning("Dropped %d of %d boxes: not finite. Have the weights diverged?", (~finite).sum(), finite.size)
    return detections[finite]
