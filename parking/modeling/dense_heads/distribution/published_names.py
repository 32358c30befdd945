"""Translates names of the head's tensors from the "u" models of YOLOv5 to our model.

Published names and ours are relative to the head. The functions need no model, because weights are read before a model
is built.
"""

import re

import torch
from torch import Tensor

_BRANCHES = {"cv2": "box_branches", "cv3": "class_branches"}
# Names of the tensors in a branch of a level: parts 0 and 1 are blocks of a convolution and a norm, part 2 is a
# convolution.
_PUBLISHED = re.compile(r"(cv[23])\.(\d+\.(?:[01]\.(?:conv|bn)|2)\.\w+)", re.ASCII)
# Published name of a tensor, the weights of a convolution, which holds the distance of each bin of a side: 0, 1, 2, ….
_BINS = "dfl.conv.weight"


def is_left_out(name: str, tensor: Tensor) -> bool:
    """Whether our model leaves out a published tensor, namely :data:`_BINS`, which is constant.

    Raises:
        ValueError: the bins differ from ours; the message completes a sentence that begins with the tensor's name.
    """
    if name != _BINS:
        return False
    num_bins = tensor.numel()
    # Compare the shape before the values, because a file may hold a tensor of another shape here.
    if tensor.shape != (1, num_bins, 1, 1) or not tensor.flatten().equal(torch.arange(num_bins, dtype=torch.float32)):
        raise ValueError("is not 0, 1, 2, ..., so sides of boxes are computed otherwise than here")
    return True


def from_published(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Our name and value of a published tensor; None if this head has no tensor of that name."""
    match = _PUBLISHED.fullmatch(name)
    return (f"{_BRANCHES[match[1]]}.{match[2].replace('.bn.', '.norm.')}", tensor) if match else None
