"""What the "u" models of YOLOv5 call the head's tensors.

Names are relative to the head, ours and theirs. Weights files are read without a model, so this needs none.
"""

import re

import torch
from torch import Tensor

_BRANCHES = {"cv2": "box_branches", "cv3": "class_branches"}
_OWN_BRANCHES = {own: theirs for theirs, own in _BRANCHES.items()}
# A branch of a level has two blocks of a convolution and a norm, and a convolution.
_LAYERS = r"(\d+\.(?:[01]\.(?:conv|{norm})|2)\.\w+)"
_PUBLISHED = re.compile(r"(cv[23])\." + _LAYERS.format(norm="bn"), re.ASCII)
_OWN = re.compile(r"(box_branches|class_branches)\." + _LAYERS.format(norm="norm"), re.ASCII)
#: The distances that the bins of a side stand for: 0, 1, 2, ..., as weights of a convolution.
BINS = "dfl.conv.weight"


def is_left_out(name: str, tensor: Tensor) -> bool:
    """Whether a published tensor has no place in our state: the bins, which are a constant.

    Raises:
        ValueError: they are other bins than ours; the message is the end of a sentence.
    """
    if name != BINS:
        return False
    # The shape first: a file may claim any.
    if tensor.shape != (1, tensor.numel(), 1, 1) or not tensor.equal(make_bins(tensor.numel())):
        raise ValueError("is not 0, 1, 2, ..., so sides of boxes are computed otherwise than here")
    return True


def make_bins(num_bins: int) -> Tensor:
    """The published tensor of this name."""
    return torch.arange(num_bins, dtype=torch.float32).view(1, -1, 1, 1)


def from_published(name: str, tensor: Tensor) -> tuple[str, Tensor] | None:
    """Our name and value of a published tensor; None where the name is not one of this head."""
    match = _PUBLISHED.fullmatch(name)
    return (f"{_BRANCHES[match[1]]}.{match[2].replace('.bn.', '.norm.')}", tensor) if match else None


def to_published(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """:func:`from_published` undone; raises KeyError where the name is not one of this head."""
    match = _OWN.fullmatch(name)
    if not match:
        raise KeyError(name)
    return f"{_OWN_BRANCHES[match[1]]}.{match[2].replace('.norm.', '.bn.')}", tensor
