"""Translates names of the head's tensors between the "u" models of YOLOv5 and our model.

Published names and ours are relative to the head. These functions need no model, because weights are read without one.
"""

import re

import torch
from torch import Tensor

_BRANCHES = {"cv2": "box_branches", "cv3": "class_branches"}
_OWN_BRANCHES = {own: theirs for theirs, own in _BRANCHES.items()}
# Each branch of a level has two blocks, each a convolution and a norm, and then a convolution.
_LAYERS = r"(\d+\.(?:[01]\.(?:conv|{norm})|2)\.\w+)"
_PUBLISHED = re.compile(r"(cv[23])\." + _LAYERS.format(norm="bn"), re.ASCII)
_OWN = re.compile(r"(box_branches|class_branches)\." + _LAYERS.format(norm="norm"), re.ASCII)
#: Published name of the distances that the bins of a side stand for: 0, 1, 2, ..., as weights of a convolution.
BINS = "dfl.conv.weight"


def is_left_out(name: str, tensor: Tensor) -> bool:
    """Whether our model leaves a published tensor out: the bins, because they are constant.

    Raises:
        ValueError: the bins differ from ours; the message completes a sentence that begins with the tensor's name.
    """
    if name != BINS:
        return False
    # Compare the shape first, because a file can state a huge one.
    if tensor.shape != (1, tensor.numel(), 1, 1) or not tensor.equal(make_bins(tensor.numel())):
        raise ValueError("is not 0, 1, 2, ..., so sides of boxes are computed otherwise than here")
    return True


def make_bins(num_bins: int) -> Tensor:
    """The published tensor :data:`BINS` for this many bins."""
    return torch.arange(num_bins, dtype=torch.float32).view(1, -1, 1, 1)


def from_published(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Our name and value of a published tensor; None if the name is not one of this head."""
    match = _PUBLISHED.fullmatch(name)
    return (f"{_BRANCHES[match[1]]}.{match[2].replace('.bn.', '.norm.')}", tensor) if match else None


def to_published(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """The reverse of :func:`from_published`; raises KeyError if the name is not one of this head."""
    match = _OWN.fullmatch(name)
    if not match:
        raise KeyError(name)
    return f"{_OWN_BRANCHES[match[1]]}.{match[2].replace('.norm.', '.bn.')}", tensor
