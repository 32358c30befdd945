"""Building blocks of networks, IoU and CIoU of boxes: plain modules and functions that know no config."""

from .blocks import (
    C3,
    SPPF,
    Bottleneck,
    ConvNormAct,
    DepthwiseConvNormAct,
    conv3x3,
    fuse_conv_norm,
    upsample_nearest,
)
from .iou import box_ciou, box_ciou_values, box_iou
from .upload import upload

__all__ = [
    "C3",
    "SPPF",
    "Bottleneck",
    "ConvNormAct",
    "DepthwiseConvNormAct",
    "box_ciou",
    "box_ciou_values",
    "box_iou",
    "conv3x3",
    "fuse_conv_norm",
    "upload",
    "upsample_nearest",
]
