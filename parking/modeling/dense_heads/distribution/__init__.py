"""The head of the "u" models of YOLOv5, without anchors; it predicts box sides as distributions."""

from .box_coder import DistributionBoxCoder
from .head import DistributionHead
from .losses import DistributionLoss

__all__ = ["DistributionBoxCoder", "DistributionHead", "DistributionLoss"]
