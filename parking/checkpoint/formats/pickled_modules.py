"""Collects the tensors of a pickled model, whose modules were read as stand-ins."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from parking.checkpoint.restricted_pickle import ModuleStandIn
from parking.utils.text import printable

from .layout import LayoutError

# Limit of the levels of modules inside each other; published models have seven.
_MAX_DEPTH = 50
# Limit of characters in a module's name within its parent, because full names are copied at every level.
_MAX_NAME = 100
# Wrappers that run a model in several processes or ease inference, and their attribute that is the model.
_WRAPPING_CLASSES = {"DataParallel": "module", "AutoShape": "model", "DetectMultiBackend": "model"}


def unwrap_module(module: ModuleStandIn) -> ModuleStandIn:
    """The model inside its wrappers for several processes or for inference."""
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
    """Yield tensors with full names; ``has_tensors`` says for the id of each visited module whether it has any."""
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
    """The class names, or None if there are none; newer files have a dict from index to name, older ones a list."""
    if isinstance(names, dict):
        names = [names.get(i) for i in range(len(names))]
    # The names of classes may be numbers, if the data set numbers its classes.
    if not isinstance(names, list) or not names or not all(type(name) in (str, int) for name in names):
        return None
    return [str(name) for name in names]
