"""Translates names of the head's tensors between YOLOX files and our model.

Published names and ours are relative to the head. These functions need no model, because weights are read without one.
"""

import re

# Parts of the head, published and ours; names inside the blocks are translated as in backbone and neck.
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
    """Our name of a published tensor; None if the name is not one of this head."""
    return _translate(name, _NAMES)


def to_published(name: str) -> str | None:
    """The reverse of :func:`from_published`."""
    return _translate(name, _OWN_NAMES)


def _translate(name: str, names: dict[str, str]) -> str | None:
    match = _NAME.fullmatch(name)
    part = match and names.get(match[1])
    return part and part + match[2]
