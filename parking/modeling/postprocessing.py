"""From a head's predictions to detections.

Shape legend: N images, P predictions of an image, C classes, K candidates or detections.
"""

import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import nms

from .dense_heads.base import DensePredictions

# Pixels between the classes when the published scores were made, in float32. It rounds coordinates, by up to 0.03
# pixels for class 79; the published weights have no class above that.
_CLASS_DISTANCE, _NUM_ROUNDED_CLASSES = 8192.0, 80
# Groups (image x class) that share a call of NMS are moved apart in float64. The numbers are chosen such that this
# rounds nothing: coordinates within _LIMIT pixels that are multiples of _GRID stay exact up to _MAX_GROUPS * _DISTANCE,
# since 2^25 / 2^-28 is 2^53. All other groups, which are few, get a call of their own.
_LIMIT, _DISTANCE, _MAX_GROUPS, _GRID = 2.0**15, 2.0**17, 2**8, 2.0**-28
# Boxes in one call. A CPU's time grows with their square, however few may touch; a GPU's memory does: 128 MB for these.
_MAX_BOXES_CPU, _MAX_BOXES_GPU = 1000, 32768


class YOLOPostprocessor:
    """Candidates above a threshold, the best of them, non-maximum suppression per class, the best of what is left.

    Nothing is ever left out for lack of time.
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
            score_thresh: candidates need a score above this.
            nms_thresh: IoU above which the lower of two boxes of a class is suppressed.
            max_detections: per image.
            pre_nms_topk: candidates per image that take part in the suppression.
            multi_label: every class above the threshold is a candidate, else the best class only.
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
        """All images at once; what is found in one does not depend on the others.

        Args:
            image_sizes: (height, width) of each image in the network's input, without padding.

        Returns:
            per image pred_boxes (XYXY in the same pixels, not clipped), scores (descending) and pred_classes (int64).
            Equal scores keep the order of the predictions and, within one, of the classes. They are on the CPU: what
            is done with a few boxes is faster there, and they are fetched with one wait for the whole batch.
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
        """Boxes (K, 4) XYXY, scores, classes and images (K,) of all candidates, by image and descending score."""
        bound = predictions.scores.amax(dim=-1) if predictions.upper_bound is None else predictions.upper_bound
        # Not a number is above no threshold; an infinite box would be refused by Boxes.clip.
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
        if len(order) > self.pre_nms_topk:  # else no image can have more
            among_best = _rank_in_image(images, len(predictions.boxes)) < self.pre_nms_topk
            order, images = order[among_best], images[among_best]
        return boxes[rows[order]], scores[order], classes[order], images


def _rank_in_image(images: Tensor, num_images: int) -> Tensor:
    """(K,) 0, 1, ... anew for each image; ``images`` (K,) ascends."""
    starts = torch.searchsorted(images, torch.arange(num_images, device=images.device))
    return torch.arange(len(images), device=images.device) - starts[images]


def nms_per_class(
    boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, images: Tensor | None = None
) -> Tensor:
    """Indices, ascending, of the boxes that no higher box of their class and image overlaps by IoU above ``threshold``.

    Every decision is the one that NMS of the boxes of one image and class alone makes in float64, for any number of
    images and classes. Only of classes 0 to 79, those of the published weights, coordinates are first rounded as the
    published scores were made: without it borderline boxes are decided differently.

    Args:
        boxes: (K, 4) XYXY, float32, finite.
        scores: (K,), descending within each image.
        classes: (K,) int64.
        images: (K,) int64, 0 or more; None: all boxes are of one image.
    """
    if not len(boxes):
        return classes
    boxes, scores = _round_as_published(boxes, classes), scores.double()  # one type, as torchvision demands
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
    """(K,) bool."""
    parts = boxes / _GRID
    return ((boxes.abs() <= _LIMIT) & (parts == parts.round())).all(dim=1)


def _round_as_published(boxes: Tensor, classes: Tensor) -> Tensor:
    """(K, 4) float64."""
    offsets = (classes * _CLASS_DISTANCE)[:, None]
    rounded = (boxes + offsets).double() - offsets
    return torch.where((classes < _NUM_ROUNDED_CLASSES)[:, None], rounded, boxes.double())


def _pack(sizes: list[int], max_sum: int, max_count: int) -> list[int]:
    """Sums of at most ``max_count`` neighbouring ``sizes``, each at most ``max_sum`` unless it is a single one."""
    packed, count = [], max_count
    for size in sizes:
        if count < max_count and packed[-1] + size <= max_sum:
            packed[-1] += size
            count += 1
        else:
            packed.append(size)
            count = 1
    return packed
