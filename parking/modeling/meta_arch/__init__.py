"""Meta-architectures; importing this package registers ``YOLO`` with detectron2."""

from .yolo import YOLO

__all__ = ["YOLO"]
