"""Translates tensors between the published "u" checkpoints of YOLOv5 and our model, in both directions.

Tensors of backbone and neck have the same names as in :mod:`.yolov5`; tensors of the head have other names.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from parking.modeling.dense_heads.distribution import published_names as distribution_head

from . import yolov5

_HEAD_KEY = re.compile(r"model\.(24|33)\.(cv2|cv3|dfl)\.", re.ASCII)
_BOX_OUTPUTS = "head.box_branches.0.2.bias"


def is_published_layout(state: Mapping[str, Any]) -> bool:
    """Whether all keys have the form ``model.{position}.…`` and some belong to the distribution head."""
    return yolov5.is_published_layout(state) and any(_HEAD_KEY.match(key) for key in state)


def from_published(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Translate published tensors to the names of our model.

    Returns:
        The tensors under our names, floating-point ones in float32, and the published names of those left out (the bins
        of the box sides).

    Raises:
        LayoutError: a name belongs to no layer of a detector with three or four levels, or the bins are not ours.
    """
    return yolov5.from_published(state, distribution_head)


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one of our models under the published names: the reverse of :func:`from_published`.

    Raises:
        KeyError: a name belongs to no part of our models, or the head's outputs are missing.
    """
    converted = yolov5.to_published(state, distribution_head)
    head = next(match[0].rpartition("cv")[0] for match in map(_HEAD_KEY.match, converted) if match)
    return {**converted, head + distribution_head.BINS: distribution_head.make_bins(len(state[_BOX_OUTPUTS]) // 4)}
