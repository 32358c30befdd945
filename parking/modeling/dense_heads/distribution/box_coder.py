"""Converts distributions of box sides to boxes and back.

Shape legend: R bins of a side; sides are left, top, right, bottom.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# With R bins, distances are clamped to at most R - 1 - _MARGIN, so that there is always a bin above the distance.
_MARGIN = 0.01


class DistributionBoxCoder:
    """Codes a box as four distributions, one for each distance from a point to a side of the box.

    The distance is the mean of the distribution over 0, 1, ..., R - 1 strides: Li et al., "Generalized Focal Loss",
    NeurIPS 2020, Sec. 3.2. All results are float32.
    """

    def __init__(self, num_bins: int):
        self.num_bins = num_bins

    def decode(self, logits: Tensor, points: Tensor) -> Tensor:
        """Convert ``logits`` to boxes (..., 4), XYXY in strides.

        Args:
            logits: (..., 4 R), first all bins of the left side, then of the top, right and bottom.
            points: (..., 2) x and y in strides; broadcast with ``logits``.
        """
        probs = logits.float().unflatten(-1, (4, self.num_bins)).softmax(dim=-1)
        # Multiply and sum up, because autocast would compute a matrix product in half precision.
        before, after = (probs * self._bins(logits)).sum(dim=-1).chunk(2, dim=-1)
        return torch.cat([points - before, points + after], dim=-1)

    def encode(self, boxes: Tensor, points: Tensor) -> Tensor:
        """Return for each side a distribution (..., 4, R) with the distance as mean; at most two bins are above 0.

        Args:
            boxes: (..., 4) XYXY in strides. Distances outside of 0 ... R - 1 are clamped to that range.
            points: (..., 2) in strides.
        """
        sides = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)
        sides = sides.clamp(0, self.num_bins - 1 - _MARGIN)
        return (1 - (sides[..., None] - self._bins(boxes)).abs()).clamp(min=0)

    def cross_entropy(self, logits: Tensor, boxes: Tensor, points: Tensor) -> Tensor:
        """Return the cross entropy (...,) of ``logits`` (..., 4 R) with the encoded ``boxes``, averaged over sides."""
        log_probs = F.log_softmax(logits.float().unflatten(-1, (4, self.num_bins)), dim=-1)
        return -(self.encode(boxes, points) * log_probs).sum(dim=-1).mean(dim=-1)

    def _bins(self, like: Tensor) -> Tensor:
        return torch.arange(self.num_bins, device=like.device, dtype=torch.float32)
