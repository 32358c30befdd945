"""The head of YOLOX: no anchors, a branch for classes and one for boxes and objectness."""

from .assigner import SimOTAAssigner
from .box_coder import YOLOXBoxCoder
from .head import YOLOXHead
from .losses import YOLOXLoss

__all__ = ["SimOTAAssigner", "YOLOXBoxCoder", "YOLOXHead", "YOLOXLoss"]
