"""The head of the "u" models of the YOLOv5 family: no anchors, box sides as distributions, task-aligned assignment."""

from .box_coder import DistributionBoxCoder
from .head import DistributionHead
from .losses import DistributionLoss

__all__ = ["DistributionBoxCoder", "DistributionHead", "DistributionLoss"]
