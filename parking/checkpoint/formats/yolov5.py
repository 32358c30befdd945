"""Translates tensors between the published YOLOv5 checkpoints (releases 6 and 7) and our model, in both directions."""

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from torch import Tensor

from parking.modeling.dense_heads.anchor import published_names as anchor_head
from parking.utils.text import printable

from .layout import LayoutError, explain_folded

#: The name of the head among the layers; the names of its tensors are translated by the head's ``published_names``.
HEAD = "head"
P5_LAYERS = {
    0: "backbone.bottom_up.stem",
    1: "backbone.bottom_up.dark2.downsample",
    2: "backbone.bottom_up.dark2.csp",
    3: "backbone.bottom_up.dark3.downsample",
    4: "backbone.bottom_up.dark3.csp",
    5: "backbone.bottom_up.dark4.downsample",
    6: "backbone.bottom_up.dark4.csp",
    7: "backbone.bottom_up.dark5.downsample",
    8: "backbone.bottom_up.dark5.csp",
    9: "backbone.bottom_up.dark5.sppf",
    10: "backbone.laterals.p5",
    13: "backbone.top_down_blocks.p4",
    14: "backbone.laterals.p4",
    17: "backbone.top_down_blocks.p3",
    18: "backbone.downsamples.p3",
    20: "backbone.bottom_up_blocks.p4",
    21: "backbone.downsamples.p4",
    23: "backbone.bottom_up_blocks.p5",
    24: HEAD,
}
P6_LAYERS = {
    **{i: name for i, name in P5_LAYERS.items() if i < 9},
    9: "backbone.bottom_up.dark6.downsample",
    10: "backbone.bottom_up.dark6.csp",
    11: "backbone.bottom_up.dark6.sppf",
    12: "backbone.laterals.p6",
    15: "backbone.top_down_blocks.p5",
    16: "backbone.laterals.p5",
    19: "backbone.top_down_blocks.p4",
    20: "backbone.laterals.p4",
    23: "backbone.top_down_blocks.p3",
    24: "backbone.downsamples.p3",
    26: "backbone.bottom_up_blocks.p4",
    27: "backbone.downsamples.p4",
    29: "backbone.bottom_up_blocks.p5",
    30: "backbone.downsamples.p5",
    32: "backbone.bottom_up_blocks.p6",
    33: HEAD,
}
# Published name inside a layer -> our name; a name that is not listed is the same in both.
_INNER_NAMES = {"cv1": "conv1", "cv2": "conv2", "cv3": "conv3", "m": "blocks", "bn": "norm"}
_OWN_INNER_NAMES = {own: theirs for theirs, own in _INNER_NAMES.items()}
# Stands for our name of a published tensor that has no place in our model.
_NOWHERE = ""
_KEY = re.compile(r"model\.(\d{1,3})\.(.+)", re.ASCII)


def is_published_layout(state: Mapping[str, Any]) -> bool:
    """Whether all keys have the form ``model.{position}.…``; this also holds for models of :mod:`.yolov5u`."""
    return bool(state) and all(_KEY.fullmatch(key) for key in state)


def from_published(
    state: Mapping[str, Tensor], head: ModuleType = anchor_head
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Translate published tensors to the names and units of our model.

    Args:
        head: the module ``published_names`` of the head.

    Returns:
        The tensors under our names, floating-point ones in float32, and the published names of tensors left out.

    Raises:
        LayoutError: a name belongs to no layer of a detector with three or four levels.
    """
    layers = P6_LAYERS if any(key.startswith("model.33.") for key in state) else P5_LAYERS
    converted: dict[str, Tensor] = {}
    left_out = []
    for key, tensor in state.items():
        if key.endswith(".conv.bias"):
            raise LayoutError(explain_folded(key))
        match = _KEY.fullmatch(key)
        layer, inner = (layers.get(int(match[1])), match[2]) if match else (None, "")
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if layer == HEAD:
            name, tensor = _head_from_published(head, key, inner, tensor)
        else:
            name = _own_name(layer, inner)
        if name == _NOWHERE:
            left_out.append(key)
            continue
        if name is None or name in converted:
            raise LayoutError(
                f"its tensor {printable(key[:100])} belongs to no YOLOv5 detector of release 6 or 7, with or without u "
                f"in its name, with three or four levels; YOLOv8 and newer, segmentation, classification and older "
                f"models are not supported"
            )
        converted[name] = tensor
    return converted, tuple(left_out)


def _head_from_published(head: ModuleType, key: str, inner: str, tensor: Tensor) -> tuple[str | None, Tensor]:
    try:
        if head.is_left_out(inner, tensor):
            return _NOWHERE, tensor
        found = head.from_published(inner, tensor)
    except ValueError as e:
        raise LayoutError(f"its tensor {printable(key)} {e}") from e
    return (f"{HEAD}.{found[0]}", found[1]) if found else (None, tensor)


def _own_name(layer: str | None, inner: str) -> str | None:
    return layer and ".".join([layer, *(_INNER_NAMES.get(part, part) for part in inner.split("."))])


def to_published(state: Mapping[str, Tensor], head: ModuleType = anchor_head) -> dict[str, Tensor]:
    """The tensors of one of our models under the published names: the reverse of :func:`from_published`.

    Raises:
        KeyError: a name belongs to no part of our models.
    """
    layers = P6_LAYERS if any(name.startswith("backbone.bottom_up.dark6.") for name in state) else P5_LAYERS
    positions = {layer: position for position, layer in layers.items()}
    converted = {}
    for name, tensor in state.items():
        parts = name.split(".")
        # A layer's name has 1 part in the head, 3 in the neck, and 3 or 4 in the backbone; try the longest first.
        split = next((n for n in (4, 3, 1) if ".".join(parts[:n]) in positions), 0)
        position = positions[".".join(parts[:split])]
        if split == 1:
            inner, tensor = head.to_published(".".join(parts[1:]), tensor)
        else:
            inner = ".".join(_OWN_INNER_NAMES.get(part, part) for part in parts[split:])
        converted[f"model.{position}.{inner}"] = tensor
    return converted
