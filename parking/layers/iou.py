"""Differentiable IoU (intersection over union) and complete IoU of boxes, in float32.

Boxes are (..., 4) XYXY, both arguments in the same unit. The arguments are broadcast: (N, 4) and (N, 4) give the IoU of
corresponding boxes, (N, 1, 4) and (M, 4) that of all pairs.
"""

import math

import torch
from torch import Tensor

# Added to divisors, so that quotients are finite for empty boxes.
EPS = 1e-7


def box_iou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the IoU, 0..1, in the shape (...) to which the arguments (..., 4) are broadcast."""
    boxes1, boxes2 = boxes1.float(), boxes2.float()
    sides = torch.minimum(boxes1[..., 2:], boxes2[..., 2:]) - torch.maximum(boxes1[..., :2], boxes2[..., :2])
    intersection = sides.clamp(min=0).prod(dim=-1)
    union = _area(boxes1) + _area(boxes2) - intersection
    return intersection / (union + EPS)


def box_ciou(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the complete IoU, -1.5..1: the IoU minus penalties for distant centres and different aspect ratios.

    Zheng et al., "Distance-IoU Loss", AAAI 2020, Eqs. 7-11. The gradient treats the weight alpha as a constant.
    """
    boxes1, boxes2 = boxes1.float(), boxes2.float()
    iou = box_iou(boxes1, boxes2)

    hull = torch.maximum(boxes1[..., 2:], boxes2[..., 2:]) - torch.minimum(boxes1[..., :2], boxes2[..., :2])
    offset = (boxes1[..., :2] + boxes1[..., 2:] - boxes2[..., :2] - boxes2[..., 2:]) / 2
    distance = offset.square().sum(dim=-1) / (hull.square().sum(dim=-1) + EPS)

    aspect = (4 / math.pi**2) * (_angle(boxes1) - _angle(boxes2)).square()
    with torch.no_grad():
        alpha = aspect / (1 - iou + aspect + EPS)
    return iou - distance - alpha * aspect


@torch.no_grad()
def box_ciou_values(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the values of :func:`box_ciou`, bit for bit and without a gradient; twice as fast on a CPU for many pairs.

    This function computes each coordinate by itself, because PyTorch is slow at reducing a last dimension of size 2.
    Gradients of this form would differ from those of :func:`box_ciou` in the last bit, and trainings that older
    versions began would no longer continue exactly.
    """
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = (boxes.float().unbind(dim=-1) for boxes in (boxes1, boxes2))
    width = torch.minimum(ax2, bx2) - torch.maximum(ax1, bx1)
    height = torch.minimum(ay2, by2) - torch.maximum(ay1, by1)
    intersection = width.clamp(min=0) * height.clamp(min=0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection
    iou = intersection / (union + EPS)

    hull_width = torch.maximum(ax2, bx2) - torch.minimum(ax1, bx1)
    hull_height = torch.maximum(ay2, by2) - torch.minimum(ay1, by1)
    offset_x, offset_y = (ax1 + ax2 - bx1 - bx2) / 2, (ay1 + ay2 - by1 - by2) / 2
    distance = (offset_x.square() + offset_y.square()) / (hull_width.square() + hull_height.square() + EPS)

    aspect = (4 / math.pi**2) * (_angle(boxes1.float()) - _angle(boxes2.float())).square()
    return iou - distance - aspect / (1 - iou + aspect + EPS) * aspect


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def _angle(boxes: Tensor) -> Tensor:
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return torch.atan(width / (height + EPS))
