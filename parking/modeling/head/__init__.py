"""Heads; importing this package fills ``YOLO_HEAD_REGISTRY``."""

from .build import YOLO_HEAD_REGISTRY, build_yolo_head
from .yolo_head import YOLOHead

__all__ = ["YOLO_HEAD_REGISTRY", "YOLOHead", "build_yolo_head"]
