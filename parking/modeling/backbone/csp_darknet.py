"""CSP-Darknet, the backbone of the YOLOv5 family (releases 6 and 7) and, with blocks in another order, of YOLOX."""

import math
from collections import OrderedDict
from collections.abc import Sequence

from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from torch import Tensor, nn

from parking.layers import C3, SPPF, ConvNormAct, conv3x3
from parking.utils.errors import UserError

# Each table maps the name of a network's last stage to all stages of that network. A stage is a tuple (name, channels
# at width 1, (a, b)), and its C3 block has b * round(a * depth) repeats. The first stage has stride 4, and each further
# stage has twice the stride of the previous one.
_STEM_CHANNELS = 64
_YOLOV5_STAGES = {
    "dark5": (("dark2", 128, (3, 1)), ("dark3", 256, (6, 1)), ("dark4", 512, (9, 1)), ("dark5", 1024, (3, 1))),
    "dark6": (
        ("dark2", 128, (3, 1)),
        ("dark3", 256, (6, 1)),
        ("dark4", 512, (9, 1)),
        ("dark5", 768, (3, 1)),
        ("dark6", 1024, (3, 1)),
    ),
}
_YOLOX_STAGES = {
    "dark5": (("dark2", 128, (3, 1)), ("dark3", 256, (3, 3)), ("dark4", 512, (3, 3)), ("dark5", 1024, (3, 1)))
}
#: The values of MODEL.CSP_DARKNET.LAYOUT, each with its table of stages.
LAYOUTS = {"yolov5": _YOLOV5_STAGES, "yolox": _YOLOX_STAGES}


def scale_channels(channels: int, width_multiple: float) -> int:
    """``channels`` times ``width_multiple``, rounded up to a multiple of 8."""
    return math.ceil(channels * width_multiple / 8) * 8


def scale_repeats(repeats: int, depth_multiple: float) -> int:
    """``repeats`` times ``depth_multiple``, rounded, at least 1."""
    return max(round(repeats * depth_multiple), 1)


class CSPDarknet(Backbone):
    """A backbone of stages "dark2" (stride 4) to "dark5" (stride 32) or "dark6" (stride 64).

    A stage is a strided convolution and a C3 block with cross-stage partial connections (Wang et al., "CSPNet", CVPRW
    2020); the last stage also has an SPPF block. In the layout "yolox" (Ge et al., "YOLOX", 2021) the SPPF stands
    before the last C3, which has no shortcuts. The published stem of YOLOX reads each group of 2 x 2 pixels as 12
    channels; the 6x6 convolution used here computes the same.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        depth_multiple: float,
        width_multiple: float,
        out_features: Sequence[str],
        layout: str = "yolov5",
        depthwise: bool = False,
        norm: str = "BN",
    ):
        """
        Args:
            in_channels: channels of the input image.
            depth_multiple, width_multiple: factors of repeats and channels, relative to the large model (1.0).
            out_features: names of the stages to return, finest first. The network ends with the last one: "dark5" (a P5
                model) or, in the layout "yolov5" only, "dark6" (a P6 model, whose dark5 is narrower).
            layout: "yolov5" or "yolox".
            depthwise: whether each 3x3 convolution is replaced by a depthwise and a pointwise one.
            norm: "BN" or "SyncBN".

        Raises:
            UserError: the stages asked for do not exist.
        """
        super().__init__()
        ends = LAYOUTS[layout]
        stages = ends.get(out_features[-1] if out_features else None)
        names = [name for name, _, _ in stages or ()]
        if stages is None or not set(out_features) <= set(names):
            raise UserError(
                f"MODEL.CSP_DARKNET.OUT_FEATURES is {list(out_features)}: name stages of dark2, dark3, … that end with "
                f"{' or '.join(ends)}, as MODEL.CSP_DARKNET.LAYOUT {layout} has them."
            )
        self._out_features = list(out_features)
        self._out_feature_strides, self._out_feature_channels = {}, {}

        channels = scale_channels(_STEM_CHANNELS, width_multiple)
        self.stem = ConvNormAct(in_channels, channels, kernel_size=6, stride=2, padding=2, norm=norm)
        stride = 2
        for name, base_channels, (base_repeats, times) in stages:
            width = scale_channels(base_channels, width_multiple)
            repeats = times * scale_repeats(base_repeats, depth_multiple)
            is_last = name == names[-1]
            sppf_first = is_last and layout == "yolox"
            stage = OrderedDict(
                downsample=conv3x3(channels, width, 2, depthwise=depthwise, norm=norm),
                csp=C3(width, width, repeats, shortcut=not sppf_first, depthwise=depthwise, norm=norm),
            )
            if is_last:
                stage["sppf"] = SPPF(width, width, norm=norm)
            if sppf_first:
                stage.move_to_end("csp")
            self.add_module(name, nn.Sequential(stage))
            channels, stride = width, stride * 2
            self._out_feature_channels[name], self._out_feature_strides[name] = channels, stride
        self._stages = names

    @classmethod
    def from_config(cls, cfg, input_shape: ShapeSpec):
        return {
            "in_channels": input_shape.channels,
            "depth_multiple": cfg.MODEL.YOLO.DEPTH_MULTIPLE,
            "width_multiple": cfg.MODEL.YOLO.WIDTH_MULTIPLE,
            "out_features": cfg.MODEL.CSP_DARKNET.OUT_FEATURES,
            "layout": cfg.MODEL.CSP_DARKNET.LAYOUT,
            "depthwise": cfg.MODEL.YOLO.DEPTHWISE,
            "norm": cfg.MODEL.YOLO.NORM,
        }

    @property
    def size_divisibility(self) -> int:
        return self._out_feature_strides[self._stages[-1]]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """
        Args:
            x: (N, in_channels, H, W), H and W multiples of ``size_divisibility``.

        Returns:
            for every stage in ``out_features``, its output (N, channels, H / stride, W / stride) by name.
        """
        outputs = {}
        x = self.stem(x)
        for name in self._stages:
            x = getattr(self, name)(x)
            if name in self._out_features:
                outputs[name] = x
        return outputs
