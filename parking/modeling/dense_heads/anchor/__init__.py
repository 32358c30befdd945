"""The head of the YOLOv5 family: anchors, objectness and classes from one convolution per level."""

from .assigner import LevelAssignment, RatioAssigner
from .box_coder import YOLOBoxCoder
from .head import AnchorHead
from .losses import YOLOLoss

__all__ = ["AnchorHead", "LevelAssignment", "RatioAssigner", "YOLOBoxCoder", "YOLOLoss"]
