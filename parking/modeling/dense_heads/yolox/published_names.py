"""Translates names of the head's tensors from YOLOX files to our model.

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
_NAME = re.compile(r"(\w+)(\.\d+\..+)", re.ASCII)


def from_published(name: str) -> str | None:
    """Our name of a published tensor; None if this head has no tensor of that name."""
    match = _NAME.fullmatch(name)
    part = match and _NAMES.get(match[1])
    return part and part + match[2]
