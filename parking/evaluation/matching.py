"""Match detections with annotated boxes by COCO's rule, for many images at once; needs only numpy.

Letters in shapes: N detections, G annotated boxes, P pairs of the two that overlap, A area ranges, T thresholds of IoU.
COCO matches once for each combination of area range and threshold. A *bit set* is a uint64 that holds yes or no for
each of these A x T combinations.
"""

from dataclasses import dataclass

import numpy as np

#: COCO's thresholds: a detection and an annotated box of at least this IoU count as the same object.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
#: Least and largest area of each range in square pixels, both inclusive. Scores of a range ignore boxes outside of it.
AREA_RANGES = {"all": (0.0, 1e10), "small": (0.0, 1024.0), "medium": (1024.0, 9216.0), "large": (9216.0, 1e10)}
NUM_BITS = len(AREA_RANGES) * len(IOU_THRESHOLDS)
_ALL = np.uint64(2**NUM_BITS - 1)
# Number of pairs whose IoU is computed at once; limits the memory for images with very many boxes.
_CHUNK = 1_000_000


@dataclass(frozen=True)
class Pairs:
    """P pairs of a detection and an annotated box of the same image.

    Attributes:
        detections, truths: (P,) indices.
        ious: (P,) float64. If the annotated box is a crowd, the part of the detection that lies in the crowd.
    """

    detections: np.ndarray
    truths: np.ndarray
    ious: np.ndarray

    def __getitem__(self, index: np.ndarray) -> "Pairs":
        return Pairs(self.detections[index], self.truths[index], self.ious[index])


@dataclass(frozen=True)
class Matches:
    """Which pairs :func:`match` has matched, and which detections are matched or ignored, for each range and threshold.

    Attributes:
        pairs: the pairs that match for at least one area range and threshold.
        bits: (P,) bit sets: for which area ranges and thresholds the two match.
        matched: (N,) bit sets: for which ones the detection has a match.
        ignored: (N,) bit sets: for which ones the detection counts neither as right nor as wrong.
    """

    pairs: Pairs
    bits: np.ndarray
    matched: np.ndarray
    ignored: np.ndarray


def unpack(bits: np.ndarray) -> np.ndarray:
    """Expand (N,) bit sets to (A, T, N) bool: one value for each of A area ranges and T IoU thresholds."""
    columns = np.unpackbits(bits.astype("<u8").view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")
    return columns[:, :NUM_BITS].T.reshape(len(AREA_RANGES), len(IOU_THRESHOLDS), -1).view(bool)


def find_outside_areas(areas: np.ndarray) -> np.ndarray:
    """Return a bit set (N,) for each of N areas in square pixels; it marks the ranges that do not contain the area."""
    outside = np.zeros(len(areas), dtype=np.uint64)
    for place, (least, most) in enumerate(AREA_RANGES.values()):
        bits = np.uint64((2 ** len(IOU_THRESHOLDS) - 1) << place * len(IOU_THRESHOLDS))
        outside[(areas < least) | (areas > most)] |= bits
    return outside


def find_pairs(
    groups: np.ndarray,
    boxes: np.ndarray,
    truth_groups: np.ndarray,
    truth_boxes: np.ndarray,
    crowd: np.ndarray,
    *,
    min_iou: float,
) -> Pairs:
    """Return all pairs of a detection and an annotated box of the same group with an IoU of ``min_iou`` or more.

    Args:
        groups: (N,) int, the group of each detection: its image, or its image and class.
        boxes: (N, 4) XYWH.
        truth_groups, truth_boxes: (G,) and (G, 4), groups and boxes of the annotated boxes.
        crowd: (G,) bool.
    """
    order = np.argsort(truth_groups, kind="stable")
    starts, ends = (np.searchsorted(truth_groups[order], groups, side=side) for side in ("left", "right"))
    counts = ends - starts
    cuts = np.searchsorted(np.cumsum(counts), np.arange(_CHUNK, counts.sum(), _CHUNK), side="left")
    parts = []
    for rows in np.split(np.arange(len(groups)), cuts):
        detections = np.repeat(rows, counts[rows])
        firsts = np.cumsum(counts[rows]) - counts[rows]
        truths = order[np.arange(len(detections)) + np.repeat(starts[rows] - firsts, counts[rows])]
        ious = _compute_ious(boxes[detections], truth_boxes[truths], crowd[truths])
        parts.append(Pairs(detections, truths, ious)[ious >= min_iou])
    return Pairs(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("detections", "truths", "ious"))
    )


def match(
    pairs: Pairs, groups: np.ndarray, outside: np.ndarray, truth_outside: np.ndarray, crowd: np.ndarray
) -> Matches:
    """Match detections to annotated boxes as COCO does.

    For each area range and threshold, the detections of a group choose one after the other, by their index. Each takes
    the free annotated box with the highest IoU (of several with equal IoU, the last one). It takes an ignored box (a
    crowd, or a box outside of the area range) only if no other free box reaches the threshold. A crowd stays free.

    Args:
        pairs: from :func:`find_pairs`.
        groups: (N,) int, ascending.
        outside, truth_outside: results of :func:`find_outside_areas`, (N,) for detections, (G,) for annotated boxes.
        crowd: (G,) bool.
    """
    pairs = pairs[np.lexsort((-pairs.truths, -pairs.ious, pairs.detections))]
    num_thresholds = np.searchsorted(IOU_THRESHOLDS, pairs.ious, side="right").astype(np.uint64)
    every_range = np.uint64(sum(2 ** (place * len(IOU_THRESHOLDS)) for place in range(len(AREA_RANGES))))
    reached = ((np.uint64(1) << num_thresholds) - np.uint64(1)) * every_range
    truth_ignored = np.where(crowd, _ALL, truth_outside)
    unlimited = np.where(crowd, _ALL, np.uint64(0))

    unmatched = np.full(len(groups), _ALL)
    ignored = np.zeros(len(groups), dtype=np.uint64)
    free = np.full(len(crowd), _ALL)
    given = np.zeros(len(pairs.ious), dtype=np.uint64)
    for rows, are_ignored in _plan_steps(pairs.detections, groups):
        detections, truths = pairs.detections[rows], pairs.truths[rows]
        allowed = np.where(are_ignored, truth_ignored[truths], ~truth_ignored[truths])
        bits = reached[rows] & allowed & unmatched[detections] & free[truths]
        unmatched[detections] ^= bits
        ignored[detections] |= bits & truth_ignored[truths]
        free[truths] &= ~bits | unlimited[truths]
        given[rows] |= bits
    used = given != 0
    return Matches(pairs[used], given[used], _ALL & ~unmatched, ignored | (unmatched & outside))


def _plan_steps(detections, groups):
    """Divide the pairs into steps; each has at most one pair of a group, so that array operations can do it at once.

    Each pair occurs twice: first for the area ranges in which its annotated box counts, then for those that ignore it.

    Yields:
        For each step, (S,) rows of pairs, and (S,) bool: whether this is the pair's second occurrence.
    """
    if not len(detections):
        return
    num = len(detections)
    starts = np.flatnonzero(np.r_[True, detections[1:] != detections[:-1]])
    counts = np.diff(np.r_[starts, num])
    of_groups = groups[detections]
    group_starts = np.flatnonzero(np.r_[True, of_groups[1:] != of_groups[:-1]])
    first = np.repeat(group_starts, np.diff(np.r_[group_starts, num]))
    start, count = np.repeat(starts, counts), np.repeat(counts, counts)
    # Number the steps of each group from 0. A detection with n pairs takes n steps for their first occurrences, then n
    # for their second ones; the steps of the group's next detection follow.
    step = 2 * (start - first) + np.arange(num) - start
    steps = np.concatenate([step, step + count])
    order = np.argsort(steps, kind="stable")
    for entries in np.split(order, np.flatnonzero(np.diff(steps[order])) + 1):
        yield entries % num, entries >= num


def _compute_ious(boxes, truth_boxes, crowd):
    """Return (P,) IoU, equal to that of pycocotools to the last bit."""
    ends, truth_ends = boxes[:, :2] + boxes[:, 2:], truth_boxes[:, :2] + truth_boxes[:, 2:]
    sides = np.minimum(ends, truth_ends) - np.maximum(boxes[:, :2], truth_boxes[:, :2])
    common = np.where((sides > 0).all(axis=1), sides[:, 0] * sides[:, 1], 0.0)
    areas, truth_areas = boxes[:, 2] * boxes[:, 3], truth_boxes[:, 2] * truth_boxes[:, 3]
    united = np.where(crowd, areas, areas + truth_areas - common)
    return np.divide(common, united, out=np.zeros_like(common), where=common > 0)
