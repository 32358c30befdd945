from typing import NamedTuple

from detectron2.utils.registry import Registry
from torch import Tensor

ASSIGNER_REGISTRY = Registry("ASSIGNER")
ASSIGNER_REGISTRY.__doc__ = """
Registry for the rule that says which predictions are responsible for which ground truth boxes.

The registered object is called with `obj(cfg)`; what it returns is called as :class:`RatioAssigner` is.
"""


class LevelAssignment(NamedTuple):
    """The M matches of one level, in the order in which they claim a prediction: where two claim the same one, the
    later match wins its objectness.

    Attributes:
        image, anchor, row, col: (M,) int64 each; the prediction is ``predictions[image, anchor, row, col]``.
        gt_index: (M,) int64, the matched ground truth.
        gt_boxes: (M, 4) cx, cy, w, h in cells, relative to the corner of the match's cell.
        anchor_sizes: (M, 2) width and height in cells.
    """

    image: Tensor
    anchor: Tensor
    row: Tensor
    col: Tensor
    gt_index: Tensor
    gt_boxes: Tensor
    anchor_sizes: Tensor


def build_assigner(cfg):
    """The assigner that ``cfg.MODEL.YOLO.ASSIGNER.NAME`` names."""
    return ASSIGNER_REGISTRY.get(cfg.MODEL.YOLO.ASSIGNER.NAME)(cfg)
