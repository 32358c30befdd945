"""Path aggregation neck: a top-down feature pyramid, followed by a bottom-up one."""

import itertools
import math
from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from parking.layers import C3, ConvNormAct, conv3x3, upsample_nearest
from parking.utils.errors import UserError

from .csp_darknet import CSPDarknet, scale_repeats

_REPEATS = 3


class PAFPN(Backbone):
    """Neck of Liu et al., "Path Aggregation Network for Instance Segmentation", CVPR 2018, Sec. 3.1, with C3 blocks.

    Each output has as many channels as the backbone's feature of the same stride.
    """

    @configurable
    def __init__(
        self,
        *,
        bottom_up: Backbone,
        in_features: Sequence[str],
        depth_multiple: float,
        depthwise: bool = False,
        norm: str = "BN",
    ):
        """
        Args:
            bottom_up: the backbone.
            in_features: names of the backbone's features to join, finest first; the stride must double from each
                feature to the next. Outputs are named after their stride: "p3" for 8, "p4" for 16, ….
            depth_multiple: factor of the repeats of a C3 block, relative to the large model (1.0).
            depthwise: whether each 3x3 convolution is replaced by a depthwise and a pointwise one.
            norm: "BN" or "SyncBN".

        Raises:
            UserError: ``bottom_up`` lacks a feature, or the strides do not double.
        """
        super().__init__()
        shapes = bottom_up.output_shape()
        _check_in_features(in_features, shapes)
        strides = [shapes[name].stride for name in in_features]
        widths = [shapes[name].channels for name in in_features]
        levels = [f"p{int(math.log2(stride))}" for stride in strides]
        repeats = scale_repeats(_REPEATS, depth_multiple)

        self.bottom_up = bottom_up
        self.in_features = tuple(in_features)
        self._out_features = levels
        self._out_feature_strides = dict(zip(levels, strides, strict=True))
        self._out_feature_channels = dict(zip(levels, widths, strict=True))

        def c3(in_channels: int, out_channels: int) -> C3:
            return C3(in_channels, out_channels, repeats, shortcut=False, depthwise=depthwise, norm=norm)

        # The key of a lateral or a downsample is the level that it reads; the key of a C3 block is its output's level.
        self.laterals, self.top_down_blocks = nn.ModuleDict(), nn.ModuleDict()
        self.downsamples, self.bottom_up_blocks = nn.ModuleDict(), nn.ModuleDict()
        for fine in reversed(range(len(levels) - 1)):
            self.laterals[levels[fine + 1]] = ConvNormAct(widths[fine + 1], widths[fine], norm=norm)
            self.top_down_blocks[levels[fine]] = c3(2 * widths[fine], widths[fine])
        for fine in range(len(levels) - 1):
            self.downsamples[levels[fine]] = conv3x3(widths[fine], widths[fine], 2, depthwise=depthwise, norm=norm)
            self.bottom_up_blocks[levels[fine + 1]] = c3(2 * widths[fine], widths[fine + 1])

    @classmethod
    def from_config(cls, cfg, bottom_up: Backbone):
        return {
            "bottom_up": bottom_up,
            "in_features": cfg.MODEL.PAFPN.IN_FEATURES,
            "depth_multiple": cfg.MODEL.YOLO.DEPTH_MULTIPLE,
            "depthwise": cfg.MODEL.YOLO.DEPTHWISE,
            "norm": cfg.MODEL.YOLO.NORM,
        }

    @property
    def size_divisibility(self) -> int:
        return max(self._out_feature_strides.values())

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: (N, 3, H, W) image, H and W multiples of ``size_divisibility``.

        Returns:
            for every level, finest first, its output (N, channels, H / stride, W / stride) by name.
        """
        features = self.bottom_up(x)
        levels = self._out_features

        top = features[self.in_features[-1]]
        laterals = {}
        for fine in reversed(range(len(levels) - 1)):
            level, coarser = levels[fine], levels[fine + 1]
            laterals[coarser] = self.laterals[coarser](top)
            upsampled = upsample_nearest(laterals[coarser])
            top = self.top_down_blocks[level](torch.cat([upsampled, features[self.in_features[fine]]], dim=1))

        outputs = {levels[0]: top}
        for finer, level in itertools.pairwise(levels):
            downsampled = self.downsamples[finer](outputs[finer])
            outputs[level] = self.bottom_up_blocks[level](torch.cat([downsampled, laterals[level]], dim=1))
        return outputs


@BACKBONE_REGISTRY.register()
def build_csp_darknet_pafpn_backbone(cfg, input_shape: ShapeSpec) -> PAFPN:
    """Build a CSP-Darknet with a PAFPN from MODEL.CSP_DARKNET, MODEL.PAFPN and MODEL.YOLO; called by detectron2."""
    return PAFPN(cfg, CSPDarknet(cfg, input_shape))


def _check_in_features(in_features: Sequence[str], shapes: dict[str, ShapeSpec]) -> None:
    missing = [name for name in in_features if name not in shapes]
    if missing or not in_features:
        raise UserError(
            f"MODEL.PAFPN.IN_FEATURES is {list(in_features)}, but the backbone gives {list(shapes)}: name some."
        )
    strides = [shapes[name].stride for name in in_features]
    if any(coarse != 2 * fine for fine, coarse in itertools.pairwise(strides)):
        raise UserError(
            f"MODEL.PAFPN.IN_FEATURES is {list(in_features)} with strides {strides}: each must be twice that before it."
        )
