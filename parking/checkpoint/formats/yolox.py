"""Translates tensors between the published YOLOX files and our model, in both directions.

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
_OWN_STEM = "backbone.bottom_up.stem."
_HEAD = "head."
# Published prefix of the tensor names of a part of the network -> our prefix.
_PARTS = {
    _STEM: _OWN_STEM,
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
_OWN_PARTS = {own: theirs for theirs, own in _PARTS.items()}
# Published name inside a part -> our name; a name that is not listed is the same in both.
_INNER_NAMES = {"m": "blocks", "bn": "norm", "dconv": "depthwise", "pconv": "pointwise"}
_OWN_INNER_NAMES = {own: theirs for theirs, own in _INNER_NAMES.items()}
_PIXEL_MAX = 255


def is_published_layout(state: Mapping[str, Any]) -> bool:
    """Whether the keys are names of tensors in a published YOLOX model."""
    starts = ("backbone.backbone.stem.", "backbone.backbone.dark", "head.cls_preds.")
    return any(key.startswith(starts) for key in state)


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Translate published tensors to our names, and adapt the first convolution's weights to our model's input.

    Returns:
        The tensors under our names, floating-point ones in float32, and an empty tuple, because none is left out.

    Raises:
        LayoutError: a name belongs to no part of a YOLOX model with this backbone.
    """
    converted: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.endswith(".conv.bias"):
            raise LayoutError(explain_folded(key))
        name = _translate(key, _PARTS, _INNER_NAMES, yolox_head.from_published)
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


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one of our models under the published names: the reverse of :func:`from_published`.

    Converting from published names and back keeps every bit, except that the last bit of the first convolution's values
    may change, because they are multiplied by 255 and divided again.

    Raises:
        KeyError: a name belongs to no part of our models.
    """
    converted = {}
    for name, tensor in state.items():
        key = _translate(name, _OWN_PARTS, _OWN_INNER_NAMES, yolox_head.to_published)
        if key is None:
            raise KeyError(name)
        converted[key] = _stem_to_published(tensor) if name == f"{_OWN_STEM}conv.weight" else tensor
    return converted


def _translate(name: str, parts, inner_names, translate_head) -> str | None:
    # ``translate_head`` translates only the names of the head's parts; the last line translates the names inside parts.
    if name.startswith(_HEAD):
        prefix, inner = _HEAD, translate_head(name.removeprefix(_HEAD))
    else:
        prefix = next((prefix for prefix in parts if name.startswith(prefix)), None)
        inner = prefix and name.removeprefix(prefix)
        prefix = parts.get(prefix)
    return inner and prefix + ".".join(inner_names.get(part, part) for part in inner.split("."))


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


def _stem_to_published(weight: Tensor) -> Tensor:
    channels, color, y, row, x, column = range(6)
    groups = (weight / _PIXEL_MAX).flip(1).unflatten(3, (3, 2)).unflatten(2, (3, 2))
    return groups.permute(channels, column, row, color, y, x).reshape(-1, 12, 3, 3)
