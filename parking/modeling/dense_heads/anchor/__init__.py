"""The head of the YOLOv5 family: anchors, objectness and classes from one convolution per level."""

from .anchor_generator import YOLOAnchorGenerator
from .assigner import RatioAssigner
from .box_coder import YOLOBoxCoder
from .head import YOLOHead
from .level_assignment import ASSIGNER_REGISTRY, LevelAssignment, build_assigner
from .losses import YOLOLoss

__all__ = [
    "ASSIGNER_REGISTRY",
    "LevelAssignment",
    "RatioAssigner",
    "YOLOAnchorGenerator",
    "YOLOBoxCoder",
    "YOLOHead",
    "YOLOLoss",
    "build_assigner",
]
