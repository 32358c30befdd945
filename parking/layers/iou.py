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
    """Return the intersection over union, 0..1, in the broadcast shape without its last dimension."""
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


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(dim=-1)


def _angle(boxes: Tensor) -> Tensor:
    width, height = (boxes[..., 2:] - boxes[..., :2]).unbind(dim=-1)
    return torch.atan(width / (height + EPS))
