"""Fuses overlapping boxes by soft-NMS or weighted boxes fusion.

Each group of boxes, one class of one image, is fused by itself. All groups are processed at once, one box of each per
step.

Shape legend: K boxes, G groups, M results.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from parking.layers import box_iou


def soft_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, sigma: float, score_thresh: float, max_per_group: int
) -> tuple[Tensor, Tensor]:
    """Gaussian soft-NMS: Bodla et al., "Soft-NMS", ICCV 2017, Sec. 3.

    In each group the box with the best score is picked, and every other score is multiplied by exp(-IoU^2 / sigma).
    This is repeated with the boxes that are left. Of equal scores the box with the higher original score is picked
    first; if these are equal, too, the first box in order.

    Args:
        boxes: (K, 4) XYXY, finite, in any one unit.
        scores: (K,), 0 or more.
        groups: (K,) int64, any numbers.
        sigma: above 0.
        score_thresh: 0 or more; boxes are left out whose score when picked is not above this.
        max_per_group: largest number of boxes picked in a group.

    Returns:
        indices: (M,) int64, which boxes were picked; of a group, those picked earlier come earlier.
        scores: (M,), what is left of their scores.
    """
    if not len(boxes):
        return groups, scores
    order, row, sizes = _sort_by_group(scores, groups)
    boxes, scores = boxes[order], scores[order]
    picked, picked_scores = [], []
    for num_groups, num_boxes in _steps(sizes, max_per_group):
        rest, rows = scores[:num_boxes], row[:num_boxes]
        best = _best_of_each_group(rest, rows, num_groups)
        picked.append(best)
        picked_scores.append(rest[best])
        rest *= torch.exp(-box_iou(boxes[:num_boxes], boxes[best][rows]).square() / sigma)
        # A box is picked again only if all other scores of its group are 0; such picks are not above the threshold.
        rest[best] = 0
    picked, picked_scores = torch.cat(picked), torch.cat(picked_scores)
    above = picked_scores > score_thresh
    return order[picked[above]], picked_scores[above]


def weighted_boxes_fusion(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, num_sources: int, iou_thresh: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted boxes fusion: Solovyev et al., Image and Vision Computing 107 (2021), Sec. 3.

    Boxes are taken in order of falling score. Each joins the cluster of its group whose fused box so far it overlaps
    most, if their IoU is above ``iou_thresh``; else it starts a cluster. The fused box is the mean of its members
    weighted by their scores. Its score is their mean score times min(T, N) / N, for T members and N sources: the
    paper's first variant, in which it does not matter which source a member is from. Of equal scores the first in order
    is taken first, and of clusters with equal overlap the earliest is joined.

    Args:
        boxes: (K, 4) XYXY, finite, in any one unit.
        scores: (K,), above 0.
        groups: (K,) int64, any numbers.
        num_sources: how many models or views the boxes are from.
        iou_thresh: 0..1.

    Returns:
        boxes: (M, 4), fused.
        scores: (M,), not sorted.
        groups: (M,).
    """
    if not len(boxes):
        return boxes, scores, groups
    order, row, sizes = _sort_by_group(scores, groups)
    boxes, scores = boxes[order], scores[order]
    # Each group has as many slots for clusters as boxes, at the same indices; an unused slot overlaps nothing.
    fused, weight, members = torch.zeros_like(boxes), torch.zeros_like(scores), torch.zeros_like(scores)
    start = sizes.cumsum(0) - sizes
    free = start.clone()
    for step, (num_groups, num_boxes) in enumerate(_steps(sizes, len(boxes))):
        current = start[:num_groups] + step
        box, score, rows = boxes[current], scores[current], row[:num_boxes]
        overlap = box_iou(fused[:num_boxes], box[rows])
        best = _best_of_each_group(overlap, rows, num_groups)
        joins = overlap[best] > iou_thresh
        slot = torch.where(joins, best, free[:num_groups])
        free[:num_groups] += ~joins
        members[slot] += 1
        weight[slot] += score
        # In this form the weighted mean of equal boxes is exactly that box.
        fused[slot] += (box - fused[slot]) * (score / weight[slot])[:, None]
    used = members > 0
    fused, weight, members = fused[used], weight[used], members[used]
    return fused, weight / members * members.clamp(max=num_sources) / num_sources, groups[order][used]


def _sort_by_group(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort boxes by group, the largest group first, and by descending score within each group.

    Returns:
        order: (K,), indices of the boxes in that order; of equal scores the first stays first.
        row: (K,), 0..G-1, the group of each box in that order.
        sizes: (G,), descending.
    """
    _, row, sizes = groups.unique(return_inverse=True, return_counts=True)
    sizes, by_size = sizes.sort(descending=True, stable=True)
    row = by_size.argsort()[row]
    order = scores.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    return order, row[order], sizes


def _steps(sizes: Tensor, max_steps: int) -> Iterator[tuple[int, int]]:
    """Yield for each step the number of groups that have a box left for it, and the number of boxes in these groups.

    These groups are the first ones in the order of :func:`_sort_by_group`, so that nothing is padded. The work of all
    steps together grows with the sum of the squares of the group sizes.
    """
    sizes = sizes.tolist()
    num_groups, num_boxes = len(sizes), sum(sizes)
    for step in range(min(sizes[0], max_steps)):
        while sizes[num_groups - 1] <= step:
            num_groups -= 1
            num_boxes -= sizes[num_groups]
        yield num_groups, num_boxes


def _best_of_each_group(values: Tensor, row: Tensor, num_groups: int) -> Tensor:
    """Index (G,) of the largest of ``values`` (K,) in each group; of equal ones the first."""
    best = values.new_zeros(num_groups).scatter_reduce(0, row, values, "amax", include_self=False)
    position = torch.arange(len(values), device=values.device).masked_fill(values != best[row], len(values))
    return row.new_zeros(num_groups).scatter_reduce(0, row, position, "amin", include_self=False)
