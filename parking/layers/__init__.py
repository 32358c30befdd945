"""Building blocks of the network and the IoU family; plain modules and functions without configuration."""

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
from .iou import box_ciou, box_iou
from .upload import upload

__all__ = [
    "C3",
    "SPPF",
    "Bottleneck",
    "ConvNormAct",
    "DepthwiseConvNormAct",
    "box_ciou",
    "box_iou",
    "conv3x3",
    "fuse_conv_norm",
    "upload",
    "upsample_nearest",
]
