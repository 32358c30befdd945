"""The three loss terms of the distribution head.

Shape legend: N images, P predictions of an image, L levels of H x W cells, R bins of a side, C classes, K claims of
boxes in the batch (pairs of a box and a prediction, see :mod:`..task_aligned`).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.config import configurable
from detectron2.utils import comm
from torch import Tensor, nn

from parking.layers import box_ciou

from ..base import list_cells, mean_over_processes
from .box_coder import DistributionBoxCoder


class Assignment(NamedTuple):
    """The K claims of a batch, accepted or rejected; each is a pair of a box and a prediction that may learn the box.

    Attributes:
        images, predictions: (K,) int64.
        targets: (K,) soft targets, 0..1; 0 if the claim is rejected.
        gt_boxes: (K, 4) XYXY in pixels, of the box that the prediction is assigned to.
        gt_classes: (K,) int64.
    """

    images: Tensor
    predictions: Tensor
    targets: Tensor
    gt_boxes: Tensor
    gt_classes: Tensor


class DistributionLoss(nn.Module):
    """The box, class and bin loss, each divided by S: the sum of the soft targets, or 1 if the sum is smaller.

    * box: sum of (1 - CIoU) * target / S over the assigned predictions;
    * class: sum of the cross entropies of all predictions and classes, divided by S; the target is the soft target for
      the class of the assigned box, and 0 otherwise;
    * bins: sum over the assigned predictions of (mean over the four sides of the cross entropy of the bins with the two
      bins next to the side) * target / S (Li et al., "Generalized Focal Loss", Eq. 6).

    With several processes S sums up the targets of all processes. Summed over the processes, the losses equal those of
    one process with all images.
    """

    @configurable
    def __init__(self, *, box_coder: DistributionBoxCoder, box_gain: float, cls_gain: float, bins_gain: float):
        super().__init__()
        self.box_coder = box_coder
        self.box_gain = box_gain
        self.cls_gain = cls_gain
        self.bins_gain = bins_gain

    @classmethod
    def from_config(cls, cfg):
        loss = cfg.MODEL.DISTRIBUTION_HEAD.LOSS
        return {
            "box_coder": DistributionBoxCoder(cfg.MODEL.DISTRIBUTION_HEAD.NUM_BINS),
            "box_gain": loss.BOX_GAIN,
            "cls_gain": loss.CLS_GAIN,
            "bins_gain": loss.BINS_GAIN,
        }

    def forward(
        self, raw: list[tuple[Tensor, Tensor]], assignment: Assignment, points: Tensor, strides: Tensor
    ) -> dict[str, Tensor]:
        """
        Args:
            raw: per level box logits (N, 4 R, H, W) and class logits (N, C, H, W).
            points: (P, 2) centres of the cells in strides.
            strides: (P, 1) pixels per cell.

        Returns:
            "loss_box", "loss_cls" and "loss_bins", float32 scalars, each times its gain and N: their sum is trained.
        """
        num_images, total = len(raw[0][0]), assignment.targets.sum()
        # The mean over n processes is clamped to at least 1 / n, so that the sum S over the processes is at least 1.
        total = mean_over_processes(total).clamp(min=1 / comm.get_world_size()) if self.training else total.clamp(min=1)
        box, bins = self._box_losses([boxes for boxes, _ in raw], assignment, points, strides)
        cls = self._class_loss([scores for _, scores in raw], assignment)
        return {
            "loss_box": box / total * (self.box_gain * num_images),
            "loss_cls": cls / total * (self.cls_gain * num_images),
            "loss_bins": bins / total * (self.bins_gain * num_images),
        }

    def _box_losses(
        self, logits: list[Tensor], assignment: Assignment, points: Tensor, strides: Tensor
    ) -> tuple[Tensor, Tensor]:
        joined = torch.cat([list_cells(level) for level in logits], dim=1)
        # Select the claimed predictions first, so that only these are converted to float32 below; copies take memory.
        claimed = joined[assignment.images, assignment.predictions]
        points, gt_boxes = points[assignment.predictions], assignment.gt_boxes / strides[assignment.predictions]
        ciou = box_ciou(self.box_coder.decode(claimed, points), gt_boxes)
        entropy = self.box_coder.cross_entropy(claimed, gt_boxes, points)
        # Even in a batch without boxes, every parameter needs a gradient; these sums then give gradients of 0.
        return ((1 - ciou) * assignment.targets).sum(), (entropy * assignment.targets).sum()

    def _class_loss(self, logits: list[Tensor], assignment: Assignment) -> Tensor:
        levels = [list_cells(level) for level in logits]
        sizes, (num_images, _, num_classes) = [level.shape[1] for level in levels], levels[0].shape
        targets = assignment.targets.new_zeros(num_images, sum(sizes), num_classes)
        # Several boxes may claim a prediction; add up the targets, because only the accepted claim has one above 0.
        targets.index_put_(
            (assignment.images, assignment.predictions, assignment.gt_classes), assignment.targets, accumulate=True
        )
        return sum(
            F.binary_cross_entropy_with_logits(level.float(), target, reduction="sum")
            for level, target in zip(levels, targets.split(sizes, dim=1), strict=True)
        )
