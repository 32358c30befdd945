"""Translates names of the head's tensors between YOLOX files and our model.

Published names and ours are relative to the head. The functions need no model, because weights are read before a model
is built.
"""

import re

# Names of the head's parts, published and ours. Names inside a block are translated as in the backbone and the neck.
_NAMES = {
    "stems": "stems",
    "cls_convs": "class_branches",
    "reg_convs": "box_branches",
    "cls_preds": "class_predictors",
    "reg_preds": "box_predictors",
    "obj_preds": "objectness_predictors",
}
_OWN_NAMES = {own: theirs for theirs, own in _NAMES.items()}
_NAME = re.compile(r"(\w+)(\.\d+\..+)", re.ASCII)


def from_published(name: str) -> str | None:
    """Our name of a published tensor; None if this head has no tensor of that name."""
    return _translate(name, _NAMES)


def to_published(name: str) -> str | None:
    """The published name of our tensor: the reverse of :func:`from_published`."""
    return _translate(name, _OWN_NAMES)


def _translate(name: str, names: dict[str, str]) -> str | None:
    match = _NAME.fullmatch(name)
    part = match and names.get(match[1])
    return part and part + match[2]
