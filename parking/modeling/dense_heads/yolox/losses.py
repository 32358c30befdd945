"""The loss terms of YOLOX.

Shape legend: N images, P predictions of an image, C classes, K claims of boxes in the batch
(pairs of a box and a prediction, see :mod:`..task_aligned`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.utils import comm
from torch import Tensor, nn
from torchvision.ops import box_convert

from parking.layers import box_iou

from ..base import mean_over_processes
from .box_coder import YOLOXBoxCoder

# The published learning rate is proportional to the batch size; for this batch size it is 0.01.
_REFERENCE_BATCH = 64


class PointOutputs(NamedTuple):
    """The raw outputs of the head for all points, those of the finest level first.

    Attributes:
        deltas: (N, P, 4), objectness: (N, P) logits, class_logits: (N, P, C), in the precision of the network.
        cells: (P, 2) column and row, strides: (P, 1) in pixels, float32.
        level_sizes: number of points of each level.
    """

    deltas: Tensor
    objectness: Tensor
    class_logits: Tensor
    cells: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


class Assignment(NamedTuple):
    """The K claims of a batch, accepted or rejected; each is a pair of a box and a prediction that may learn the box.

    Attributes:
        images, predictions: (K,) int64.
        gt_boxes: (K, 4) XYXY in pixels, gt_classes: (K,) int64, of the box that the prediction is assigned to.
        targets: (K,) 0..1, the prediction's target for the class of its box; 0 if the claim is rejected.
        is_assigned: (K,) bool, whether the claim is accepted; at most one claim on each prediction is.
    """

    images: Tensor
    predictions: Tensor
    gt_boxes: Tensor
    gt_classes: Tensor
    targets: Tensor
    is_assigned: Tensor


class YOLOXLoss(nn.Module):
    """The box, objectness, class and L1 loss, each divided by the number of assigned predictions.

    * box: sum over the assigned predictions of 1 - IoU^2;
    * objectness: sum over all predictions of the cross entropy with 1 if the prediction is assigned, else with 0;
    * class: sum over the assigned predictions of the cross entropy with the target at the box's class and 0 elsewhere;
    * L1: sum over the assigned predictions of the distance of the four raw outputs from those that would give the box.

    With task-aligned assignment, the targets also weight the assigned predictions in the box and L1 terms; these two
    terms and the class term are then divided by the sum of the targets.

    The published training takes a step after every batch of any size B, with a rate of 0.01 B / 64 and the gradient of
    these losses. The trainer here sums gradients over B images, in one iteration or in several, and takes the step with
    SOLVER.BASE_LR. Therefore each loss is multiplied by (number of images / 64): with a BASE_LR of 0.01, SGD then
    changes the weights as in the published training.

    With several processes, the divisors are counted over all of them: summed over the processes, the losses equal those
    of one process with all images.
    """

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        box_gain: float = 5.0,
        obj_gain: float = 1.0,
        cls_gain: float = 1.0,
        l1_gain: float = 1.0,
        weights_boxes: bool = False,
    ):
        """
        Args:
            weights_boxes: whether the targets are weights of the box and L1 terms, as for task-aligned assignment.
        """
        super().__init__()
        self.num_classes = num_classes
        self.box_gain = box_gain
        self.obj_gain = obj_gain
        self.cls_gain = cls_gain
        self.l1_gain = l1_gain
        self.weights_boxes = weights_boxes
        self.box_coder = YOLOXBoxCoder()

    @classmethod
    def from_config(cls, cfg):
        loss = cfg.MODEL.YOLOX_HEAD.LOSS
        return {
            "num_classes": cfg.MODEL.YOLO.NUM_CLASSES,
            "box_gain": loss.BOX_GAIN,
            "obj_gain": loss.OBJ_GAIN,
            "cls_gain": loss.CLS_GAIN,
            "l1_gain": loss.L1_GAIN,
            "weights_boxes": cfg.MODEL.YOLOX_HEAD.ASSIGNER == "TaskAligned",
        }

    def forward(
        self,
        outputs: PointOutputs,
        assignment: Assignment,
        *,
        with_l1: bool,
    ) -> dict[str, Tensor]:
        """
        Args:
            with_l1: whether to compute the L1 term.

        Returns:
            "loss_box", "loss_obj", "loss_cls" and, if ``with_l1``, "loss_l1": float32 scalars whose sum is trained.
        """
        images, predictions, gt_boxes, gt_classes, targets, is_assigned = assignment
        deltas = outputs.deltas[images, predictions].float()
        cells, strides = outputs.cells[predictions], outputs.strides[predictions]
        iou = box_iou(box_convert(self.box_coder.decode(deltas, cells, strides), "cxcywh", "xyxy"), gt_boxes)
        weights = targets if self.weights_boxes else is_assigned.float()
        num_assigned, total = self._over_processes(is_assigned.sum(dtype=torch.float32), weights.sum())

        # At most one claim on a prediction is accepted, so the sum of ``is_assigned`` for a prediction is 0 or 1.
        obj_target = torch.zeros_like(outputs.objectness, dtype=torch.float32)
        obj_target.index_put_((images, predictions), is_assigned.float(), accumulate=True)
        obj = _cross_entropy(outputs.objectness, obj_target)
        logits = outputs.class_logits[images, predictions]
        is_class = gt_classes[:, None] == torch.arange(self.num_classes, device=gt_classes.device)
        cls = _cross_entropy(logits, targets[:, None] * is_class).sum(dim=1) * is_assigned
        losses = {
            "loss_box": ((1 - iou.square()) * weights).sum() * (self.box_gain / total),
            "loss_obj": obj.sum() * (self.obj_gain / num_assigned),
            "loss_cls": cls.sum() * (self.cls_gain / total),
        }
        if with_l1:
            target_deltas = self.box_coder.encode(box_convert(gt_boxes, "xyxy", "cxcywh"), cells, strides)
            distance = (deltas - target_deltas).abs().sum(dim=1)
            losses["loss_l1"] = (distance * weights).sum() * (self.l1_gain / total)
        scale = len(outputs.deltas) / _REFERENCE_BATCH
        return {name: loss * scale for name, loss in losses.items()}

    def _over_processes(self, *sums: Tensor) -> Tensor:
        """Return ``sums``, each at least 1; in training, their means over the n processes, each at least 1 / n."""
        if not self.training:
            return torch.stack(sums).clamp(min=1)
        return mean_over_processes(torch.stack(sums)).clamp(min=1 / comm.get_world_size())


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), target, reduction="none")
