"""The challenge's submission file: the best boxes that fit a size limit, found in one pass.

A submission is a JSON list of {"image_id", "category_id" (1-based), "bbox" [x, y, w, h] to 0.1 px, "score" to 4 places,
"segmentation" []}.
"""

import itertools
import json
import os
from dataclasses import dataclass

import numpy as np

from parking.evaluation.detections import Detections
from parking.utils.files import open_atomic

#: The challenge's limit: 20 MB of 10^6 bytes.
DEFAULT_MAX_BYTES = 20_000_000

# Each row is followed by a comma or, the last one, by the closing bracket: one more byte either way.
_ROW = '{{"image_id":{},"category_id":{},"bbox":[{},{},{},{}],"score":{},"segmentation":[]}}'
_ROW_BYTES = len(_ROW.format(*[""] * 7)) + 1
_MAX_COORDINATE = 1e8


@dataclass(frozen=True)
class SubmissionReport:
    """What became of the boxes given to :func:`write_submission`.

    Attributes:
        num_kept: boxes in the file.
        num_left_out: boxes that did not fit under the limit; none scores higher than a kept one.
        num_invalid: boxes that the format cannot express (see :func:`write_submission`).
        threshold: the lowest score in the file, before rounding; None if no box was kept.
        num_bytes: size of the file.
    """

    num_kept: int
    num_left_out: int
    num_invalid: int
    threshold: float | None
    num_bytes: int


def write_submission(
    detections: Detections, path: str | os.PathLike, *, max_bytes: int = DEFAULT_MAX_BYTES
) -> SubmissionReport:
    """Write the best-scoring boxes that fit into ``max_bytes`` as a compact JSON list, valid by construction.

    Boxes enter in order of falling score until the next one would exceed the limit; equal scores are ordered by image
    id, category id and box, so the file does not depend on the order of ``detections``. The file lists them by image
    id, best first. Corners are rounded to 0.1 px and width and height follow from them: a box inside an image stays
    inside. Left out as invalid, and counted, are boxes with a value that is not finite (or beyond 10^8 px), without
    width or height after rounding, and with a score that is not in (0, 1] after rounding: below 0.00005 a box is
    dropped, not raised to 0.0001. The file replaces an earlier one whole or not at all.

    Args:
        detections: boxes in pixels of the original images, category ids 1-based.
        path: the file to write; its folder is made if needed.
        max_bytes: limit of the file's size.

    Raises:
        ValueError: ``max_bytes`` does not even leave room for an empty list.
    """
    if max_bytes < 2:
        raise ValueError(f"max_bytes is {max_bytes}: an empty list already takes 2 bytes")
    tenths, ten_thousandths, valid = _round(detections)
    candidates = np.flatnonzero(valid)
    image_ids, image_index = np.unique(detections.image_ids, return_inverse=True)
    image_texts = [json.dumps(image_id) for image_id in image_ids.tolist()]
    image_lengths = np.array([len(text) for text in image_texts], dtype=np.int64)

    order = candidates[_rank(detections, tenths, image_index, candidates)]
    lengths = (
        _ROW_BYTES
        + image_lengths[image_index[order]]
        + _integer_length(detections.category_ids[order])
        + _tenths_length(tenths[order]).sum(axis=1)
        + _score_length(ten_thousandths[order])
    )
    # The 1 is the opening bracket.
    num_kept = int(np.searchsorted(1 + lengths.cumsum(), max_bytes, side="right"))
    kept = order[:num_kept]

    by_image = kept[np.argsort(image_index[kept], kind="stable")]
    rows = zip(
        (image_texts[i] for i in image_index[by_image].tolist()),
        detections.category_ids[by_image].tolist(),
        *(tenths[by_image] / 10).T.tolist(),
        (ten_thousandths[by_image] / 10000).tolist(),
        strict=True,
    )
    return SubmissionReport(
        num_kept=num_kept,
        num_left_out=len(candidates) - num_kept,
        num_invalid=len(detections) - len(candidates),
        threshold=float(detections.scores[kept[-1]]) if num_kept else None,
        num_bytes=_write_rows(path, rows),
    )


def _round(detections):
    """Boxes [x, y, w, h] in tenths of a pixel, scores in 1/10000, and which rows are valid after rounding."""
    corners = detections.boxes.copy()
    corners[:, 2:] += corners[:, :2]
    valid = detections.is_finite() & (np.abs(corners) < _MAX_COORDINATE).all(axis=1)
    boxes = np.rint(np.where(valid[:, None], corners, 0) * 10).astype(np.int64)
    boxes[:, 2:] -= boxes[:, :2]
    scores = np.rint(np.clip(np.where(valid, detections.scores, 0), -1, 2) * 10000).astype(np.int64)
    valid &= (boxes[:, 2:] > 0).all(axis=1) & (scores >= 1) & (scores <= 10000)
    return boxes, scores, valid


def _rank(detections, tenths, image_index, rows):
    """Order of ``rows`` by falling score; equal scores by image, category and box."""
    keys = (*tenths[rows].T[::-1], detections.category_ids[rows], image_index[rows], -detections.scores[rows])
    return np.lexsort(keys)


def _integer_length(values):
    digits = np.searchsorted(10 ** np.arange(1, 19), np.abs(values), side="right") + 1
    return digits + (values < 0)


def _tenths_length(values):
    """Characters of ``values / 10`` with one decimal."""
    # The sign is counted apart: -0.5 has one, its integer part has not.
    return _integer_length(np.abs(values) // 10) + (values < 0) + 2


def _score_length(ten_thousandths):
    """Characters of scores in 1/10000 with trailing zeros cut, as Python prints 0.5, 0.1234 and 1.0."""
    trailing_zeros = sum((ten_thousandths % 10**k == 0).astype(np.int64) for k in (1, 2, 3))
    return 2 + 4 - trailing_zeros


def _write_rows(path, rows):
    texts = itertools.starmap(_ROW.format, rows)
    num_bytes = 2
    with open_atomic(path) as file:
        file.write(b"[")
        separator = ""
        while chunk := list(itertools.islice(texts, 65536)):
            num_bytes += file.write((separator + ",".join(chunk)).encode())
            separator = ","
        file.write(b"]")
    return num_bytes
