"""The three loss terms of the YOLOv5 family.

Shape legend: N images, A anchors, H x W cells of a level, C classes, M matches of a level.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from torch import Tensor, nn
from torchvision.ops import box_convert

from parking.layers import box_ciou, upload

from ..base import mean_over_processes
from .assigner import LevelAssignment
from .box_coder import YOLOBoxCoder

# The gains in the config are for a model with this many levels and classes, and images with sides of this many pixels.
_REFERENCE_LEVELS = 3
_REFERENCE_CLASSES = 80
_REFERENCE_SIZE = 640
# Weight of positives in the focal loss: Lin et al., ICCV 2017, Sec. 4.1.
_FOCAL_ALPHA = 0.25


class YOLOLoss(nn.Module):
    """The box, objectness and class loss.

    * box: mean over the matches of 1 - CIoU;
    * objectness: weighted sum over the levels of the mean cross entropy over all cells and anchors. The target of a
      matched prediction is its CIoU, at least 0 and without a gradient; the target of any other prediction is 0;
    * class: mean cross entropy over matches and classes; 0 for a model with a single class.

    With several processes the means are over the matches of all processes; otherwise a match would count for more in a
    process that has few matches. Summed over the processes, the losses equal those of one process with all images.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        box_gain: float,
        obj_gain: float,
        cls_gain: float,
        obj_level_weights: Sequence[float],
        obj_pos_weight: float = 1.0,
        cls_pos_weight: float = 1.0,
        focal_gamma: float = 0.0,
        label_smoothing: float = 0.0,
    ):
        """
        Args:
            box_gain, obj_gain, cls_gain: factors of the losses for 3 levels, 80 classes and 640 x 640 pixels; they are
                scaled for other levels, classes and image sizes.
            obj_level_weights: weight of each level in the objectness loss, finest first.
            obj_pos_weight, cls_pos_weight: weight of the positive part of the cross entropies.
            focal_gamma: gamma of the focal loss, which replaces the cross entropies if gamma is above 0.
            label_smoothing: s; the class target is 1 - s / 2 for the right class and s / 2 for the others.
        """
        super().__init__()
        level_factor = _REFERENCE_LEVELS / len(obj_level_weights)
        self.num_classes = num_classes
        self.box_factor = box_gain * level_factor
        self.obj_factor = obj_gain * level_factor
        self.cls_factor = cls_gain * level_factor * num_classes / _REFERENCE_CLASSES
        self.obj_level_weights = tuple(obj_level_weights)
        self.obj_pos_weight = obj_pos_weight
        self.cls_pos_weight = cls_pos_weight
        self.focal_gamma = focal_gamma
        self.label_smoothing = label_smoothing
        self.box_coder = YOLOBoxCoder()

    @classmethod
    def from_config(cls, cfg):
        loss = cfg.MODEL.ANCHOR_HEAD.LOSS
        return {
            "num_classes": cfg.MODEL.YOLO.NUM_CLASSES,
            "box_gain": loss.BOX_GAIN,
            "obj_gain": loss.OBJ_GAIN,
            "cls_gain": loss.CLS_GAIN,
            "obj_level_weights": loss.OBJ_LEVEL_WEIGHTS,
            "obj_pos_weight": loss.OBJ_POS_WEIGHT,
            "cls_pos_weight": loss.CLS_POS_WEIGHT,
            "focal_gamma": loss.FOCAL_GAMMA,
            "label_smoothing": loss.LABEL_SMOOTHING,
        }

    def forward(
        self,
        predictions: list[Tensor],
        gt_classes: Tensor,
        assignments: list[LevelAssignment],
        image_size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """
        Args:
            predictions: per level raw outputs (N, A, H, W, 5 + C).
            gt_classes: (T,) int64, of all ground truth boxes of the batch.
            assignments: one for each level.
            image_size: (height, width) in pixels of the padded batch, which the objectness gain depends on.

        Returns:
            "loss_box", "loss_obj" and "loss_cls", float32 scalars, each times its gain and N: their sum is trained.
        """
        num_matches = self._count_matches(assignments, predictions[0].device)
        levels = [
            self._level_losses(prediction, gt_classes, assignment, num)
            for prediction, assignment, num in zip(predictions, assignments, num_matches, strict=True)
        ]
        box, obj, cls = (torch.stack(terms) for terms in zip(*levels, strict=True))
        num_images = predictions[0].shape[0]
        area_factor = image_size[0] * image_size[1] / _REFERENCE_SIZE**2
        return {
            "loss_box": box.sum() * (self.box_factor * num_images),
            "loss_obj": (obj * upload(self.obj_level_weights, obj.device)).sum()
            * (self.obj_factor * area_factor * num_images),
            "loss_cls": cls.sum() * (self.cls_factor * num_images),
        }

    def _count_matches(self, assignments: list[LevelAssignment], device: torch.device) -> Tensor:
        """Number (L,) of matches on each level; in training, the mean of this number over the processes."""
        counts = upload([float(len(assignment.image)) for assignment in assignments], device)
        return mean_over_processes(counts) if self.training else counts

    def _level_losses(
        self, prediction: Tensor, gt_classes: Tensor, assignment: LevelAssignment, num_matches: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Convert only the needed predictions to float32; the rest may stay in half precision, which saves memory.
        obj_logits = prediction[..., 4].float()
        box_loss, cls_loss = obj_logits.new_zeros(()), obj_logits.new_zeros(())
        index = assignment[:4]
        matched_iou = obj_logits.new_zeros(0)
        if len(assignment.image):
            matched = prediction[index].float()
            ciou = self._ciou(matched[:, :4], assignment)
            box_loss = (1 - ciou).sum() / num_matches
            matched_iou = ciou.detach().clamp(min=0)
            if self.num_classes > 1:
                target = self._class_target(gt_classes[assignment.gt_index])
                cls_loss = self._cross_entropy(matched[:, 5:], target, self.cls_pos_weight)
                cls_loss = cls_loss * (len(target) / num_matches)
        obj_target = scatter_last(obj_logits.shape, index, matched_iou)
        return box_loss, self._cross_entropy(obj_logits, obj_target, self.obj_pos_weight), cls_loss

    def _ciou(self, deltas: Tensor, assignment: LevelAssignment) -> Tensor:
        # Both boxes are in cells, relative to the top-left corner of the cell that the true box is assigned to.
        boxes = self.box_coder.decode(deltas, cells=deltas.new_zeros(2), anchors=assignment.anchor_sizes)
        return box_ciou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(assignment.gt_boxes, "cxcywh", "xyxy"))

    def _class_target(self, classes: Tensor) -> Tensor:
        low = self.label_smoothing / 2
        target = torch.full((len(classes), self.num_classes), low, device=classes.device)
        return target.scatter_(1, classes[:, None], 1 - low)

    def _cross_entropy(self, logits: Tensor, target: Tensor, pos_weight: float) -> Tensor:
        weight = None if pos_weight == 1 else upload(pos_weight, logits.device)
        if self.focal_gamma == 0:
            return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
        loss = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
        return (loss * focal_weight(logits, target, self.focal_gamma)).mean()


def focal_weight(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """The weight alpha_t (1 - p_t)^gamma of the focal loss (Lin et al., ICCV 2017, Eq. 5), for soft targets in 0..1."""
    prob = logits.sigmoid()
    p_t = target * prob + (1 - target) * (1 - prob)
    alpha_t = target * _FOCAL_ALPHA + (1 - target) * (1 - _FOCAL_ALPHA)
    return alpha_t * (1 - p_t) ** gamma


def scatter_last(shape: Sequence[int], index: tuple[Tensor, ...], values: Tensor) -> Tensor:
    """Make a tensor of zeros with ``values`` at ``index``; if several values have the same place, the last one wins.

    Indexed assignment would not do: which of these values wins is undefined, and differs from run to run in large
    batches.

    Args:
        index: (M,) int64 for each dimension of ``shape``.
        values: (M,).
    """
    flat = index[0]
    for size, other in zip(shape[1:], index[1:], strict=True):
        flat = flat * size + other
    order = torch.arange(len(flat), device=flat.device)
    last = order.new_zeros(math.prod(shape)).scatter_reduce_(0, flat, order, "amax")
    # All writes to a place write the same value, so the order of the writes does not matter.
    return values.new_zeros(math.prod(shape)).scatter_(0, flat, values[last[flat]]).view(shape)
