"""From decoded predictions to detections.

Shape legend: N images, P predictions of an image, C classes, K candidates or detections.
"""

import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import box_convert, nms

# Pixels; more than the boxes of any usual input span, so that it is in fact constant.
_CLASS_DISTANCE = 8192.0
# Up to here one call is faster on a CPU than one for each class.
_MAX_BOXES_AT_ONCE = 1000


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
        """
        Args:
            predictions: (N, P, 5 + C), cx, cy, w, h in pixels of the network's input, then probabilities.
            image_sizes: (height, width) of each image in that input, without padding.

        Returns:
            per image pred_boxes (XYXY in the same pixels, not clipped), scores (descending) and pred_classes.
        """
        results = []
        for prediction, image_size in zip(predictions, image_sizes, strict=True):
            boxes, scores, classes = self.detect(prediction)
            results.append(Instances(image_size, pred_boxes=Boxes(boxes), scores=scores, pred_classes=classes))
        return results

    def detect(self, prediction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 4) XYXY, scores (K,) and classes (K,) int64 of one image (P, 5 + C), by descending score.

        Equal scores keep the order of the predictions and, within one, of the classes.
        """
        boxes, scores, classes = self._candidates(prediction)
        keep = nms_per_class(boxes, scores, classes, self.nms_thresh)[: self.max_detections]
        return boxes[keep], scores[keep], classes[keep]

    def _candidates(self, prediction: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # Not a number is above no threshold; an infinite box would be refused by Boxes.clip.
        sound = (prediction[:, 4] > self.score_thresh) & prediction[:, :4].isfinite().all(dim=1)
        prediction = prediction[sound]
        scores = prediction[:, 5:] * prediction[:, 4:5]
        if self.multi_label:
            rows, classes = (scores > self.score_thresh).nonzero(as_tuple=True)
            scores = scores[rows, classes]
        else:
            scores, classes = scores.max(dim=1)
            (rows,) = (scores > self.score_thresh).nonzero(as_tuple=True)
            scores, classes = scores[rows], classes[rows]
        scores, order = scores.sort(descending=True, stable=True)
        order, scores = order[: self.pre_nms_topk], scores[: self.pre_nms_topk]
        return box_convert(prediction[rows[order], :4], "cxcywh", "xyxy"), scores, classes[order]


def nms_per_class(boxes: Tensor, scores: Tensor, classes: Tensor, threshold: float) -> Tensor:
    """Indices, ascending, of the boxes that no higher box of their own class overlaps by an IoU above ``threshold``.

    The classes are shifted apart by a distance that, unlike in torchvision's ``batched_nms``, depends neither on the
    number of boxes nor on where they are. The shift rounds float32 coordinates, by up to 0.03 pixels for class 79, and
    the published scores were made with such a rounding: without it borderline boxes are decided differently.

    Args:
        boxes: (K, 4) XYXY, by descending score.
        scores, classes: (K,).
    """
    if not len(boxes):
        return classes
    distance = (boxes.max() - boxes.min()).clamp(min=_CLASS_DISTANCE)
    shifted = boxes + (classes * distance)[:, None]
    if boxes.is_cuda or len(boxes) <= _MAX_BOXES_AT_ONCE:
        return nms(shifted, scores, threshold).sort().values
    # The same result, but the time grows with the square of the class's boxes instead of all.
    by_class = classes.argsort(stable=True)
    groups = by_class.split(classes.bincount().tolist())
    return torch.cat([group[nms(shifted[group], scores[group], threshold)] for group in groups]).sort().values
