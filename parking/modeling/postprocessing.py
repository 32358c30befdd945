"""Turns the predictions of a head into detections.

Shape legend: N images, P predictions of an image, C classes, K candidates or detections.
"""

import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import nms

from .dense_heads.base import DensePredictions

# To get the published scores, coordinates of the classes 0 to 79, which the published weights have, are rounded as in
# the published NMS: adding c times _CLASS_DISTANCE to boxes of class c in float32 rounds them by up to 0.03 pixels.
_CLASS_DISTANCE, _NUM_ROUNDED_CLASSES = 8192.0, 80
# Up to _MAX_GROUPS groups (image x class) share a call of NMS; their boxes are shifted apart by _DISTANCE in float64.
# If all coordinates of a group are within _LIMIT pixels and are multiples of _GRID, the shift rounds nothing, because
# _MAX_GROUPS * _DISTANCE / _GRID is 2^53. The few other groups each get their own call of NMS.
_LIMIT, _DISTANCE, _MAX_GROUPS, _GRID = 2.0**15, 2.0**17, 2**8, 2.0**-28
# Limit of the boxes in one call of NMS. The time on a CPU and the memory on a GPU grow with the square of this number;
# 32768 boxes take 128 MB.
_MAX_BOXES_CPU, _MAX_BOXES_GPU = 1000, 32768


class YOLOPostprocessor:
    """Turns predictions into detections: selects the best scores, applies NMS to each class, keeps the best boxes.

    A candidate is a box with one of its classes whose score is above the threshold. There is no time limit, so no box
    is lost for lack of time.
    """

    @configurable
    def __init__(
        self,
        *,
        score_thresh: float,
        nms_thresh: float,
        max_detections: int,
        pre_nms_topk: int = 30000,
        multi_label: bool = True,
    ):
        """
        Args:
            score_thresh: a candidate must have a score above this.
            nms_thresh: if the IoU of two boxes of a class is above this, the box with the lower score is suppressed.
            max_detections: largest number of detections per image.
            pre_nms_topk: largest number of candidates per image that take part in NMS.
            multi_label: whether a prediction has a candidate for each class above the threshold, or for its best class
                only.
        """
        self.score_thresh = score_thresh
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.pre_nms_topk = pre_nms_topk
        self.multi_label = multi_label

    @classmethod
    def from_config(cls, cfg):
        return {
            "score_thresh": cfg.MODEL.YOLO.SCORE_THRESH_TEST,
            "nms_thresh": cfg.MODEL.YOLO.NMS_THRESH_TEST,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
            "pre_nms_topk": cfg.MODEL.YOLO.PRE_NMS_TOPK_TEST,
            "multi_label": cfg.MODEL.YOLO.MULTI_LABEL_TEST,
        }

    def __call__(self, predictions: DensePredictions, image_sizes: list[tuple[int, int]]) -> list[Instances]:
        """Turn the predictions of a batch into detections; the detections on an image do not depend on other images.

        Args:
            image_sizes: (height, width) of each image in the network's input, without padding.

        Returns:
            for each image pred_boxes (XYXY in pixels of the network's input, not clipped), scores (descending) and
            pred_classes (int64). Equal scores are ordered by prediction, then by class. All tensors are on the CPU,
            where work with a few boxes is faster; the whole batch is fetched with one wait for the device.
        """
        boxes, scores, classes, images = self._candidates(predictions)
        keep = nms_per_class(boxes, scores, classes, self.nms_thresh, images)
        keep = keep[_rank_in_image(images[keep], len(image_sizes)) < self.max_detections]
        columns = [column[keep].to("cpu") for column in (boxes, scores, classes, images)]
        counts = columns.pop().bincount(minlength=len(image_sizes)).tolist()
        return [
            Instances(image_size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes)
            for image_size, boxes, scores, classes in zip(
                image_sizes, *(column.split(counts) for column in columns), strict=True
            )
        ]

    def _candidates(self, predictions: DensePredictions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (K, 4) XYXY, scores, classes and images (K,) of the candidates, sorted by image and falling score."""
        bound = predictions.scores.amax(dim=-1) if predictions.upper_bound is None else predictions.upper_bound
        # Leave out boxes that are not finite, because Boxes.clip raises an error for them. Scores that are NaN are
        # left out, too, because NaN is not above the threshold.
        sound = (bound > self.score_thresh) & predictions.boxes.isfinite().all(dim=-1)
        images, rows = sound.nonzero(as_tuple=True)
        boxes, scores = predictions.boxes[images, rows], predictions.scores[images, rows]
        if self.multi_label:
            rows, classes = (scores > self.score_thresh).nonzero(as_tuple=True)
            scores = scores[rows, classes]
        else:
            scores, classes = scores.max(dim=1)
            (rows,) = (scores > self.score_thresh).nonzero(as_tuple=True)
            scores, classes = scores[rows], classes[rows]
        order = scores.argsort(descending=True, stable=True)
        order = order[images[rows[order]].argsort(stable=True)]
        images = images[rows[order]]
        if len(order) > self.pre_nms_topk:  # otherwise no image has more than pre_nms_topk candidates
            among_best = _rank_in_image(images, len(predictions.boxes)) < self.pre_nms_topk
            order, images = order[among_best], images[among_best]
        return boxes[rows[order]], scores[order], classes[order], images


def _rank_in_image(images: Tensor, num_images: int) -> Tensor:
    """Return the position (K,), from 0, of each element within its image; ``images`` (K,) must ascend."""
    starts = torch.searchsorted(images, torch.arange(num_images, device=images.device))
    return torch.arange(len(images), device=images.device) - starts[images]


def nms_per_class(
    boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, images: Tensor | None = None
) -> Tensor:
    """Ascending indices of the boxes that remain after non-maximum suppression within each class of each image.

    The result is the same as if NMS were called in float64 for each class of each image. Coordinates of the classes 0
    to 79, which the published weights have, are first rounded as for the published scores; otherwise NMS would decide
    differently on some borderline boxes.

    Args:
        boxes: (K, 4) XYXY, float32, finite.
        scores: (K,), descending within each image.
        classes: (K,) int64.
        images: (K,) int64, 0 or more; None: all boxes are of one image.
    """
    if not len(boxes):
        return classes
    boxes, scores = _round_as_published(boxes, classes), scores.double()  # torchvision's NMS requires equal types
    groups = classes if images is None else images * (classes.max() + 1) + classes
    _, groups, sizes = groups.unique(return_inverse=True, return_counts=True)
    shares = torch.ones_like(sizes, dtype=torch.bool)
    shares[groups[~_is_exact_when_shifted(boxes)]] = False
    order = groups.argsort(stable=True)
    mask = shares[groups[order]]
    kept = [part[nms(boxes[part], scores[part], threshold)] for part in order[~mask].split(sizes[~shares].tolist())]
    max_boxes = _MAX_BOXES_GPU if boxes.is_cuda else _MAX_BOXES_CPU
    places = (shares.cumsum(0) - 1)[groups]
    for part in order[mask].split(_pack(sizes[shares].tolist(), max_boxes, _MAX_GROUPS)):
        shifts = (places[part] - places[part[:1]]).double() * _DISTANCE
        kept.append(part[nms(boxes[part] + shifts[:, None], scores[part], threshold)])
    return torch.cat(kept).sort().values


def _is_exact_when_shifted(boxes: Tensor) -> Tensor:
    """Whether each box (K,) can be shifted in float64 without rounding (see :data:`_LIMIT`)."""
    parts = boxes / _GRID
    return ((boxes.abs() <= _LIMIT) & (parts == parts.round())).all(dim=1)


def _round_as_published(boxes: Tensor, classes: Tensor) -> Tensor:
    """Convert ``boxes`` (K, 4) to float64, rounded as the published scores require (see :data:`_CLASS_DISTANCE`)."""
    offsets = (classes * _CLASS_DISTANCE)[:, None]
    rounded = (boxes + offsets).double() - offsets
    return torch.where((classes < _NUM_ROUNDED_CLASSES)[:, None], rounded, boxes.double())


def _pack(sizes: list[int], max_sum: int, max_count: int) -> list[int]:
    """Merge consecutive ``sizes``, at most ``max_count`` at a time, into sums of at most ``max_sum``.

    A single size above ``max_sum`` is a sum of its own.
    """
    packed, count = [], max_count
    for size in sizes:
        if count < max_count and packed[-1] + size <= max_sum:
            packed[-1] += size
            count += 1
        else:
            packed.append(size)
            count = 1
    return packed
