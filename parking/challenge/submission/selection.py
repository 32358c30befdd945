"""Writes the challenge's submission file with the best boxes that fit a size limit, which one pass finds.

A submission is a JSON list of {"image_id", "category_id" (1-based), "bbox" [x, y, w, h] to 0.1 px, "score" to 4 places,
"segmentation" []}.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from parking.structures.detections import Detections
from parking.utils.marks import open_output

_MAX_COORDINATE = 1e8
# Every row of a submission has at least this many bytes.
_MIN_ROW_BYTES = 80

_SEPARATORS = {"compact": (",", ":"), "original": (", ", ": ")}

#: "compact" has no spaces; "original" has the spaces that Python's ``json.dump`` writes by default.
SPACINGS = tuple(_SEPARATORS)


class SubmissionOptions(NamedTuple):
    """What may enter a submission, and how it is written; the default limits are those of the challenge.

    Attributes:
        max_bytes: limit of the file's size.
        max_per_image: limit of an image's boxes.
        class_floors: number of boxes by category id.
        spacing: one of :data:`SPACINGS`.
    """

    max_bytes: int = 20_000_000
    max_per_image: int = 50
    class_floors: Mapping[int, int] = MappingProxyType({})
    spacing: str = "compact"


@dataclass(frozen=True)
class SubmissionReport:
    """What :func:`write_submission` did with the boxes: each is kept, left out, over its image's limit, or invalid.

    Attributes:
        num_kept: boxes in the file.
        num_left_out: boxes that did not fit under the size limit.
        num_over_image_limit: boxes left out because their image has more boxes than the limit.
        num_invalid: boxes that the format cannot express (see :func:`write_submission`).
        threshold: the lowest score in the file, before rounding, among the boxes that no floor protects; None if there
            are none. No box that scores higher was left out for the size.
        num_below_threshold: boxes in the file that score lower than the threshold, because a floor protects them.
        num_floored_left_out: boxes of ``num_left_out`` that a floor protects; above 0 if the floors alone do not fit.
        num_bytes: size of the file.
        kept: (num_kept,) indices of the boxes in the file, in its order.
    """

    num_kept: int
    num_left_out: int
    num_over_image_limit: int
    num_invalid: int
    threshold: float | None
    num_below_threshold: int
    num_floored_left_out: int
    num_bytes: int
    kept: np.ndarray = field(repr=False, compare=False)

    def describe(self) -> list[str]:
        """The report as a list of sentences; counts of 0 are left out."""
        lowest = f", scores from {self.threshold:.4f}" if self.threshold is not None else ""
        lines = [f"{self.num_kept} boxes{lowest}, {self.num_bytes / 1e6:.2f} MB"]
        if self.num_left_out:
            rest = f"; all that score at least {self.threshold:.4f} did" if self.threshold is not None else ""
            lines.append(f"{self.num_left_out} boxes that score lowest did not fit into the size limit{rest}")
        if self.num_below_threshold:
            lines.append(f"{self.num_below_threshold} boxes that score lower are in because of their class's floor")
        if self.num_floored_left_out:
            lines.append(
                f"the floors alone are larger than the size limit: {self.num_floored_left_out} of their boxes are out; "
                "lower the floors"
            )
        if self.num_over_image_limit:
            lines.append(f"{self.num_over_image_limit} boxes are out because their image has too many")
        if self.num_invalid:
            lines.append(f"{self.num_invalid} boxes are too small or score too low (below 0.00005) for the format")
        return lines


def write_submission(detections: Detections, path: str | os.PathLike, options: SubmissionOptions) -> SubmissionReport:
    """Write the best-scoring boxes that fit into ``max_bytes`` as a JSON list.

    Boxes enter in order of falling score until the next one would exceed the limit; equal scores are ordered by image
    id, category id and box, so the file does not depend on the order of ``detections``. The n best boxes of a class
    with a floor of n enter before all boxes that no floor protects. Only the first ``max_per_image`` boxes of an image
    in this order may enter. The file lists the boxes by image id, the best box of an image first.

    Corners are rounded to 0.1 px, and width and height are computed from the rounded corners, so that a box inside an
    image stays inside. Invalid boxes are left out and counted. A box is invalid if a value is not finite (or beyond
    10^8 px), or if after rounding its width or height is 0 or its score is not in (0, 1]: a box that scores below
    0.00005 is left out. The file is marked as ours, and replaces an earlier file of ours whole or not at all.

    Args:
        detections: boxes in pixels of the original images, category ids 1-based.
        path: the file to write; its folder is made if needed.

    Raises:
        ValueError: ``max_bytes`` is below the 2 bytes of an empty list, ``max_per_image`` below 1, or a floor below 0.
        UserError: ``path`` is a file that is not marked as ours.
    """
    max_bytes, max_per_image, class_floors, spacing = options
    if max_bytes < 2:
        raise ValueError(f"max_bytes is {max_bytes}: an empty list already takes 2 bytes")
    if max_per_image < 1 or min(class_floors.values(), default=0) < 0:
        raise ValueError(f"max_per_image must be positive and no floor negative: {max_per_image}, {dict(class_floors)}")
    tenths, ten_thousandths, valid = _round(detections)
    _, image_index = np.unique(detections.image_ids, return_inverse=True)
    ranked = _rank(detections, tenths, image_index, np.flatnonzero(valid))
    floored = _find_floored(detections.category_ids[ranked], class_floors)
    queue = _queue(image_index[ranked], floored, max_per_image)
    rows = ranked[queue[: max_bytes // _MIN_ROW_BYTES]]
    values = zip(
        detections.image_ids[rows].tolist(),
        detections.category_ids[rows].tolist(),
        (tenths[rows] / 10).tolist(),
        (ten_thousandths[rows] / 10000).tolist(),
        strict=True,
    )
    texts = _take_fitting(values, _SEPARATORS[spacing], max_bytes)
    num_kept = len(texts)
    # Sort by image, and within an image by rank.
    order = np.lexsort((queue[:num_kept], image_index[rows[:num_kept]]))
    kept = rows[order]
    with open_output(path) as file:
        num_bytes = file.write(f"[{_SEPARATORS[spacing][0].join(texts[i] for i in order.tolist())}]".encode())
    unprotected = detections.scores[rows[:num_kept]][~floored[queue[:num_kept]]]
    threshold = float(unprotected[-1]) if len(unprotected) else None
    return SubmissionReport(
        num_kept=num_kept,
        num_left_out=len(queue) - num_kept,
        num_over_image_limit=len(ranked) - len(queue),
        num_invalid=len(detections) - len(ranked),
        threshold=threshold,
        num_below_threshold=0 if threshold is None else int((detections.scores[kept] < threshold).sum()),
        num_floored_left_out=int(floored[queue[num_kept:]].sum()),
        num_bytes=num_bytes,
        kept=kept,
    )


def _round(detections):
    """Round boxes [x, y, w, h] to tenths of a pixel and scores to 1/10000; return both and a mask of the valid rows."""
    corners = detections.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    valid = detections.is_finite() & (np.abs(corners) < _MAX_COORDINATE).all(axis=1)
    boxes = np.rint(np.where(valid[:, None], corners, 0) * 10).astype(np.int64)
    boxes[:, 2:] -= boxes[:, :2]
    scores = np.rint(np.clip(np.where(valid, detections.scores, 0), -1, 2) * 10000).astype(np.int64)
    valid &= (boxes[:, 2:] > 0).all(axis=1) & (scores >= 1) & (scores <= 10000)
    return boxes, scores, valid


def _rank(detections, tenths, image_index, rows):
    """Return ``rows`` sorted by falling score; rows of equal score are sorted by image, category and box."""
    rows = rows[np.argsort(-detections.scores[rows], kind="stable")]
    scores = detections.scores[rows]
    # Only boxes of equal score need the slow sort by seven keys, and most scores are unique.
    same = scores[1:] == scores[:-1]
    tied = np.flatnonzero(np.append(same, False) | np.insert(same, 0, False)) if len(rows) else rows
    group = rows[tied]
    keys = (*tenths[group].T[::-1], detections.category_ids[group], image_index[group], -detections.scores[group])
    rows[tied] = group[np.lexsort(keys)]
    return rows


def _find_floored(category_ids, class_floors):
    """Return a mask of the ranked boxes that a floor protects: the first n boxes of a class whose floor is n."""
    floored = np.zeros(len(category_ids), dtype=bool)
    for category_id, floor in class_floors.items():
        floored[np.flatnonzero(category_ids == category_id)[:floor]] = True
    return floored


def _queue(image_index, floored, max_per_image):
    """Indices of the ranked boxes in the order in which they enter the file, at most ``max_per_image`` per image."""
    queue = np.concatenate([np.flatnonzero(floored), np.flatnonzero(~floored)])
    by_image = np.argsort(image_index[queue], kind="stable")
    images = image_index[queue][by_image]
    num_before = np.empty(len(queue), dtype=np.int64)
    # searchsorted gives the position of the first box of the same image.
    num_before[by_image] = np.arange(len(queue)) - np.searchsorted(images, images)
    return queue[num_before < max_per_image]


def _take_fitting(rows, separators, max_bytes):
    """Return the JSON texts of the first ``rows`` (image id, category id, box, score) that fit into ``max_bytes``."""
    encode = json.JSONEncoder(separators=separators).encode
    # The brackets of the list take two bytes. The loop counts a separator for each row; the last row needs none.
    room = max_bytes - 2 + len(separators[0])
    texts = []
    for image_id, category_id, box, score in rows:
        row = {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score, "segmentation": []}
        texts.append(encode(row))
        room -= len(texts[-1]) + len(separators[0])
        if room < 0:
            return texts[:-1]
    return texts
