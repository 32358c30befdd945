"""Simplified optimal transport assignment (SimOTA): Ge et al., "YOLOX", 2021, Sec. 2.1.

A candidate is a prediction that may be assigned. The candidates of all boxes of an image are gathered in M slots; M
follows from the number of boxes alone, so some slots may hold predictions that are no candidates.

Shape legend, all of one image: T ground truth boxes, P predictions (one for each point), C classes, M slots, t boxes
that are compared at once.
"""

import torch
from torch import Tensor

from parking.layers import box_iou

from ..task_aligned import TaskAlignment, settle_claims

# A prediction is a candidate of a box if its point is less than this many strides from the box's centre in x and in y.
_RADIUS = 1.5
# A box has at most this many candidates in a level, because at most 3 x 3 points are within _RADIUS.
_MAX_CANDIDATES = 9
# A box claims as many predictions as the sum of its largest overlaps; at most this many overlaps are summed up.
_MAX_PER_BOX = 10
_IOU_WEIGHT = 3.0
_IOU_EPS = 1e-8
# The cost of a pair of a box and a prediction grows by this if the prediction is a candidate of other boxes only.
_FAR = 1e6
# Logarithms are clamped to at least this value, as in PyTorch's cross entropy.
_MIN_LOG = -100.0
# At most this many pairs of a box and a prediction are compared at once; a pair takes about 80 bytes of memory.
_MAX_PAIRS = 2**21


class SimOTAAssigner:
    """Gives each box its n cheapest predictions; n is the sum of the box's 10 largest overlaps, and at least 1.

    The cost of a box and a prediction is the cross entropy of the square roots of the scores against the box's class,
    summed over classes, plus 3 times -log(IoU). A prediction that several boxes claim goes to the box for which it
    costs least, among all boxes of the image, whether or not that box claims it, as in the published training.

    The assigner never waits for the device, because sizes of tensors depend only on the number of boxes. It takes at
    most about 200 MB for any number of boxes, because it compares only a few boxes at a time.
    """

    def __init__(self, *, num_levels: int):
        self.max_candidates = num_levels * _MAX_CANDIDATES

    @torch.no_grad()
    def __call__(
        self, boxes: Tensor, scores: Tensor, points: Tensor, gt_boxes: Tensor, gt_classes: Tensor, strides: Tensor
    ) -> TaskAlignment:
        """Assign the predictions in one image to its ground-truth boxes.

        Args:
            boxes: (P, 4) XYXY in pixels, float32.
            scores: (P, C) probabilities, objectness times class.
            points: (P, 2) x and y in pixels, the middle of each cell.
            gt_boxes: (T, 4) XYXY in pixels; any number.
            gt_classes: (T,) int64.
            strides: (P, 1) in pixels.

        Returns:
            the claims of all boxes; the target of an assigned prediction is its IoU with the box.
        """
        centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        slots, is_candidate = self._find_candidates(points, strides, centers)
        boxes, points, strides = boxes[slots], points[slots], strides[slots]
        absent, present = _class_costs(scores[slots])
        num_claims = min(_MAX_PER_BOX, len(slots))
        ranks = torch.arange(num_claims, device=slots.device)
        lowest, cheapest_gt = torch.full_like(absent, torch.inf), torch.zeros_like(slots)
        claimed, are_valid = [slots.new_empty(0, num_claims)], [is_candidate.new_empty(0, num_claims)]
        step = max(_MAX_PAIRS // max(len(slots), 1), 1)
        for start in range(0, len(gt_boxes), step):
            part = slice(start, start + step)
            iou = box_iou(gt_boxes[part, None], boxes) * is_candidate
            cost = absent + present[gt_classes[part]] - _IOU_WEIGHT * (iou + _IOU_EPS).log()
            cost = cost + _FAR * ~_are_near(points, strides, centers[part])
            cost = cost.masked_fill(~is_candidate, torch.inf)
            num_wanted = iou.topk(num_claims).values.sum(dim=1, keepdim=True).int().clamp(min=1)
            costs, claims = cost.topk(num_claims, largest=False)
            claimed.append(claims)
            are_valid.append((ranks < num_wanted) & (costs < torch.inf))
            cost, gt = cost.min(dim=0)
            cheapest_gt = torch.where(cost < lowest, gt + start, cheapest_gt)
            lowest = torch.minimum(cost, lowest)

        claims = torch.cat(claimed).flatten()
        gt_index = torch.arange(len(gt_boxes), device=slots.device).repeat_interleave(num_claims)
        is_assigned, gt_index = settle_claims(claims, torch.cat(are_valid).flatten(), gt_index, cheapest_gt)
        targets = box_iou(boxes[claims], gt_boxes[gt_index]) * is_assigned
        return TaskAlignment(slots[claims], gt_index, targets, is_assigned)

    def _find_candidates(self, points: Tensor, strides: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Choose M predictions that include all candidates of all boxes.

        Returns:
            The ascending indices (M,) of these predictions, and whether each is a candidate (M,).
        """
        is_candidate = torch.zeros_like(points[:, 0], dtype=torch.bool)
        for some in centers.split(max(_MAX_PAIRS // len(points), 1)):
            is_candidate |= _are_near(points, strides, some).any(dim=0)
        num_slots = min(len(points), self.max_candidates * len(centers))
        slots = is_candidate.float().topk(num_slots).indices.sort().values
        return slots, is_candidate[slots]


def _are_near(points: Tensor, strides: Tensor, centers: Tensor) -> Tensor:
    """Return (t, P) bool: whether each prediction's point is so near to each box's center that it is a candidate."""
    return ((points - centers[:, None]).abs() < _RADIUS * strides).all(dim=-1)


def _class_costs(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return two parts of predictions' cross entropy, which is ``absent + present[c]`` if c is the right class.

    Args:
        scores: (M, C).

    Returns:
        absent: (M,), the cross entropy, summed over classes, if no class is right.
        present: (C, M), the difference that it makes if a class is right.
    """
    probs = scores.sqrt()
    negative = (-probs).log1p().clamp(min=_MIN_LOG)
    return -negative.sum(dim=1), (negative - probs.log().clamp(min=_MIN_LOG)).T.contiguous()
