"""Converts boxes to the network's outputs and back."""

import torch
from torch import Tensor

# Added to width and height, so that the logarithm is finite for a box whose width or height is 0.
_EPS = 1e-8


class YOLOXBoxCoder:
    """The transform of YOLOX from deltas (x, y, w, h) to boxes (cx, cy, w, h), for the cell (i, j) and stride s::

        cx = (x + i) s        w = exp(w) s
        cy = (y + j) s        h = exp(h) s

    All arguments are broadcast: boxes and deltas (..., 4), cells (..., 2) as column and row, strides (..., 1) in
    pixels. Boxes are cx, cy, w, h in pixels.
    """

    def encode(self, boxes: Tensor, cells: Tensor, strides: Tensor) -> Tensor:
        """Convert ``boxes`` to the deltas that :meth:`decode` turns back into them."""
        centers = boxes[..., :2] / strides - cells
        sides = (boxes[..., 2:] / strides + _EPS).log()
        return torch.cat([centers, sides], dim=-1)

    def decode(self, deltas: Tensor, cells: Tensor, strides: Tensor) -> Tensor:
        """Convert ``deltas`` to boxes, in float32."""
        deltas = deltas.float()
        centers = (deltas[..., :2] + cells) * strides
        sides = deltas[..., 2:].exp() * strides
        return torch.cat([centers, sides], dim=-1)
