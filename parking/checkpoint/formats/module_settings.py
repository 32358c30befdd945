"""Checks that the modules of a pickled model are set to compute what our model computes.

Two models with equal tensors may compute different results: another activation, a wider pool, another epsilon or
padding leaves every name and shape as it is. Therefore each setting of each module is compared with that of our blocks.
A setting that a file lacks (older releases have fewer attributes, a state dict has none) is taken to be ours. Settings
that only matter while training, such as a norm's momentum, come from the config and are not checked.
"""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from parking.checkpoint.restricted_pickle import ModuleStandIn
from parking.utils.text import printable

from .layout import LayoutError
from .yolov5 import HEAD, P5_LAYERS, P6_LAYERS

# Positions in the published list of layers. Each dict maps a concatenation to the layer that gives its second input.
_P5_UPSAMPLINGS, _P5_CONCATENATIONS = (11, 15), {12: 6, 16: 4, 19: 14, 22: 10}
_P6_UPSAMPLINGS, _P6_CONCATENATIONS = (13, 17, 21), {14: 8, 18: 6, 22: 4, 25: 20, 28: 16, 31: 12}
_NORMS = ("BatchNorm2d", "SyncBatchNorm")
# Epsilon of the norms in parking.layers.
_NORM_EPS = 1e-3
_ABSENT = object()
_MAX_SHOWN = 60


class _Pair(int):
    """An expected number n; a file may also give it as a tuple or list (n, n)."""


def check_settings(module: ModuleStandIn) -> None:
    """Raise a LayoutError if any setting makes a module compute other results than ours; name the first such setting.

    Args:
        module: the model, whose tensors have been checked before.
    """
    problems = list(_find_problems(module))
    if problems:
        more = f" (and {len(problems) - 1} more such settings)" if len(problems) > 1 else ""
        raise LayoutError(f"{problems[0]}{more}, which this project does not compute; use weights of the usual model")


def _find_problems(model: ModuleStandIn) -> Iterator[str]:
    yield from _check_kind(model, "", ("Model", "DetectionModel"))
    sequence = _child(model, "model")
    if sequence is None:
        return
    layers = {name: layer for name, layer in _children(sequence).items() if isinstance(layer, ModuleStandIn)}
    is_p6 = "33" in layers
    roles = P6_LAYERS if is_p6 else P5_LAYERS
    upsamplings = _P6_UPSAMPLINGS if is_p6 else _P5_UPSAMPLINGS
    concatenations = _P6_CONCATENATIONS if is_p6 else _P5_CONCATENATIONS
    for name, layer in layers.items():
        path = f"model.{name}"
        position = int(name) if name.isascii() and name.isdecimal() and len(name) < 4 else -1
        if position in roles:
            yield from _check_layer(layer, path, roles[position])
            if roles[position] != HEAD:
                yield from _check(layer, path, f=-1)
        elif position in upsamplings:
            yield from _check_kind(layer, path, ("Upsample",))
            yield from _check(layer, path, f=-1, mode="nearest", scale_factor=_Pair(2), size=None, align_corners=None)
        elif position in concatenations:
            yield from _check_kind(layer, path, ("Concat",))
            yield from _check(layer, path, f=(-1, concatenations[position]), d=1)
        else:
            yield f"its module {printable(path[:_MAX_SHOWN])} is a {_class_name(layer)} where a detector has none"


def _check_layer(layer: ModuleStandIn, path: str, role: str) -> Iterator[str]:
    parts = role.split(".")
    if role == HEAD:
        yield from _check_head(layer, path)
    elif parts[-1] == "stem":
        yield from _check_conv(layer, path, stride=2, padding=2)
    elif "downsample" in parts or "downsamples" in parts:
        yield from _check_conv(layer, path, stride=2, padding=1)
    elif "laterals" in parts:
        yield from _check_conv(layer, path)
    elif parts[-1] == "sppf":
        yield from _check_pyramid(layer, path)
    else:
        yield from _check_c3(layer, path, shortcut=parts[-1] == "csp")


def _check_conv(block: ModuleStandIn | None, path: str, *, stride: int = 1, padding: int = 0) -> Iterator[str]:
    yield from _check_kind(block, path, ("Conv",))
    yield from _check_children(block, path, ("conv", "bn", "act"))
    yield from _check_convolution(_child(block, "conv"), f"{path}.conv", stride=stride, padding=padding)
    norm, activation = _child(block, "bn"), _child(block, "act")
    yield from _check_kind(norm, f"{path}.bn", _NORMS)
    yield from _check(norm, f"{path}.bn", eps=_NORM_EPS, affine=True, track_running_stats=True)
    yield from _check_kind(activation, f"{path}.act", ("SiLU",))


def _check_convolution(
    convolution: ModuleStandIn | None, path: str, *, stride: int = 1, padding: int = 0
) -> Iterator[str]:
    yield from _check_kind(convolution, path, ("Conv2d",))
    yield from _check(
        convolution,
        path,
        stride=_Pair(stride),
        padding=_Pair(padding),
        dilation=_Pair(1),
        groups=1,
        transposed=False,
        padding_mode="zeros",
    )


def _check_c3(block: ModuleStandIn, path: str, *, shortcut: bool) -> Iterator[str]:
    yield from _check_kind(block, path, ("C3",))
    yield from _check_children(block, path, ("cv1", "cv2", "cv3", "m"))
    for name in ("cv1", "cv2", "cv3"):
        yield from _check_conv(_child(block, name), f"{path}.{name}")
    bottlenecks = _child(block, "m")
    yield from _check_kind(bottlenecks, f"{path}.m", ("Sequential",))
    for inner, bottleneck in _list_parts(block, path, "m"):
        yield from _check_kind(bottleneck, inner, ("Bottleneck",))
        yield from _check_children(bottleneck, inner, ("cv1", "cv2"))
        yield from _check(bottleneck, inner, add=shortcut)
        for conv, padding in (("cv1", 0), ("cv2", 1)):
            yield from _check_conv(_child(bottleneck, conv), f"{inner}.{conv}", padding=padding)


def _check_pyramid(block: ModuleStandIn, path: str) -> Iterator[str]:
    """Check SPPF (three pools of 5 in a chain) or its equal in older files, SPP (parallel pools of 5, 9 and 13)."""
    yield from _check_kind(block, path, ("SPPF", "SPP"))
    yield from _check_children(block, path, ("cv1", "cv2", "m"))
    for name in ("cv1", "cv2"):
        yield from _check_conv(_child(block, name), f"{path}.{name}")
    yield from _check(block, path, n=3, add=False)
    pool = _child(block, "m")
    pools = [(f"{path}.m", pool, 5)]
    if _class_name(block) == "SPP" and pool is not None:
        yield from _check_kind(pool, f"{path}.m", ("ModuleList",))
        pools = [(f"{path}.m.{k}", _child(pool, str(k)), size) for k, size in enumerate((5, 9, 13))]
        yield from _check_children(pool, f"{path}.m", ("0", "1", "2"))
    for name, pool, size in pools:
        yield from _check_kind(pool, name, ("MaxPool2d",))
        sizes = {"kernel_size": _Pair(size), "padding": _Pair(size // 2)}
        yield from _check(pool, name, **sizes, stride=_Pair(1), dilation=_Pair(1), ceil_mode=False)


def _check_head(head: ModuleStandIn, path: str) -> Iterator[str]:
    yield from _check_kind(head, path, ("Detect",))
    levels = (17, 20, 23) if path.endswith(".24") else (23, 26, 29, 32)
    yield from _check(head, path, f=levels, nl=len(levels), stride=tuple(8 * 2**k for k in range(len(levels))))
    yield from (_check_branches if _child(head, "cv2") is not None else _check_predictors)(head, path)


def _check_predictors(head: ModuleStandIn, path: str) -> Iterator[str]:
    """Check the head of YOLOv5: one convolution per level."""
    yield from _check_children(head, path, ("m",))
    yield from _check_kind(_child(head, "m"), f"{path}.m", ("ModuleList",))
    for inner, predictor in _list_parts(head, path, "m"):
        yield from _check_convolution(predictor, inner)
        outputs, anchors = _count_outputs(predictor), head.state.get("na")
        if outputs is not None and type(anchors) is int and anchors > 0:
            yield from _check(head, path, no=outputs // anchors, nc=outputs // anchors - 5)


def _check_branches(head: ModuleStandIn, path: str) -> Iterator[str]:
    """Check the head of YOLOv5u: a branch for boxes (cv2) and one for classes (cv3) per level, and the bins (dfl)."""
    yield from _check_children(head, path, ("cv2", "cv3", "dfl"))
    yield from _check(head, path, end2end=False)
    outputs = []
    for name in ("cv2", "cv3"):
        yield from _check_kind(_child(head, name), f"{path}.{name}", ("ModuleList",))
        for inner, branch in _list_parts(head, path, name):
            yield from _check_kind(branch, inner, ("Sequential",))
            yield from _check_children(branch, inner, ("0", "1", "2"))
            for conv in ("0", "1"):
                yield from _check_conv(_child(branch, conv), f"{inner}.{conv}", padding=1)
            yield from _check_convolution(_child(branch, "2"), f"{inner}.2")
        outputs.append(_count_outputs(_child(_child(_child(head, name), "0"), "2")))
    bins, projection = f"{path}.dfl", _child(head, "dfl")
    yield from _check_kind(projection, bins, ("DFL",))
    yield from _check_children(projection, bins, ("conv",))
    yield from _check_convolution(_child(projection, "conv"), f"{bins}.conv")
    if None not in outputs:
        num_bins, num_classes = outputs[0] // 4, outputs[1]
        yield from _check(projection, bins, c1=num_bins)
        yield from _check(head, path, reg_max=num_bins, nc=num_classes, no=4 * num_bins + num_classes)


def _list_parts(module: ModuleStandIn, path: str, name: str) -> Iterator[tuple[str, ModuleStandIn]]:
    """Yield the path and the module of each child of the part ``name`` of ``module``."""
    for child, part in _children(_child(module, name)).items():
        if isinstance(part, ModuleStandIn):
            yield f"{path}.{name}.{child}", part


def _count_outputs(convolution: ModuleStandIn | None) -> int | None:
    bias = _children(convolution, "_parameters").get("bias")
    return len(bias) if isinstance(bias, Tensor) and bias.dim() == 1 else None


def _check_kind(module: ModuleStandIn | None, path: str, names: tuple[str, ...]) -> Iterator[str]:
    if module is not None and _class_name(module) not in names:
        place = f"its module {printable(path[:_MAX_SHOWN])}" if path else "the model"
        yield f"{place} is a {_class_name(module)}{_describe_settings(module)} instead of a {names[0]}"


def _check_children(module: ModuleStandIn | None, path: str, names: tuple[str, ...]) -> Iterator[str]:
    for name, child in _children(module).items():
        if isinstance(child, ModuleStandIn) and name not in names:
            yield f"its module {printable(path)} has a part {printable(name[:_MAX_SHOWN])}, a {_class_name(child)}"


def _check(module: ModuleStandIn | None, path: str, **expected: Any) -> Iterator[str]:
    for name, value in expected.items():
        found = _ABSENT if module is None else module.state.get(name, _ABSENT)
        if found is not _ABSENT and not _agrees(found, value):
            wanted = int(value) if isinstance(value, _Pair) else value
            yield f"its module {printable(path)} has {name} {_show(found)} instead of {_show(wanted)}"


def _agrees(found: Any, expected: Any) -> bool:
    """Whether ``found``, a value of any type from a file, means the same as ``expected``."""
    if isinstance(found, Tensor):
        # Compare the shape before the values, because a file may hold a huge tensor here.
        return isinstance(expected, tuple) and found.shape == (len(expected),) and found.tolist() == list(expected)
    if isinstance(expected, _Pair) and type(found) in (tuple, list):
        return len(found) == 2 and all(_agrees(number, int(expected)) for number in found)
    if isinstance(expected, tuple):
        return (
            type(found) in (tuple, list)
            and len(found) == len(expected)
            and all(_agrees(*pair) for pair in zip(found, expected, strict=True))
        )
    if isinstance(expected, bool | None):
        return found is expected
    if isinstance(expected, str):
        return type(found) is str and found == expected
    return type(found) in (int, float) and found == expected


def _show(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.numel() > 8 else str(value.tolist())
    if type(value) in (tuple, list):
        return f"({', '.join(_show(number) for number in value[:4])}{', …' if len(value) > 4 else ''})"[:_MAX_SHOWN]
    if type(value) in (int, float, bool, str, type(None)):
        return printable(repr(value)[:_MAX_SHOWN])
    return f"a {type(value).__name__.lstrip('_')}"


def _describe_settings(module: ModuleStandIn) -> str:
    """A note in brackets with the first three plain numbers among a module's attributes; "" if it has none."""
    numbers = [
        f"{name} {_show(value)}"
        for name, value in module.state.items()
        if type(name) is str and name.isidentifier() and not name.startswith("_") and type(value) in (int, float)
    ]
    return f" ({', '.join(numbers[:3])})"[: 2 * _MAX_SHOWN] if numbers else ""


def _class_name(module: ModuleStandIn) -> str:
    return module.kind.rpartition(".")[2][:_MAX_SHOWN]


def _child(module: ModuleStandIn | None, name: str) -> ModuleStandIn | None:
    child = _children(module).get(name)
    return child if isinstance(child, ModuleStandIn) else None


def _children(module: ModuleStandIn | None, group: str = "_modules") -> dict[str, Any]:
    children = module.state.get(group) if module is not None else None
    return children if isinstance(children, dict) else {}
