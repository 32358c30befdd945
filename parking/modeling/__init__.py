"""The detector and its parts; importing this package registers them with detectron2."""

from .backbone import PAFPN, CSPDarknet, build_csp_darknet_pafpn_backbone
from .dense_heads import (
    DENSE_HEAD_REGISTRY,
    AnchorHead,
    ClassRows,
    DenseHead,
    DensePredictions,
    DistributionHead,
    YOLOXHead,
    build_dense_head,
)
from .ensemble import DetectionFusion
from .fusion import soft_nms, weighted_boxes_fusion
from .meta_arch import YOLO
from .postprocessing import YOLOPostprocessor
from .test_time_augmentation import YOLOWithTTA

__all__ = [
    "DENSE_HEAD_REGISTRY",
    "PAFPN",
    "YOLO",
    "AnchorHead",
    "CSPDarknet",
    "ClassRows",
    "DenseHead",
    "DensePredictions",
    "DetectionFusion",
    "DistributionHead",
    "YOLOPostprocessor",
    "YOLOWithTTA",
    "YOLOXHead",
    "build_csp_darknet_pafpn_backbone",
    "build_dense_head",
    "soft_nms",
    "weighted_boxes_fusion",
]
