"""Dense heads; importing this package fills the registry."""

from .anchor import YOLOHead
from .build import YOLO_HEAD_REGISTRY, build_yolo_head

__all__ = ["YOLO_HEAD_REGISTRY", "YOLOHead", "build_yolo_head"]
