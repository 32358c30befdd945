"""Task-aligned assignment: a box is assigned to the predictions that fit it best in both class and place.

Feng et al., "TOOD", ICCV 2021, Sec. 3.2, in the form in which the published models of the distribution head were
trained.

Shape legend: P predictions of an image, C classes, G ground truth boxes of the image, T candidates of a box,
K = G * T claims. A candidate is a prediction that a box may be assigned to; a claim is a pair of a box and one of its
candidates.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from parking.layers import box_ciou_values

# At most this many pairs of a box and a prediction are compared at once; a pair takes about 80 bytes of memory.
_MAX_PAIRS = 2**21
_EPS = 1e-9


class TaskAlignment(NamedTuple):
    """The K claims of an image, accepted or rejected; each is a pair of a box and a prediction that may learn the box.

    Rejected claims stay in the tensors, so that all sizes follow from the number of boxes and no value has to be read
    from the device.

    Attributes:
        predictions: (K,) int64, the claimed prediction.
        gt_index: (K,) int64, the box that the prediction is assigned to.
        targets: (K,) float32, 0..1, the prediction's soft target for the class of its box; 0 if the claim is rejected.
        is_assigned: (K,) bool, whether the claim is accepted; at most one claim on each prediction is.
    """

    predictions: Tensor
    gt_index: Tensor
    targets: Tensor
    is_assigned: Tensor


class TaskAlignedAssigner:
    """Assigns to each box the predictions with the largest score^alpha * overlap^beta.

    The overlap of a box and a prediction is their complete IoU, at least 0, if the prediction's point lies inside the
    box, else 0. A prediction that several boxes claim goes to the box of the image that it overlaps most, whether or
    not that box claims it, as in the published training.
    """

    def __init__(self, *, alpha: float, beta: float, num_candidates: int, min_side: float):
        """
        Args:
            alpha, beta: exponents of the score and of the overlap.
            num_candidates: T, the number of predictions that each box claims.
            min_side: pixels; a box with a shorter side is enlarged to this length for the test which points are inside.
        """
        self.alpha = alpha
        self.beta = beta
        self.num_candidates = num_candidates
        self.min_side = min_side

    @torch.no_grad()
    def __call__(
        self, boxes: Tensor, scores: Tensor, points: Tensor, gt_boxes: Tensor, gt_classes: Tensor
    ) -> TaskAlignment:
        """Assign the predictions in one image to its ground-truth boxes.

        Args:
            boxes: (P, 4) XYXY in pixels.
            scores: (P, C) probabilities.
            points: (P, 2) x and y in pixels, the centre of each prediction's cell.
            gt_boxes: (G, 4) XYXY in pixels; any number.
            gt_classes: (G,) int64.
        """
        areas = self._enlarge(gt_boxes)
        predictions, is_inside, best_gt = self._collect_claims(boxes, scores, points, gt_boxes, gt_classes, areas)
        gt_index = torch.arange(len(gt_boxes), device=boxes.device)[:, None].expand_as(predictions).flatten()
        predictions, is_inside = predictions.flatten(), is_inside.flatten()

        is_assigned, gt_index = settle_claims(predictions, is_inside, gt_index, best_gt)
        overlaps = _overlap(boxes[predictions], points[predictions], gt_boxes[gt_index], areas[gt_index])
        alignment = self._align(scores[predictions, gt_classes[gt_index]], overlaps)
        targets = _normalize(alignment * is_assigned, overlaps * is_assigned, gt_index, len(gt_boxes))
        return TaskAlignment(predictions, gt_index, targets, is_assigned)

    def _collect_claims(
        self, boxes: Tensor, scores: Tensor, points: Tensor, gt_boxes: Tensor, gt_classes: Tensor, areas: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Choose for each box the T predictions that it claims, a few boxes at a time to limit the memory.

        Returns:
            The predictions (G, T) that each box claims, whether the point of each is inside the box (G, T), and the box
            that each prediction overlaps most (P,).
        """
        num_candidates = min(self.num_candidates, len(boxes))
        best_overlap = boxes.new_zeros(len(boxes))
        best_gt = torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        claimed = [best_gt.new_empty(0, num_candidates)]
        step = max(_MAX_PAIRS // max(len(boxes), 1), 1)
        for start in range(0, len(gt_boxes), step):
            part = slice(start, start + step)
            overlaps = _overlap(boxes, points, gt_boxes[part, None], areas[part, None])
            alignment = self._align(scores[:, gt_classes[part]].T, overlaps)
            claimed.append(alignment.topk(num_candidates, dim=1).indices)
            overlap, gt = overlaps.max(dim=0)
            best_gt = torch.where(overlap > best_overlap, gt + start, best_gt)
            best_overlap = torch.maximum(overlap, best_overlap)
        claimed = torch.cat(claimed)
        return claimed, _is_inside(points[claimed], areas[:, None]), best_gt

    def _align(self, scores: Tensor, overlaps: Tensor) -> Tensor:
        return scores.pow(self.alpha) * overlaps.pow(self.beta)

    def _enlarge(self, gt_boxes: Tensor) -> Tensor:
        """Enlarge ``gt_boxes`` such that no side is shorter than ``min_side``."""
        lacking = (self.min_side - (gt_boxes[:, 2:] - gt_boxes[:, :2])).clamp(min=0) / 2
        return torch.cat([gt_boxes[:, :2] - lacking, gt_boxes[:, 2:] + lacking], dim=1)


def settle_claims(predictions: Tensor, is_valid: Tensor, gt_index: Tensor, best_gt: Tensor) -> tuple[Tensor, Tensor]:
    """Give each claimed prediction to one box: the only box that claims it, or its ``best_gt`` if several boxes do.

    Args:
        predictions: (K,) int64, the claimed prediction.
        is_valid: (K,) bool, whether the claim counts.
        gt_index: (K,) int64, the box that claims.
        best_gt: (P,) int64, the box that gets the prediction if several boxes claim it.

    Returns:
        whether each claim is accepted (K,), and the box that gets its prediction (K,). Of the claims on a prediction,
        only the first valid one is accepted, and it stands for the box that gets the prediction.
    """
    # A prediction has a single valid claim if its first and its last valid claim are the same.
    number = torch.arange(len(predictions), device=predictions.device)
    first, last = (
        number.new_full((len(best_gt),), empty).scatter_reduce_(
            0, predictions, number.masked_fill(~is_valid, empty), reduce
        )[predictions]
        for empty, reduce in ((len(number), "amin"), (-1, "amax"))
    )
    return is_valid & (first == number), torch.where(first == last, gt_index, best_gt[predictions])


def _is_inside(points: Tensor, areas: Tensor) -> Tensor:
    """Whether ``points`` (..., 2) lie strictly inside ``areas`` (..., 4) XYXY; the shapes are broadcast."""
    (x, y), (x1, y1, x2, y2) = points.unbind(dim=-1), areas.unbind(dim=-1)
    return (x > x1) & (y > y1) & (x < x2) & (y < y2)


def _overlap(boxes: Tensor, points: Tensor, gt_boxes: Tensor, areas: Tensor) -> Tensor:
    """Return the complete IoU of ``boxes`` and ``gt_boxes``; 0 if it is negative or ``points`` is outside ``areas``."""
    return box_ciou_values(boxes, gt_boxes).clamp_(min=0) * _is_inside(points, areas)


def _normalize(alignment: Tensor, overlaps: Tensor, gt_index: Tensor, num_gt: int) -> Tensor:
    """Scale ``alignment`` to soft targets (K,) such that the maximum for each box is the box's largest overlap.

    Args:
        alignment, overlaps: (K,), 0 for claims that are not assigned.
        gt_index: (K,) int64, the box of each claim.
        num_gt: number of boxes.
    """
    max_alignment, max_overlap = (
        values.new_zeros(num_gt).scatter_reduce_(0, gt_index, values, "amax")[gt_index]
        for values in (alignment, overlaps)
    )
    return alignment / (max_alignment + _EPS) * max_overlap
