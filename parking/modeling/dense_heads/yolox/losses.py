"""The loss terms of YOLOX.

Shape legend: N images, P predictions of an image, C classes, T ground truth boxes of the whole batch, M assigned
predictions of the batch.
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

# Batch size for which the published rate is 0.01; it is proportional to the batch.
_REFERENCE_BATCH = 64


class PointOutputs(NamedTuple):
    """Raw outputs of the head for each point of all levels, finest first.

    Attributes:
        deltas: (N, P, 4), objectness: (N, P) logits, class_logits: (N, P, C), in the precision of the network.
        cells: (P, 2) column and row, strides: (P, 1) in pixels, float32.
        level_sizes: how many points each level has.
    """

    deltas: Tensor
    objectness: Tensor
    class_logits: Tensor
    cells: Tensor
    strides: Tensor
    level_sizes: tuple[int, ...]


class YOLOXLoss(nn.Module):
    """Box, objectness, class and L1 loss, each divided by the number of assigned predictions.

    * box: sum over the assigned of 1 - IoU^2;
    * objectness: sum over all predictions of the cross entropy against 1 (assigned) or 0;
    * class: sum over the assigned of the cross entropy against the IoU at the box's class and 0 elsewhere;
    * L1: sum over the assigned of the distance of the four raw outputs from what would give the box.

    With target scores (task-aligned assignment), these take the place of the IoU in the class loss, weight the box and
    L1 loss, and these three are divided by their sum.

    The published training takes a step after every batch of any size B, with a rate of 0.01 B / 64 and the gradient of
    these losses. The trainer here sums gradients over B images, in one iteration or in several, and takes the step with
    SOLVER.BASE_LR. So each loss is multiplied by its images / 64: with a BASE_LR of 0.01, SGD then changes the weights
    as published.

    With several processes, the divisors are those of all of them: summed over the processes, the losses are those of
    one process with all images.
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
    ):
        super().__init__()
        self.num_classes = num_classes
        self.box_gain = box_gain
        self.obj_gain = obj_gain
        self.cls_gain = cls_gain
        self.l1_gain = l1_gain
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
        }

    def forward(
        self,
        outputs: PointOutputs,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        assigned: Tensor,
        target_scores: Tensor | None = None,
        *,
        with_l1: bool,
    ) -> dict[str, Tensor]:
        """
        Args:
            gt_boxes: (T, 4) XYXY in pixels, gt_classes: (T,) int64.
            assigned: (N, P) int64, the box of each prediction or -1.
            target_scores: (N, P), 0..1, of the assigned.
            with_l1: whether the L1 term is trained.

        Returns:
            "loss_box", "loss_obj", "loss_cls" and perhaps "loss_l1", float32 scalars: their sum is trained.
        """
        is_assigned = assigned >= 0
        image, point = is_assigned.nonzero(as_tuple=True)  # waits for the device, once for each batch
        gt_index = assigned[image, point]
        gt_boxes, gt_classes = gt_boxes[gt_index].float(), gt_classes[gt_index]
        deltas, cells, strides = outputs.deltas[image, point].float(), outputs.cells[point], outputs.strides[point]
        iou = box_iou(box_convert(self.box_coder.decode(deltas, cells, strides), "cxcywh", "xyxy"), gt_boxes)
        targets = iou.detach() if target_scores is None else target_scores[image, point]
        weights = torch.ones_like(targets) if target_scores is None else targets
        num_assigned, sum_of_weights = self._sum_over_processes(torch.ones_like(weights), weights)

        class_target = deltas.new_zeros(len(deltas), self.num_classes)
        class_target.scatter_(1, gt_classes[:, None], targets[:, None])
        losses = {
            "loss_box": ((1 - iou.square()) * weights).sum() * (self.box_gain / sum_of_weights),
            "loss_obj": _cross_entropy(outputs.objectness, is_assigned.float()) * (self.obj_gain / num_assigned),
            "loss_cls": _cross_entropy(outputs.class_logits[image, point], class_target)
            * (self.cls_gain / sum_of_weights),
        }
        if with_l1:
            target_deltas = self.box_coder.encode(box_convert(gt_boxes, "xyxy", "cxcywh"), cells, strides)
            distance = (deltas - target_deltas).abs().sum(dim=1)
            losses["loss_l1"] = (distance * weights).sum() * (self.l1_gain / sum_of_weights)
        scale = len(assigned) / _REFERENCE_BATCH
        return {name: loss * scale for name, loss in losses.items()}

    def _sum_over_processes(self, *values: Tensor) -> Tensor:
        """The sum of each of ``values``, the mean over the processes while training; all together at least 1."""
        sums = torch.stack([value.sum() for value in values])
        if not self.training:
            return sums.clamp(min=1)
        return mean_over_processes(sums).clamp(min=1 / comm.get_world_size())


def _cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits.float(), target, reduction="sum")
