"""From decoded predictions to detections.

Shape legend: N images, P predictions of an image, C classes, K candidates or detections.
"""

import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import box_convert, nms

# Pixels between the classes. More would round their float32 coordinates more than the published scores were made with.
_CLASS_DISTANCE = 8192.0
# Pixels between what may not touch, in float64; more than any box of an image of usual size is away from its origin.
_GROUP_DISTANCE = 65536.0
# Coordinates are rounded to this many parts of a pixel, which float64 then adds up exactly.
_PARTS_OF_A_PIXEL = 2.0**20
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
            score_thresh: candidates need objectness and objectness * class above this.
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

    def __call__(self, predictions: Tensor, image_sizes: list[tuple[int, int]]) -> list[Instances]:
        """All images at once; what is found in one does not depend on the others.

        Args:
            predictions: (N, P, 5 + C), cx, cy, w, h in pixels of the network's input, then probabilities.
            image_sizes: (height, width) of each image in that input, without padding.

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

    def _candidates(self, predictions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes (K, 4) XYXY, scores, classes and images (K,) of all candidates, by image and descending score."""
        # Not a number is above no threshold; an infinite box would be refused by Boxes.clip.
        sound = (predictions[..., 4] > self.score_thresh) & predictions[..., :4].isfinite().all(dim=-1)
        images, rows = sound.nonzero(as_tuple=True)
        picked = predictions[images, rows]
        scores = picked[:, 5:] * picked[:, 4:5]
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
            among_best = _rank_in_image(images, len(predictions)) < self.pre_nms_topk
            order, images = order[among_best], images[among_best]
        return box_convert(picked[rows[order], :4], "cxcywh", "xyxy"), scores[order], classes[order], images


def _rank_in_image(images: Tensor, num_images: int) -> Tensor:
    """(K,) 0, 1, ... anew for each image; ``images`` (K,) ascends."""
    starts = torch.searchsorted(images, torch.arange(num_images, device=images.device))
    return torch.arange(len(images), device=images.device) - starts[images]


def nms_per_class(
    boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float, images: Tensor | None = None
) -> Tensor:
    """Indices, ascending, of the boxes that no higher box of their class and image overlaps by IoU above ``threshold``.

    The classes are shifted apart by a distance that, unlike in torchvision's ``batched_nms``, depends neither on the
    number of boxes nor on where they are. The shift rounds float32 coordinates, by up to 0.03 pixels for class 79, and
    the published scores were made with such a rounding: without it borderline boxes are decided differently. All
    further arithmetic is in float64 and exact up to the quotient: an image has the same result alone and in any batch.

    Args:
        boxes: (K, 4) XYXY.
        scores: (K,), descending within each image.
        classes: (K,) int64.
        images: (K,) int64, 0 or more; None: all boxes are of one image.
    """
    if not len(boxes):
        return classes
    shifted = (boxes + (classes * _CLASS_DISTANCE)[:, None]).double()
    shifted = (shifted * _PARTS_OF_A_PIXEL).round() / _PARTS_OF_A_PIXEL
    # Without a shift that is common to all of a group, the groups may lie anywhere.
    shifted -= (classes * _CLASS_DISTANCE)[:, None]
    groups = classes if images is None else images * (classes.max() + 1) + classes
    distance = (boxes.max() - boxes.min()).double().ceil().clamp(min=_GROUP_DISTANCE) + 1
    shifted += (groups * distance)[:, None]
    scores = scores.double()  # of the boxes' type, as torchvision demands
    max_boxes = _MAX_BOXES_GPU if boxes.is_cuda else _MAX_BOXES_CPU
    if len(boxes) <= max_boxes:
        return nms(shifted, scores, threshold).sort().values
    by_group = groups.argsort(stable=True)
    parts = by_group.split(_pack(groups.bincount().tolist(), max_boxes))
    return torch.cat([part[nms(shifted[part], scores[part], threshold)] for part in parts]).sort().values


def _pack(sizes: list[int], limit: int) -> list[int]:
    """Sums of neighbouring ``sizes``, each at most ``limit`` unless it is a single one."""
    packed = [0]
    for size in sizes:
        if packed[-1] + size <= limit:
            packed[-1] += size
        else:
            packed.append(size)
    return packed
