"""Fuses detections of several models or views on the same images."""

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.structures import Boxes, Instances

from .fusion import soft_nms, weighted_boxes_fusion
from .postprocessing import nms_per_class

# Image and class are packed into the number image * _CLASSES + class; this factor exceeds any number of classes.
_CLASSES = 2**32


class DetectionFusion:
    """Fuses detections image by image and class by class, by "nms", "soft_nms" or "wbf" (TEST.FUSION.NAME)."""

    @configurable
    def __init__(self, *, name: str, iou_thresh: float, sigma: float, score_thresh: float, max_detections: int):
        """
        Args:
            name: "nms", "soft_nms" or "wbf" (:func:`.fusion.weighted_boxes_fusion`).
            iou_thresh: used by "nms" and "wbf", 0..1. For "wbf" it should be above the threshold of each source's own
                NMS. Otherwise a cluster takes in several boxes of one source for the same object, and the weaker boxes
                lower the cluster's mean score.
            sigma: used by "soft_nms", above 0.
            score_thresh: used by "soft_nms": a box is left out if its score sinks to this or below. "nms" and "wbf"
                leave out no box because of its score, but "wbf" lowers the score of a box that some source lacks.
            max_detections: per image.
        """
        self.name = name
        self.iou_thresh = iou_thresh
        self.sigma = sigma
        self.score_thresh = score_thresh
        self.max_detections = max_detections
        self._fuse = {"nms": self._nms, "soft_nms": self._soft_nms, "wbf": self._weighted_boxes_fusion}[name]

    @classmethod
    def from_config(cls, cfg):
        return {
            "name": cfg.TEST.FUSION.NAME,
            "iou_thresh": cfg.TEST.FUSION.IOU_THRESH,
            "sigma": cfg.TEST.FUSION.SOFT_NMS_SIGMA,
            "score_thresh": cfg.MODEL.YOLO.SCORE_THRESH_TEST,
            "max_detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        }

    @torch.no_grad()
    def __call__(self, opinions: Sequence[Sequence[Instances]]) -> list[Instances]:
        """
        Args:
            opinions: for each source (model or view) the detections on each image, in the same pixels for all sources:
                pred_boxes (XYXY), scores (above 0, float32) and pred_classes. The detections are not changed.

        Returns:
            per image the same fields by descending score, at most ``max_detections``; boxes are not clipped.

        Raises:
            ValueError: the sources have different numbers of images, or different sizes of the same image.
        """
        pools = [_pool(of_image) for of_image in zip(*opinions, strict=True)]
        if not pools:
            return []
        boxes = torch.cat([pool.pred_boxes.tensor for pool in pools])
        scores = torch.cat([pool.scores for pool in pools])
        classes = torch.cat([pool.pred_classes for pool in pools])
        counts = torch.tensor([len(pool) for pool in pools])
        images = torch.arange(len(pools)).repeat_interleave(counts).to(boxes.device)

        boxes, scores, classes, images = self._fuse(boxes, scores, classes, images, len(opinions))
        order = scores.argsort(descending=True, stable=True)
        order = order[images[order].argsort(stable=True)]
        counts = images.bincount(minlength=len(pools)).tolist()
        results = []
        for pool, keep in zip(pools, order.split(counts), strict=True):
            keep = keep[: self.max_detections]
            fields = {"pred_boxes": Boxes(boxes[keep]), "scores": scores[keep], "pred_classes": classes[keep]}
            results.append(Instances(pool.image_size, **fields))
        return results

    def _nms(self, boxes, scores, classes, images, num_sources):
        order = scores.argsort(descending=True, stable=True)
        keep = order[nms_per_class(boxes[order], scores[order], classes[order], self.iou_thresh, images[order])]
        return boxes[keep], scores[keep], classes[keep], images[keep]

    def _soft_nms(self, boxes, scores, classes, images, num_sources):
        keep, scores = soft_nms(
            boxes,
            scores,
            images * _CLASSES + classes,
            sigma=self.sigma,
            score_thresh=self.score_thresh,
            max_per_group=self.max_detections,
        )
        return boxes[keep], scores, classes[keep], images[keep]

    def _weighted_boxes_fusion(self, boxes, scores, classes, images, num_sources):
        boxes, scores, groups = weighted_boxes_fusion(
            boxes, scores, images * _CLASSES + classes, num_sources=num_sources, iou_thresh=self.iou_thresh
        )
        return boxes, scores, groups % _CLASSES, groups // _CLASSES


def _pool(opinions: Sequence[Instances]) -> Instances:
    """Join the detections of all models or views on one image."""
    sizes = [instances.image_size for instances in opinions]
    if len(set(sizes)) > 1:
        raise ValueError(f"detections on one image must be in one frame, but its sizes are {sizes}")
    return Instances(
        sizes[0],
        pred_boxes=Boxes(torch.cat([instances.pred_boxes.tensor for instances in opinions])),
        scores=torch.cat([instances.scores for instances in opinions]),
        pred_classes=torch.cat([instances.pred_classes for instances in opinions]),
    )
