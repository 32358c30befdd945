"""Fuses overlapping boxes by soft-NMS or weighted boxes fusion.

The boxes of one class on one image form a group, and each group is fused by itself. All groups are processed at once:
a step takes one box from each group.

Shape legend: K boxes, G groups, M results.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from parking.layers import box_iou


def soft_nms(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, sigma: float, score_thresh: float, max_per_group: int
) -> tuple[Tensor, Tensor]:
    """Reduce scores of overlapping boxes by Gaussian soft-NMS (Bodla et al., "Soft-NMS", ICCV 2017, Sec. 3).

    In each group the box with the best score is picked, and every other score is multiplied by exp(-IoU^2 / sigma).
    This is repeated with the boxes that are left. If scores are equal, the box with the higher original score is picked
    first; if the original scores are equal, too, the box that comes first in ``boxes``.

    Args:
        boxes: (K, 4) XYXY, finite, all in the same unit.
        scores: (K,), 0 or more.
        groups: (K,) int64, the number of each box's group; any numbers.
        sigma: above 0.
        score_thresh: 0 or more; a box is left out unless its score is above this when it is picked.
        max_per_group: largest number of boxes picked in a group.

    Returns:
        indices: (M,) int64, the picked boxes; within a group, in the order in which they were picked.
        scores: (M,), the reduced scores of these boxes.
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
        # A score of 0 marks a picked box. If all scores of a group are 0, a picked box is picked again, but its score
        # is not above the threshold, so this pick is left out.
        rest[best] = 0
    picked, picked_scores = torch.cat(picked), torch.cat(picked_scores)
    above = picked_scores > score_thresh
    return order[picked[above]], picked_scores[above]


def weighted_boxes_fusion(
    boxes: Tensor, scores: Tensor, groups: Tensor, *, num_sources: int, iou_thresh: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse boxes by weighted boxes fusion (Solovyev et al., Image and Vision Computing 107, 2021, Sec. 3).

    Boxes are taken in order of falling score. Each box is compared with the present fused boxes of its group's
    clusters. It joins the cluster with the largest IoU, if that is above ``iou_thresh``; else it starts a cluster. A
    fused box is the mean of the cluster's members, weighted by their scores. Its score is the members' mean score times
    min(T, N) / N for T members and N sources. This is the first variant in the paper, in which the sources of the
    members do not matter. Boxes of equal score are taken in the given order; of clusters with equal IoU, the earliest
    is joined.

    Args:
        boxes: (K, 4) XYXY, finite, all in the same unit.
        scores: (K,), above 0.
        groups: (K,) int64, the number of each box's group; any numbers.
        num_sources: number of models or views that the boxes are from.
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
    # Each group has as many slots for clusters as boxes, at the indices of its boxes. The fused box of an unused slot
    # is empty, so no box overlaps it.
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
        # Update the weighted mean in this form, because it gives exactly the same box if all members are equal.
        fused[slot] += (box - fused[slot]) * (score / weight[slot])[:, None]
    used = members > 0
    fused, weight, members = fused[used], weight[used], members[used]
    return fused, weight / members * members.clamp(max=num_sources) / num_sources, groups[order][used]


def _sort_by_group(scores: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sort boxes by group, the largest group first, and by descending score within each group.

    Returns:
        order: (K,), indices of the boxes in the new order; boxes of equal score keep their order.
        row: (K,), 0..G-1, the group of each box in the new order.
        sizes: (G,), number of boxes in each group, descending.
    """
    _, row, sizes = groups.unique(return_inverse=True, return_counts=True)
    sizes, by_size = sizes.sort(descending=True, stable=True)
    row = by_size.argsort()[row]
    order = scores.argsort(descending=True, stable=True)
    order = order[row[order].argsort(stable=True)]
    return order, row[order], sizes


def _steps(sizes: Tensor, max_steps: int) -> Iterator[tuple[int, int]]:
    """Yield, for k = 0, 1, ..., the number of groups with more than k boxes, and how many boxes these groups have.

    These groups come first in the order of :func:`_sort_by_group`, so no group has to be padded. The work of all steps
    together grows with the sum of the squared group sizes.
    """
    sizes = sizes.tolist()
    num_groups, num_boxes = len(sizes), sum(sizes)
    for step in range(min(sizes[0], max_steps)):
        while sizes[num_groups - 1] <= step:
            num_groups -= 1
            num_boxes -= sizes[num_groups]
        yield num_groups, num_boxes


def _best_of_each_group(values: Tensor, row: Tensor, num_groups: int) -> Tensor:
    """Return the index (G,) of the largest of ``values`` (K,) in each group; of equal values, the first."""
    best = values.new_zeros(num_groups).scatter_reduce(0, row, values, "amax", include_self=False)
    position = torch.arange(len(values), device=values.device).masked_fill(values != best[row], len(values))
    return row.new_zeros(num_groups).scatter_reduce(0, row, position, "amin", include_self=False)
