"""COCO's box scores (cocodataset.org/#detection-eval) and the matches behind them; needs neither torch nor detectron2.

:func:`score_boxes` gives the numbers of pycocotools, the curves behind them, and which detection matches which
annotated box, so that a report needs no second scoring.

Letters in shapes: N detections, G annotated boxes, K classes, A area ranges, T thresholds of IoU, R recalls, M limits
on the number of detections.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np

from parking.structures.detections import Detections

from .matching import AREA_RANGES, IOU_THRESHOLDS, Matches, find_outside_areas, find_pairs, match, unpack
from .truth import Truth

RECALLS = np.linspace(0.0, 1.0, 101)
#: COCO computes a recall with each of these limits on the detections of one class in an image.
MAX_DETECTIONS = (1, 10, 100)
# pycocotools adds this to the number of detections, to avoid a division by 0.
_EPSILON = np.spacing(1)
AREAS = tuple(AREA_RANGES)
#: COCO's twelve numbers, in the order of ``COCOeval.stats``.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
#: The metrics that are reported for each class, as ``{metric}-{class name}``.
CLASS_METRICS = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class BoxScores:
    """Scores of detections, 0..1 (nan if there is no annotated box to find), and their matches with annotated boxes.

    Attributes:
        truth, detections: the arguments of :func:`score_boxes`. The rows that methods return are rows of these.
        ranks: (N,) int: rank by score among the detections of the same image and class, from 0; -1 if the truth does
            not have the image or class. Detections of rank 100 and higher do not count.
        precision: (T, R, K, A): the highest precision at this recall or a higher one, with at most 100 detections of an
            image and class.
        recall: (T, K, A, M): the highest recall.
        matches: the matches as bit sets, which :meth:`matched_truths`, :meth:`matched_detections` and :meth:`ignored`
            expand.
    """

    truth: Truth
    detections: Detections
    ranks: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    matches: Matches

    @cached_property
    def ap(self) -> np.ndarray:
        """Average precision, (T, K, A)."""
        return self.precision.mean(axis=1)

    def summarize(self) -> dict[str, float]:
        """Return the values of :data:`METRICS` in percent, equal to those of pycocotools."""
        precision, recall = self.precision, self.recall
        values = [precision[..., 0], *(precision[_at(iou), :, :, 0] for iou in (0.5, 0.75))]
        values += [precision[..., area] for area in (1, 2, 3)]
        values += [recall[:, :, 0, limit] for limit in (0, 1, 2)]
        values += [recall[:, :, area, 2] for area in (1, 2, 3)]
        return dict(zip(METRICS, map(_percent, values), strict=True))

    def summarize_classes(self) -> np.ndarray:
        """Return the (K, 3) values of :data:`CLASS_METRICS` in percent."""
        at = (slice(None), _at(0.5), _at(0.75))
        num = self.precision.shape[2]
        return np.array([[_percent(self.precision[t, :, k, 0]) for t in at] for k in range(num)]).reshape(num, 3)

    def matched_truths(self, area: str = "all") -> np.ndarray:
        """Return (T, N) int32: the row of the annotated box that each detection matches, or -1 if it matches none."""
        return self._expand(len(self.detections), self.matches.pairs.detections, self.matches.pairs.truths, area)

    def matched_detections(self, area: str = "all") -> np.ndarray:
        """Return (T, G) int32: the row of the detection that matches each annotated box, or -1 if none does.

        If several detections match a crowd, this is the last of them.
        """
        return self._expand(len(self.truth.rows), self.matches.pairs.truths, self.matches.pairs.detections, area)

    def ignored(self, area: str = "all") -> np.ndarray:
        """Return (T, N) bool: whether a detection counts neither as right nor as wrong.

        The reason may be the ignored box that it matches, its own area, or its rank.
        """
        uncounted = (self.ranks < 0) | (self.ranks >= MAX_DETECTIONS[-1])
        return unpack(self.matches.ignored)[AREAS.index(area)] | uncounted

    def _expand(self, num, keys, values, area):
        rows = np.full((len(IOU_THRESHOLDS), num), -1, dtype=np.int32)
        for row, chosen in zip(rows, unpack(self.matches.bits)[AREAS.index(area)], strict=True):
            row[keys[chosen]] = values[chosen]  # if a key occurs twice, numpy keeps its last value
        return rows


def score_boxes(truth: Truth, detections: Detections) -> BoxScores:
    """Match and score ``detections``, leaving out detections of images or classes that ``truth`` does not have.

    Detections with equal scores are ranked by image, in the order of ``truth.image_ids``, and then by their rows.
    """
    classes, groups, ranks = _rank(truth, detections)
    # Keep only the detections that count, sorted by class, image and rank.
    order = np.lexsort((ranks, groups))
    order = order[(ranks[order] >= 0) & (ranks[order] < MAX_DETECTIONS[-1])]
    classes, groups, boxes = classes[order], groups[order], detections.boxes[order]
    truth_groups = truth.classes * len(truth.image_ids) + truth.rows
    pairs = find_pairs(groups, boxes, truth_groups, truth.boxes, truth.crowd, min_iou=IOU_THRESHOLDS[0])
    outside, truth_outside = find_outside_areas(boxes[:, 2] * boxes[:, 3]), find_outside_areas(truth.areas)
    matches = match(pairs, groups, outside, truth_outside, truth.crowd)

    counted = ~(unpack(truth_outside)[:, 0] | truth.crowd)
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), len(truth.category_ids), len(AREAS)), math.nan)
    recall = np.full((len(IOU_THRESHOLDS), len(truth.category_ids), len(AREAS), len(MAX_DETECTIONS)), math.nan)
    by_score = np.lexsort((-detections.scores[order], classes))
    limits = np.searchsorted(classes, np.arange(len(truth.category_ids) + 1))  # classes are in ascending order
    for k, (start, end) in enumerate(pairwise(limits)):
        rows = by_score[start:end]
        num_truths = counted[:, truth.classes == k].sum(axis=1)
        curves = _draw_curves(matches.matched[rows], matches.ignored[rows], ranks[order[rows]], num_truths)
        precision[:, :, k], recall[:, k] = curves
    return BoxScores(truth, detections, ranks, precision, recall, _spread(matches, order, len(detections)))


def _rank(truth, detections):
    """Return each detection's class, group (image and class) and rank in the group; -1 if they are not in ``truth``."""
    rows = _find_rows(detections.image_ids, truth.image_ids)
    classes = _find_rows(detections.category_ids, truth.category_ids)
    groups = np.where((rows < 0) | (classes < 0), -1, classes * len(truth.image_ids) + rows)
    order = np.lexsort((-detections.scores, groups))
    ranks = np.empty(len(groups), dtype=np.int32)
    ranks[order] = np.arange(len(order)) - np.searchsorted(groups[order], groups[order])
    ranks[groups < 0] = -1
    return classes, groups, ranks


def _draw_curves(matched, ignored, ranks, num_truths):
    """Return the precision (T, R, A) and recall (T, A, M) of the n detections of one class.

    Args:
        matched, ignored: (n,) bit sets; the detections are sorted by descending score.
        ranks: (n,) rank of each detection in its image, from 0.
        num_truths: (A,) number of boxes to be found.
    """
    precision = np.full((len(IOU_THRESHOLDS), len(RECALLS), len(AREAS)), math.nan)
    recall = np.full((len(IOU_THRESHOLDS), len(AREAS), len(MAX_DETECTIONS)), math.nan)
    hits, judged = unpack(matched & ~ignored), unpack(~ignored)
    for a in np.flatnonzero(num_truths):
        num_judged = judged[a].cumsum(axis=1, dtype=np.int32)
        for t in range(len(IOU_THRESHOLDS)):
            # Precision rises only at hits, so its highest values are at hits.
            places = np.flatnonzero(hits[a, t])
            num_hits = np.arange(1, len(places) + 1)
            envelope = np.maximum.accumulate((num_hits / (num_judged[t, places] + _EPSILON))[::-1])[::-1]
            first = np.searchsorted(num_hits / num_truths[a], RECALLS)
            precision[t, :, a] = np.append(envelope, 0.0)[first]
            recall[t, a] = [(ranks[places] < limit).sum() / num_truths[a] for limit in MAX_DETECTIONS]
    return precision, recall


def _spread(matches, order, num):
    """Expand ``matches``, which cover only the detections at the indices ``order``, to all ``num`` detections."""
    matched, ignored = np.zeros((2, num), dtype=np.uint64)
    matched[order], ignored[order] = matches.matched, matches.ignored
    return Matches(replace(matches.pairs, detections=order[matches.pairs.detections]), matches.bits, matched, ignored)


def _find_rows(ids, known):
    """Return the index in ``known`` of each of the N ``ids``, (N,) int; -1 for an id that ``known`` lacks."""
    rows = {known_id: row for row, known_id in enumerate(known)}
    return np.array([rows.get(i, -1) for i in ids.tolist()], dtype=np.int64)


def _at(iou):
    return int(np.argmin(np.abs(IOU_THRESHOLDS - iou)))


def _percent(values):
    """Return the mean, in percent, of the values that are not nan."""
    values = values[~np.isnan(values)]
    return float(values.mean() * 100) if values.size else math.nan
