"""Translates tensors of the published YOLOX files to those of our model.

The names and the first convolution differ. A published network reads BGR, 0..255, in groups of 2 x 2 pixels ("Focus").
Ours reads RGB, 0..1, and its first convolution of 6 x 6 pixels with stride 2 gives the same result.
"""

from collections.abc import Mapping
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch import Tensor

from parking.modeling.dense_heads.yolox import published_names as yolox_head
from parking.utils.text import printable

from .layout import LayoutError, explain_folded

_STEM = "backbone.backbone.stem.conv."
_HEAD = "head."
# For each part of the network, the prefix of its published names and of ours.
_PARTS = {
    _STEM: "backbone.bottom_up.stem.",
    **{
        f"backbone.backbone.dark{stage}.{place}.": f"backbone.bottom_up.dark{stage}.{part}."
        for stage in (2, 3, 4)
        for place, part in enumerate(("downsample", "csp"))
    },
    "backbone.backbone.dark5.0.": "backbone.bottom_up.dark5.downsample.",
    "backbone.backbone.dark5.1.": "backbone.bottom_up.dark5.sppf.",
    "backbone.backbone.dark5.2.": "backbone.bottom_up.dark5.csp.",
    "backbone.lateral_conv0.": "backbone.laterals.p5.",
    "backbone.C3_p4.": "backbone.top_down_blocks.p4.",
    "backbone.reduce_conv1.": "backbone.laterals.p4.",
    "backbone.C3_p3.": "backbone.top_down_blocks.p3.",
    "backbone.bu_conv2.": "backbone.downsamples.p3.",
    "backbone.C3_n3.": "backbone.bottom_up_blocks.p4.",
    "backbone.bu_conv1.": "backbone.downsamples.p4.",
    "backbone.C3_n4.": "backbone.bottom_up_blocks.p5.",
}
# Names inside a part, published and ours; a name that is not listed is the same in both.
_INNER_NAMES = {"m": "blocks", "bn": "norm", "dconv": "depthwise", "pconv": "pointwise"}
_PIXEL_MAX = 255


def is_published_layout(state: Mapping[str, Any]) -> bool:
    """Whether the keys are names of tensors in a published YOLOX model."""
    starts = ("backbone.backbone.stem.", "backbone.backbone.dark", "head.cls_preds.")
    return any(key.startswith(starts) for key in state)


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Translate published tensors to the names of our model, and the stem's weights to its input.

    Returns:
        The tensors under our names, floating-point ones in float32, and an empty tuple, because none is left out.

    Raises:
        LayoutError: a name belongs to no part of a YOLOX model with this backbone.
    """
    converted: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.endswith(".conv.bias"):
            raise LayoutError(explain_folded(key))
        name = _own_name(key)
        if name is None or name in converted:
            raise LayoutError(
                f"its tensor {printable(key[:100])} belongs to no YOLOX detector of the sizes nano to x; others, such "
                f"as YOLOX-Darknet53, are not supported"
            )
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        converted[name] = _stem_from_published(key, tensor) if key == f"{_STEM}conv.weight" else tensor
    return converted, ()


def find_class_names(state: Mapping[str, Tensor]) -> list[str] | None:
    """COCO's class names if the model has 80 classes, else None: a YOLOX file does not hold its class names.

    Args:
        state: the tensors under our names.
    """
    bias = state.get(f"{_HEAD}class_predictors.0.bias")
    names = [category["name"] for category in COCO_CATEGORIES if category["isthing"]]
    return names if bias is not None and bias.shape == (len(names),) else None


def _own_name(key: str) -> str | None:
    # The head's ``published_names`` translate the names of its parts. Names within blocks are translated as elsewhere.
    if key.startswith(_HEAD):
        prefix, inner = _HEAD, yolox_head.from_published(key.removeprefix(_HEAD))
    else:
        published = next((prefix for prefix in _PARTS if key.startswith(prefix)), None)
        prefix, inner = _PARTS.get(published), published and key.removeprefix(published)
    return inner and prefix + ".".join(_INNER_NAMES.get(part, part) for part in inner.split("."))


def _stem_from_published(key: str, weight: Tensor) -> Tensor:
    """Turn weights (channels, 12, 3, 3) for groups of BGR pixels 0..255 into (channels, 3, 6, 6) for RGB pixels 0..1.

    The 12 channels are BGR of the upper left pixel of each group, then of the lower left, the upper right and the lower
    right pixel.
    """
    if weight.shape[1:] != (12, 3, 3):
        raise LayoutError(f"its tensor {key} has shape {tuple(weight.shape)} instead of (channels, 12, 3, 3)")
    channels, column, row, color, y, x = range(6)
    pixels = weight.unflatten(1, (2, 2, 3)).permute(channels, color, y, row, x, column).reshape(-1, 3, 6, 6)
    return pixels.flip(1) * _PIXEL_MAX
