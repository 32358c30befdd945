"""Simplified optimal transport assignment (SimOTA): Ge et al., "YOLOX", 2021, Sec. 2.1.

Shape legend, all of one image: T ground truth boxes, P predictions (one for each point), C classes, M slots for the
candidates, t boxes that are looked at together.
"""

import torch
from torch import Tensor

from parking.layers import box_iou

# A box's candidates are the points less than this many strides from its centre, in either direction ...
_RADIUS = 1.5
# ... of which one level has at most 3 x 3.
_MAX_CANDIDATES = 9
# So many of the largest overlaps are summed up; the sum is the number of predictions that a box gets.
_MAX_PER_BOX = 10
_IOU_WEIGHT = 3.0
_IOU_EPS = 1e-8
# Cost of a prediction whose point is a candidate of other boxes only.
_FAR = 1e6
# PyTorch's cross entropy takes no logarithm for less than this.
_MIN_LOG = -100.0
# Pairs of a box and a slot that are looked at together: each tensor of them takes 8 MB.
_MAX_PAIRS = 2**21


class SimOTAAssigner:
    """Gives each box the predictions that cost it least, and as many as its best predictions overlap with it.

    The cost of a box and a prediction is the cross entropy of sqrt(class probability x objectness) against the box's
    class, summed over classes, plus 3 times -log(IoU). A prediction that several boxes want goes to the box for which
    it costs least, among all boxes of the image.

    Nothing here waits for the device: sizes of tensors depend on the number of boxes only. Whatever that is, memory
    stays below some 100 MB, because boxes are looked at a few at a time.
    """

    def __init__(self, *, num_levels: int):
        self.max_candidates = num_levels * _MAX_CANDIDATES

    @torch.no_grad()
    def __call__(
        self,
        boxes: Tensor,
        objectness: Tensor,
        class_logits: Tensor,
        points: Tensor,
        strides: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
    ) -> Tensor:
        """
        Args:
            boxes: (P, 4) predictions, XYXY in pixels, float32.
            objectness: (P,) logits.
            class_logits: (P, C).
            points: (P, 2) x, y in pixels, the middle of each cell.
            strides: (P, 1) in pixels.
            gt_boxes: (T, 4) XYXY in pixels.
            gt_classes: (T,) int64.

        Returns:
            (P,) int64, the index of the box that each prediction is assigned to, or -1.
        """
        assigned = torch.full((len(boxes),), -1, dtype=torch.int64, device=boxes.device)
        if not len(gt_boxes):
            return assigned
        gt_boxes = gt_boxes.float()
        centers = (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2
        slots, is_candidate = self._find_candidates(points, strides, centers)
        boxes, points, strides = boxes[slots], points[slots], strides[slots]
        absent, present = _class_costs(objectness[slots], class_logits[slots])
        claims = _Claims(len(slots), device=boxes.device)
        step = max(_MAX_PAIRS // len(slots), 1)
        for start in range(0, len(gt_boxes), step):
            some = slice(start, start + step)
            iou = box_iou(gt_boxes[some, None], boxes) * is_candidate
            cost = absent + present[gt_classes[some]] - _IOU_WEIGHT * (iou + _IOU_EPS).log()
            cost = cost + _FAR * ~_are_near(points, strides, centers[some])
            claims.add(start, iou, torch.where(is_candidate, cost, torch.inf))
        assigned[slots] = claims.resolve()
        return assigned

    def _find_candidates(self, points: Tensor, strides: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
        """Indices (M,) among which all candidates of all boxes are, in order, and whether each is one."""
        is_candidate = torch.zeros_like(points[:, 0], dtype=torch.bool)
        step = max(_MAX_PAIRS // len(points), 1)
        for some in centers.split(step):
            is_candidate |= _are_near(points, strides, some).any(dim=0)
        num_slots = min(len(points), self.max_candidates * len(centers))
        slots = is_candidate.float().topk(num_slots).indices.sort().values
        return slots, is_candidate[slots]


class _Claims:
    """Which box claims which slot, and for which box each slot costs least, while more boxes are looked at."""

    def __init__(self, num_slots: int, device: torch.device):
        # One slot more, for what is no claim.
        self.first = torch.full((num_slots + 1,), torch.iinfo(torch.int64).max, device=device)
        self.last = torch.full((num_slots + 1,), -1, device=device)
        self.lowest_cost = torch.full((num_slots,), torch.inf, device=device)
        self.cheapest = torch.full((num_slots,), -1, device=device)

    def add(self, start: int, iou: Tensor, cost: Tensor) -> None:
        """``iou`` and ``cost`` (t, M) of the boxes from ``start`` on; of slots without a candidate, 0 and infinite."""
        num_boxes, num_slots = cost.shape
        num_ranks = min(_MAX_PER_BOX, num_slots)
        num_wanted = iou.topk(num_ranks).values.sum(dim=1, keepdim=True).int().clamp(min=1)
        costs, slots = cost.topk(num_ranks, largest=False)
        ranks = torch.arange(num_ranks, device=cost.device)
        slots = torch.where((ranks < num_wanted) & (costs < torch.inf), slots, num_slots).flatten()
        numbers = torch.arange(start, start + num_boxes, device=cost.device)
        numbers_of_slots = numbers.repeat_interleave(num_ranks)
        self.first.scatter_reduce_(0, slots, numbers_of_slots, "amin")
        self.last.scatter_reduce_(0, slots, numbers_of_slots, "amax")
        lowest_cost, cheapest = cost.min(dim=0)
        self.cheapest = torch.where(lowest_cost < self.lowest_cost, numbers[cheapest], self.cheapest)
        self.lowest_cost = torch.minimum(lowest_cost, self.lowest_cost)

    def resolve(self) -> Tensor:
        """(M,): the box that gets each slot, or -1."""
        first, last = self.first[:-1], self.last[:-1]
        return torch.where(first >= last, last, self.cheapest)


def _are_near(points: Tensor, strides: Tensor, centers: Tensor) -> Tensor:
    """(t, P): whether each point is a candidate of each box with its centre in ``centers`` (t, 2)."""
    return ((points - centers[:, None]).abs() < _RADIUS * strides).all(dim=-1)


def _class_costs(objectness: Tensor, class_logits: Tensor) -> tuple[Tensor, Tensor]:
    """The cross entropy of a prediction for class c, summed over classes, is ``absent`` plus row c of ``present``.

    Returns:
        absent: (M,), where no class is the right one.
        present: (C, M), what changes if a class is.
    """
    probs = (class_logits.float().sigmoid() * objectness.float().sigmoid()[:, None]).sqrt()
    negative = (-probs).log1p().clamp(min=_MIN_LOG)
    return -negative.sum(dim=1), (negative - probs.log().clamp(min=_MIN_LOG)).T.contiguous()
