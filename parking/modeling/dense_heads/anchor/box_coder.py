"""Converts boxes to the network's outputs and back."""

import torch
from torch import Tensor


class YOLOBoxCoder:
    """The bounded transform of the YOLOv5 family from deltas (x, y, w, h) to boxes (cx, cy, w, h).

    For the cell (i, j), stride s and anchor (aw, ah)::

        cx = (2 sigmoid(x) - 0.5 + i) s        w = (2 sigmoid(w))^2 aw
        cy = (2 sigmoid(y) - 0.5 + j) s        h = (2 sigmoid(h))^2 ah

    A cell can predict centres up to half a cell outside of it, and sides up to four times those of the anchor.

    All arguments are broadcast: boxes and deltas (..., 4), cells (..., 2) as column and row, anchors (..., 2) as width
    and height. Boxes and anchors are in pixels if the stride is in pixels, and in cells if the stride is 1.
    """

    def encode(self, boxes: Tensor, cells: Tensor, anchors: Tensor, stride: float = 1.0) -> Tensor:
        """Convert ``boxes`` to the deltas that decode to them; NaN or infinite if the cell cannot predict them."""
        centers = (boxes[..., :2] / stride - cells + 0.5) / 2
        sides = (boxes[..., 2:] / anchors).sqrt() / 2
        return torch.logit(torch.cat([centers, sides], dim=-1))

    def decode(self, deltas: Tensor, cells: Tensor, anchors: Tensor, stride: float = 1.0) -> Tensor:
        """Convert ``deltas`` to boxes, in float32."""
        scaled = deltas.float().sigmoid() * 2
        centers = (scaled[..., :2] - 0.5 + cells) * stride
        sides = scaled[..., 2:].square() * anchors
        return torch.cat([centers, sides], dim=-1)
