"""Keeps the boxes that a model finds until all processes are done, and puts them into columns."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm

from parking.structures.detections import Detections, make_id_column

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImagePredictions:
    """The boxes of one image: ``boxes`` (N, 4) XYXY_ABS, ``scores`` (N,), ``classes`` (N,) contiguous, on the CPU."""

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray


class PredictionCollector(DatasetEvaluator):
    """Base of an evaluator that needs the boxes of all images at once, on the main process.

    An image that is processed twice, by the same process or by two, counts once.
    """

    def __init__(self):
        self._predictions = {}

    def reset(self):
        self._predictions = {}

    def process(self, inputs, outputs):
        """
        Args:
            inputs: list of dicts with "image_id".
            outputs: list of dicts with "instances", which have ``pred_boxes`` in pixels of the original image,
                ``scores`` and ``pred_classes``.
        """
        for image, output in zip(inputs, outputs, strict=True):
            self._predictions[image["image_id"]] = to_predictions(output["instances"])

    def gather(self) -> dict | None:
        """{image id: ImagePredictions} of all processes on the main one, None on the others. All must call it."""
        comm.synchronize()
        parts = comm.gather(self._predictions, dst=0)
        if not comm.is_main_process():
            return None
        return {image_id: predictions for part in parts for image_id, predictions in part.items()}


def to_predictions(instances: Instances) -> ImagePredictions:
    """``pred_boxes``, ``scores`` and ``pred_classes`` of one image, copied to the CPU."""
    instances = instances.to("cpu")
    return ImagePredictions(
        instances.pred_boxes.tensor.detach().float().numpy(),
        instances.scores.detach().float().numpy(),
        instances.pred_classes.numpy(),
    )


def to_detections(predictions: dict, category_ids: Sequence[int | None]) -> Detections:
    """Put the predictions of many images, in the order of the dict, into columns.

    Args:
        predictions: {image id: ImagePredictions}.
        category_ids: the data set's own category id of every contiguous class; None: its boxes are left out.

    Returns:
        Detections: without the boxes that are not finite; a warning tells their number.

    Raises:
        ValueError: a predicted class is not among the ``category_ids``.
    """
    if not predictions:
        return Detections.from_columns([], [], [], [])
    classes = np.concatenate([p.classes for p in predictions.values()])
    if classes.size and not 0 <= classes.min() <= classes.max() < len(category_ids):
        raise ValueError(
            f"the model predicts class {classes.max()}, but the data set has {len(category_ids)} classes: "
            "does MODEL.YOLO.NUM_CLASSES match it?"
        )
    boxes = np.concatenate([p.boxes for p in predictions.values()]).astype(np.float64).reshape(-1, 4)
    columns = (
        np.repeat(make_id_column(list(predictions)), [len(p.scores) for p in predictions.values()]),
        make_id_column(category_ids)[classes],
        BoxMode.convert(boxes, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS),
        np.concatenate([p.scores for p in predictions.values()]),
    )
    known = np.array([category_id is not None for category_id in category_ids], dtype=bool)[classes]
    detections = Detections.from_columns(*(column[known] for column in columns))
    finite = detections.is_finite()
    if not finite.all():
        logger.warning("Dropped %d of %d boxes: not finite. Have the weights diverged?", (~finite).sum(), finite.size)
    return detections[finite]
