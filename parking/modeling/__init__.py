"""The detector and its parts; importing this package registers them with detectron2."""

from .backbone import PAFPN, CSPDarknet, build_csp_darknet_pafpn_backbone
from .dense_heads import YOLO_HEAD_REGISTRY, YOLOHead, build_yolo_head
from .dense_heads.anchor import (
    ASSIGNER_REGISTRY,
    LevelAssignment,
    RatioAssigner,
    YOLOAnchorGenerator,
    YOLOBoxCoder,
    YOLOLoss,
    build_assigner,
)
from .ensemble import DetectionFusion
from .fusion import soft_nms, weighted_boxes_fusion
from .meta_arch import YOLO
from .postprocessing import YOLOPostprocessor
from .test_time_augmentation import YOLOWithTTA

__all__ = [
    "ASSIGNER_REGISTRY",
    "PAFPN",
    "YOLO",
    "YOLO_HEAD_REGISTRY",
    "CSPDarknet",
    "DetectionFusion",
    "LevelAssignment",
    "RatioAssigner",
    "YOLOAnchorGenerator",
    "YOLOBoxCoder",
    "YOLOHead",
    "YOLOLoss",
    "YOLOPostprocessor",
    "YOLOWithTTA",
    "build_assigner",
    "build_csp_darknet_pafpn_backbone",
    "build_yolo_head",
    "soft_nms",
    "weighted_boxes_fusion",
]
