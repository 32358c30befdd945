"""Translates names of the head's tensors, and the unit of the anchors, between YOLOv5 files and our model.

Published names and ours are relative to the head. The functions need no model, because weights are read before a model
is built.
"""

import re

import torch
from torch import Tensor

_ANCHORS = "anchors"
_PREDICTOR = re.compile(r"m\.([^.]+\.[^.]+)")
_OWN_PREDICTOR = re.compile(r"predictors\.(.+)")
_FINEST_STRIDE = 8


def is_left_out(name: str, tensor: Tensor) -> bool:
    """Whether our model leaves out a published tensor, namely a buffer of older files that repeats the anchors."""
    return name == "anchor_grid"


def from_published(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Our name and value of a published tensor; None if this head has no tensor of that name.

    Raises:
        ValueError: the anchors are not laid out as (levels, anchors, 2).
    """
    if name == _ANCHORS:
        if tensor.dim() != 3:
            raise ValueError(f"has {tensor.dim()} dimensions instead of 3")
        return _ANCHORS, tensor * _strides_like(tensor)
    match = _PREDICTOR.fullmatch(name)
    return (f"predictors.{match[1]}", tensor) if match else None


def to_published(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """The published name and value of our tensor; raises KeyError if this head has no tensor of that name."""
    if name == _ANCHORS:
        return _ANCHORS, tensor / _strides_like(tensor)
    match = _OWN_PREDICTOR.fullmatch(name)
    if not match:
        raise KeyError(name)
    return f"m.{match[1]}", tensor


def _strides_like(anchors: Tensor) -> Tensor:
    """The stride (L, 1, 1) of each level in pixels, for as many levels as ``anchors`` has."""
    return _FINEST_STRIDE * 2.0 ** torch.arange(len(anchors), dtype=anchors.dtype, device=anchors.device).view(-1, 1, 1)
