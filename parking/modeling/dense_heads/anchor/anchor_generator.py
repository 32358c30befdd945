"""Anchor sizes and cells of each level."""

from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import ANCHOR_GENERATOR_REGISTRY
from torch import Tensor, nn

from parking.utils.errors import UserError


@ANCHOR_GENERATOR_REGISTRY.register()
class YOLOAnchorGenerator(nn.Module):
    """Knows L levels of A anchors each.

    Attributes:
        anchors: (L, A, 2) buffer, width and height in pixels of the network's input. It is part of the state, because
            weights are only right together with the anchors that they were trained with.
        strides: L integers, pixels per cell.
    """

    @configurable
    def __init__(self, *, sizes: Sequence[Sequence[Sequence[float]]], strides: Sequence[int]):
        """
        Args:
            sizes: L levels of A anchors of [width, height] in pixels, finest level first.
            strides: the level's strides.

        Raises:
            UserError: not one list for each level, not equally many anchors each, or not positive.
        """
        super().__init__()
        if len(sizes) != len(strides):
            raise UserError(
                f"MODEL.YOLO.ANCHORS has {len(sizes)} levels, but MODEL.YOLO.IN_FEATURES has {len(strides)}: "
                f"give one list of anchors for each."
            )
        try:
            anchors = torch.tensor(sizes, dtype=torch.float32)
        except (TypeError, ValueError):
            anchors = torch.empty(0)
        if anchors.dim() != 3 or anchors.shape[-1] != 2 or not all(w > 0 and h > 0 for lv in sizes for w, h in lv):
            raise UserError(
                f"MODEL.YOLO.ANCHORS is {sizes}: every level needs equally many [width, height] of positive numbers."
            )
        self.register_buffer("anchors", anchors)
        self.strides = list(strides)

    @classmethod
    def from_config(cls, cfg, input_shape: list[ShapeSpec]):
        return {"sizes": cfg.MODEL.YOLO.ANCHORS, "strides": [shape.stride for shape in input_shape]}

    @property
    def num_anchors(self) -> list[int]:
        """Anchors at every cell of each level."""
        return [level.shape[0] for level in self.anchors]

    def forward(self, grid_sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """
        Args:
            grid_sizes: (H, W) of each level in cells.

        Returns:
            per level (H, W, 2), the column and row of each cell, on the anchors' device.
        """
        return [self._cells(height, width) for height, width in grid_sizes]

    def _cells(self, height: int, width: int) -> Tensor:
        # Made anew in every call: it is cheap, and a cache would be state that tracing and threads trip over.
        rows = torch.arange(height, device=self.anchors.device, dtype=torch.float32)
        cols = torch.arange(width, device=self.anchors.device, dtype=torch.float32)
        rows, cols = torch.meshgrid(rows, cols, indexing="ij")
        return torch.stack([cols, rows], dim=-1)
