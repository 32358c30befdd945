"""Matching by the ratio of box and anchor sides, as in the YOLOv5 family.

Shape legend: T ground truth boxes of the whole batch, A anchors of a level, M matches of a level.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from parking.layers import upload

# Steps (column, row) from the cell of a box's centre to the cells that may be matched: the cell itself, then its left,
# upper, right and lower neighbour. The matches of a level are in this order.
_STEPS = ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1))


class LevelAssignment(NamedTuple):
    """The M matches of one level; if several matches share a prediction, the last of them sets its objectness target.

    Attributes:
        image, anchor, row, col: (M,) int64 each; the matched prediction is ``predictions[image, anchor, row, col]``.
        gt_index: (M,) int64, index of the matched ground truth box.
        gt_boxes: (M, 4) cx, cy, w, h in cells, relative to the top-left corner of the matched cell.
        anchor_sizes: (M, 2) width and height of the anchor in cells.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    col: Tensor
    gt_index: Tensor
    gt_boxes: Tensor
    anchor_sizes: Tensor


class RatioAssigner:
    """Matches a box with an anchor if their widths, and also their heights, differ by a factor below ``anchor_ratio``.

    For each such anchor, the box is matched in up to three cells: the cell of its centre, the left or right neighbour,
    and the upper or lower neighbour. A neighbour is matched if the centre lies in the half of its cell on that side.
    """

    def __init__(self, *, anchor_ratio: float):
        """
        Args:
            anchor_ratio: largest factor between the sides of a box and a matching anchor (exclusive), above 1.
        """
        if not anchor_ratio > 1:
            raise ValueError(f"anchor_ratio is {anchor_ratio}; it must be above 1")
        self.anchor_ratio = anchor_ratio

    @torch.no_grad()
    def __call__(
        self,
        gt_boxes: Tensor,
        gt_images: Tensor,
        anchors: Tensor,
        strides: Sequence[int],
        grid_sizes: Sequence[tuple[int, int]],
    ) -> list[LevelAssignment]:
        """
        Args:
            gt_boxes: (T, 4) XYXY in pixels, of all images of the batch.
            gt_images: (T,) int64, the image of each box.
            anchors: (L, A, 2) width and height in pixels.
            strides: pixels per cell of each level.
            grid_sizes: (H, W) of each level in cells.

        Returns:
            the matches of each level, ordered by step (own cell, left, upper, right, lower), then anchor, then box.
        """
        boxes = torch.cat([(gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2, gt_boxes[:, 2:] - gt_boxes[:, :2]], dim=1).float()
        return [
            self._assign_level(boxes / stride, gt_images, level_anchors / stride, grid_size)
            for level_anchors, stride, grid_size in zip(anchors.float(), strides, grid_sizes, strict=True)
        ]

    def _assign_level(
        self, boxes: Tensor, gt_images: Tensor, anchors: Tensor, grid_size: tuple[int, int]
    ) -> LevelAssignment:
        """Match ``boxes`` (T, 4), cx, cy, w, h, with ``anchors`` (A, 2), w, h; both are in cells of the level."""
        ratios = boxes[:, 2:] / anchors[:, None]
        fits = torch.maximum(ratios, 1 / ratios).amax(dim=-1) < self.anchor_ratio

        centers = boxes[:, :2]
        last = upload([grid_size[1] - 1, grid_size[0] - 1], centers.device, centers.dtype)
        # A centre on the right or lower border of the image belongs to the last cell.
        cells = torch.minimum(centers.floor(), last).clamp(min=0)
        inside = centers - cells
        start = (inside < 0.5) & (centers > 1)
        end = (inside > 0.5) & (centers < last)
        claims = torch.cat([torch.ones_like(fits[:1]), start.T, end.T])

        step, anchor, gt_index = (claims[:, None] & fits).nonzero(as_tuple=True)
        claimed = cells[gt_index] + upload(_STEPS, centers.device, centers.dtype)[step]
        relative = boxes[gt_index]
        relative[:, :2] -= claimed
        col, row = claimed.long().unbind(dim=1)
        return LevelAssignment(gt_images[gt_index], anchor, row, col, gt_index, relative, anchors[anchor])
