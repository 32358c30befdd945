"""Translates names of the head's tensors between the "u" models of YOLOv5 and our model.

Published names and ours are relative to the head. The functions need no model, because weights are read before a model
is built.
"""

import re

import torch
from torch import Tensor

_BRANCHES = {"cv2": "box_branches", "cv3": "class_branches"}
_OWN_BRANCHES = {own: theirs for theirs, own in _BRANCHES.items()}
# Names of the tensors in a branch of a level: parts 0 and 1 are blocks of a convolution and a norm, part 2 is a
# convolution.
_LAYERS = r"(\d+\.(?:[01]\.(?:conv|{norm})|2)\.\w+)"
_PUBLISHED = re.compile(r"(cv[23])\." + _LAYERS.format(norm="bn"), re.ASCII)
_OWN = re.compile(r"(box_branches|class_branches)\." + _LAYERS.format(norm="norm"), re.ASCII)
#: Published name of the tensor that holds the distance for each bin: 0, 1, 2, ....
BINS = "dfl.conv.weight"


def is_left_out(name: str, tensor: Tensor) -> bool:
    """Whether our model leaves out a published tensor, namely :data:`BINS`, which is constant.

    Raises:
        ValueError: the bins differ from ours; the message completes a sentence that begins with the tensor's name.
    """
    if name != BINS:
        return False
    # Compare the shape before the values, because a file may hold a tensor of another shape here.
    if tensor.shape != (1, tensor.numel(), 1, 1) or not tensor.equal(make_bins(tensor.numel())):
        raise ValueError("is not 0, 1, 2, ..., so sides of boxes are computed otherwise than here")
    return True


def make_bins(num_bins: int) -> Tensor:
    """Make the published tensor :data:`BINS` for ``num_bins`` bins."""
    return torch.arange(num_bins, dtype=torch.float32).view(1, -1, 1, 1)


def from_published(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Our name and value of a published tensor; None if this head has no tensor of that name."""
    match = _PUBLISHED.fullmatch(name)
    return (f"{_BRANCHES[match[1]]}.{match[2].replace('.bn.', '.norm.')}", tensor) if match else None


def to_published(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """The published name and value of our tensor; raises KeyError if this head has no tensor of that name."""
    match = _OWN.fullmatch(name)
    if not match:
        raise KeyError(name)
    return f"{_OWN_BRANCHES[match[1]]}.{match[2].replace('.norm.', '.bn.')}", tensor
