"""The head of the YOLOv5 family: one convolution per level predicts boxes, objectness and classes for each anchor."""

from .assigner import LevelAssignment, RatioAssigner
from .box_coder import YOLOBoxCoder
from .head import AnchorHead
from .losses import YOLOLoss

__all__ = ["AnchorHead", "LevelAssignment", "RatioAssigner", "YOLOBoxCoder", "YOLOLoss"]
