"""Collects the tensors of a pickled model whose modules were read as :class:`ModuleStandIn`."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from parking.checkpoint.restricted_pickle import ModuleStandIn
from parking.utils.text import printable

from .layout import LayoutError

# Modules may be nested this deep; published models are seven levels deep.
_MAX_DEPTH = 50
# A module's name within its parent may have this many characters; the limit bounds the full names, which are copied
# at every level.
_MAX_NAME = 100
# For each class that wraps a model for several GPUs or for inference, the attribute that holds the model.
_WRAPPING_CLASSES = {"DataParallel": "module", "AutoShape": "model", "DetectMultiBackend": "model"}


def unwrap_module(module: ModuleStandIn) -> ModuleStandIn:
    """Return the model inside wrappers for several GPUs or for inference; ``module`` itself if it has none."""
    for _ in range(_MAX_DEPTH):
        attribute = _WRAPPING_CLASSES.get(module.kind.rpartition(".")[2])
        children = module.state.get("_modules")
        inner = children.get(attribute) if attribute and isinstance(children, dict) else None
        if not isinstance(inner, ModuleStandIn):
            break
        module = inner
    return module


def read_module(module: ModuleStandIn) -> tuple[dict[str, Tensor], list[str] | None]:
    """Return a pickled model's parameters and buffers by their names in PyTorch, and its class names, if any.

    Raises:
        LayoutError: the model is not built as PyTorch builds modules.
    """
    state = dict(_walk(module, prefix="", has_tensors={}))
    return state, _class_names(module.state.get("names"))


def _walk(module: ModuleStandIn, prefix: str, has_tensors: dict[int, bool]) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor with its full name; ``has_tensors`` notes, by id, whether each visited module has tensors."""
    if has_tensors.get(id(module)) or prefix.count(".") > _MAX_DEPTH:
        raise LayoutError(f"its module {printable(prefix[:100])} occurs twice, or too deep inside others")
    if id(module) in has_tensors:
        return  # a module without tensors, such as an activation, may occur many times
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
        raise LayoutError(f"its module {prefix[:100]!r} has {group} that are not a dict")
    for name, child in children.items():
        if child is None:
            continue
        if len(str(name)) > _MAX_NAME:
            raise LayoutError(f"its module {prefix[:100]!r} has {group} with names of more than {_MAX_NAME} characters")
        if not isinstance(name, str) or not isinstance(child, kind):
            raise LayoutError(f"its module {prefix[:100]!r} has {group} that are not a {kind.__name__}")
        yield name, child


def _class_names(names: Any) -> list[str] | None:
    """Read ``names``, a dict from index to class name in newer files and a list in older ones; None if neither."""
    if isinstance(names, dict):
        names = [names.get(i) for i in range(len(names))]
    # A class name is a number if the data set numbers its classes.
    if not isinstance(names, list) or not names or not all(type(name) in (str, int) for name in names):
        return None
    return [str(name) for name in names]
