"""The head of YOLOX, without anchors; it has a branch for classes and a branch for boxes and objectness."""

from .assigner import SimOTAAssigner
from .box_coder import YOLOXBoxCoder
from .head import YOLOXHead
from .losses import YOLOXLoss

__all__ = ["SimOTAAssigner", "YOLOXBoxCoder", "YOLOXHead", "YOLOXLoss"]
