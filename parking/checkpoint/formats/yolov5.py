"""The layout of the published YOLOv5 checkpoints (releases 6 and 7): their names for our tensors, both ways."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from parking.checkpoint.restricted_pickle import ModuleStandIn
from parking.utils.text import printable

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
    24: "head",
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
    33: "head",
}
# Names inside a layer; those not listed are the same.
_INNER_NAMES = {"cv1": "conv1", "cv2": "conv2", "cv3": "conv3", "m": "blocks", "bn": "norm"}
_OWN_INNER_NAMES = {own: theirs for theirs, own in _INNER_NAMES.items()}
_ANCHORS = "anchor_generator.anchors"
_FINEST_STRIDE = 8
_KEY = re.compile(r"model\.(\d{1,3})\.(.+)", re.ASCII)
# Of modules inside each other; the published ones have seven.
_MAX_DEPTH = 50
# Characters of the name of a module in another; full names are copied at every depth.
_MAX_NAME = 100


# What other programs put around a model: several processes or torch.compile (by attribute), ready-made inference.
_WRAPPING_PARTS = ("module", "_orig_mod")
_WRAPPING_CLASSES = {"DataParallel": "module", "AutoShape": "model", "DetectMultiBackend": "model"}


class LayoutError(ValueError):
    """The file is not laid out like a published detector; the message says where."""


def is_published_layout(state: Mapping[str, Any]) -> bool:
    """Whether the keys are of the form ``model.{position}.…``."""
    return bool(state) and all(_KEY.fullmatch(key) for key in state)


def without_wrappers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that they have without DataParallel, torch.compile or an inference wrapper.

    Raises:
        LayoutError: two tensors would have one name.
    """
    renamed = {
        ".".join(part for part in name.split(".") if part not in _WRAPPING_PARTS): tensor
        for name, tensor in state.items()
    }
    if len(renamed) < len(state):
        raise LayoutError("some of its tensors differ only by a part 'module' or '_orig_mod' of their names")
    # Inference wrappers of published models call the model "model", as that calls its layers.
    while renamed and all(name.startswith("model.model.") for name in renamed):
        renamed = {name.removeprefix("model."): tensor for name, tensor in renamed.items()}
    return renamed


def check_not_foreign(state: Mapping[str, Tensor]) -> None:
    """Raise a LayoutError for tensors under names that are not published ones, but known to be of another use."""
    if (key := "backbone.bottom_up.stem.conv.bias") in state:
        raise LayoutError(_explain_folded(key))
    if any(name.startswith(("backbone.backbone.dark", "head.cls_preds.")) for name in state):
        raise LayoutError("it is a YOLOX model, whose head this project does not have; use YOLOv5 weights")


def _explain_folded(key: str) -> str:
    return (
        f"its norms are folded into the convolutions ({printable(key[:100])}), as after fuse() or an export; give the "
        f"checkpoint as the training wrote it"
    )


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under our names, floating ones in float32, anchors in pixels.

    The buffer ``anchor_grid`` of older files, which repeats the anchors, is left out.

    Raises:
        LayoutError: a name belongs to no layer of a detector with three or four levels.
    """
    layers = P6_LAYERS if any(key.startswith("model.33.") for key in state) else P5_LAYERS
    converted = {}
    for key, tensor in state.items():
        match = _KEY.fullmatch(key)
        if key.endswith(".conv.bias"):
            raise LayoutError(_explain_folded(key))
        layer, rest = (layers.get(int(match[1])), match[2].split(".")) if match else (None, [])
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        if layer == "head":
            if rest == ["anchor_grid"]:
                continue
            name = _name_in_head(rest)
            if name == _ANCHORS:
                if tensor.dim() != 3:
                    raise LayoutError(f"its tensor {printable(key)} has {tensor.dim()} dimensions instead of 3")
                tensor = tensor * _strides_like(tensor)
        else:
            name = layer and ".".join([layer, *(_INNER_NAMES.get(part, part) for part in rest)])
        if name is None or name in converted:
            raise LayoutError(
                f"its tensor {printable(key[:100])} belongs to no YOLOv5 detector of release 6 or 7 with three or four "
                f"levels, and segmentation, classification and older models are not supported"
            )
        converted[name] = tensor
    return converted


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of one of our models under the published names, anchors in strides: :func:`from_published` undone.

    Raises:
        KeyError: a name belongs to no part of our models.
    """
    layers = P6_LAYERS if any(name.startswith("backbone.bottom_up.dark6.") for name in state) else P5_LAYERS
    positions = {layer: position for position, layer in layers.items()}
    converted = {}
    for name, tensor in state.items():
        if name == _ANCHORS:
            converted[f"model.{positions['head']}.anchors"] = tensor / _strides_like(tensor)
        elif name.startswith("head.predictors."):
            converted[f"model.{positions['head']}.m.{name.removeprefix('head.predictors.')}"] = tensor
        else:
            # The longest prefix that is a layer: three parts for the neck, three or four for the backbone.
            parts = name.split(".")
            split = next(n for n in (4, 3) if ".".join(parts[:n]) in positions)
            inner = [_OWN_INNER_NAMES.get(part, part) for part in parts[split:]]
            converted[".".join(["model", str(positions[".".join(parts[:split])]), *inner])] = tensor
    return converted


def unwrap_module(module: ModuleStandIn) -> ModuleStandIn:
    """The model inside the objects that run one in several processes or make inference convenient."""
    for _ in range(_MAX_DEPTH):
        attribute = _WRAPPING_CLASSES.get(module.kind.rpartition(".")[2])
        children = module.state.get("_modules")
        inner = children.get(attribute) if attribute and isinstance(children, dict) else None
        if not isinstance(inner, ModuleStandIn):
            break
        module = inner
    return module


def read_module(module: ModuleStandIn) -> tuple[dict[str, Tensor], list[str] | None]:
    """Parameters and buffers of a pickled model, as PyTorch would name them, and its class names, if any.

    Raises:
        LayoutError: it is not built like a module.
    """
    state = dict(_walk(module, prefix="", has_tensors={}))
    return state, _class_names(module.state.get("names"))


def _walk(module: ModuleStandIn, prefix: str, has_tensors: dict[int, bool]) -> Iterator[tuple[str, Tensor]]:
    """``has_tensors`` says of each module visited so far whether there were tensors in it."""
    if has_tensors.get(id(module)) or prefix.count(".") > _MAX_DEPTH:
        raise LayoutError(f"its module {printable(prefix[:100])} occurs twice, or too deep inside others")
    if id(module) in has_tensors:
        return  # an activation without tensors, shared by many layers
    has_tensors[id(module)] = False
    for group in ("_parameters", "_buffers"):
        for name, tensor in _children(module, group, Tensor, prefix):
            has_tensors[id(module)] = True
            yield prefix + name, tensor
    for name, child in _children(module, "_modules", ModuleStandIn, prefix):
        for item in _walk(child, f"{prefix}{name}.", has_tensors):
            has_tensors[id(module)] = True
            yield item


def _children(module: ModuleStandIn, group: str, kind: type, prefix: str) -> Iterator[tuple[str, Any]]:
    children = module.state.get(group, {})
    if not isinstance(children, dict):
        raise LayoutError(f"its module {prefix[:100]!r} has {group} that are no dict")
    for name, child in children.items():
        if child is None:
            continue
        if len(str(name)) > _MAX_NAME:
            raise LayoutError(f"its module {prefix[:100]!r} has {group} with names of more than {_MAX_NAME} characters")
        if not isinstance(name, str) or not isinstance(child, kind):
            raise LayoutError(f"its module {prefix[:100]!r} has {group} that are no {kind.__name__}")
        yield name, child


def _class_names(names: Any) -> list[str] | None:
    """Newer files have a dict of indices and names, older ones a list."""
    if isinstance(names, dict):
        names = [names.get(i) for i in range(len(names))]
    # Data sets whose classes are numbers give names that are numbers.
    if not isinstance(names, list) or not names or not all(type(name) in (str, int) for name in names):
        return None
    return [str(name) for name in names]


def _name_in_head(rest: list[str]) -> str | None:
    if rest == ["anchors"]:
        return _ANCHORS
    if len(rest) == 3 and rest[0] == "m":
        return ".".join(["head.predictors", *rest[1:]])
    return None


def _strides_like(anchors: Tensor) -> Tensor:
    """(L, 1, 1): pixels per cell of each level."""
    return _FINEST_STRIDE * 2.0 ** torch.arange(len(anchors), dtype=anchors.dtype, device=anchors.device).view(-1, 1, 1)
