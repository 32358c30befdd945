"""Detections of many images as numpy columns, and COCO's result format.

COCO results are a JSON list with one object per box: ``image_id``, ``category_id`` (as in the data set's json),
``bbox`` [x, y, w, h] in pixels of the original image and ``score``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

# Decimals of boxes and scores in COCO results; the float32 values of a model are hardly more exact than this.
_BOX_DECIMALS, _SCORE_DECIMALS = 3, 6
_MAX_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Detections:
    """A table of N detections, with one array for each column.

    Attributes:
        image_ids: (N,) from :func:`make_id_column`: integers, or strings if the data set has such ids.
        category_ids: (N,) the data set's own ids, also from :func:`make_id_column`.
        boxes: (N, 4) float64, [x, y, w, h] (XYWH_ABS) in pixels of the original image.
        scores: (N,) float64.
    """

    image_ids: np.ndarray
    category_ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def __post_init__(self):
        num = len(self.scores)
        shapes = (self.image_ids.shape, self.category_ids.shape, self.boxes.shape, self.scores.shape)
        if shapes != ((num,), (num,), (num, 4), (num,)):
            raise ValueError(f"the columns of detections must be (N,), (N,), (N, 4) and (N,), not {shapes}")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows) -> "Detections":
        """Select detections by a mask, a slice or indices."""
        return Detections(self.image_ids[rows], self.category_ids[rows], self.boxes[rows], self.scores[rows])

    @classmethod
    def from_columns(cls, image_ids: Sequence, category_ids: Sequence, boxes: Sequence, scores: Sequence):
        """Make detections from sequences of any kind, which may be empty."""
        num = len(scores)
        return cls(
            make_id_column(image_ids),
            make_id_column(category_ids),
            np.asarray(boxes, dtype=np.float64).reshape(num, 4),
            np.asarray(scores, dtype=np.float64),
        )

    def is_finite(self) -> np.ndarray:
        """Return (N,) bool: whether all coordinates and the score of a detection are finite."""
        return np.isfinite(self.boxes).all(axis=1) & np.isfinite(self.scores)

    @property
    def corners(self) -> np.ndarray:
        """The boxes as (N, 4) float64 XYXY_ABS."""
        return np.concatenate([self.boxes[:, :2], self.boxes[:, :2] + self.boxes[:, 2:]], axis=1)

    def in_order(self, image_ids: Sequence) -> "Detections":
        """Sort the detections by the order of ``image_ids``; those of one image keep their order.

        Raises:
            ValueError: a detection is in an image that is not among ``image_ids``.
        """
        places = {image_id: i for i, image_id in enumerate(image_ids)}
        own = self.image_ids.tolist()
        unknown = next((i for i in own if i not in places), None)
        if unknown is not None:
            raise ValueError(f"there is a prediction for image {unknown!r}, which is not among the images")
        return self[np.argsort([places[i] for i in own], kind="stable")]

    def split(self, image_ids: Sequence) -> "Iterator[Detections]":
        """Return an iterator that yields, for each of ``image_ids`` in this order, the detections in that image."""
        rows: dict[int | str, list[int]] = {image_id: [] for image_id in image_ids}
        for row, image_id in enumerate(self.image_ids.tolist()):
            if image_id in rows:
                rows[image_id].append(row)
        return (self[np.array(rows[image_id], dtype=np.int64)] for image_id in image_ids)

    @classmethod
    def concatenate(cls, parts: Sequence["Detections"]) -> "Detections":
        """Join one or more tables row by row, in the given order."""
        # Ignore the id columns of empty tables, because their type says nothing about the ids of the other tables. If
        # int64 and object columns are left, numpy makes an object column.
        columns = [[getattr(part, name) for part in parts if len(part)] for name in ("image_ids", "category_ids")]
        ids = (np.concatenate(column or [np.zeros(0, np.int64)]) for column in columns)
        rest = ([getattr(part, name) for part in parts] for name in ("boxes", "scores"))
        return cls(*ids, *map(np.concatenate, rest))

    def round(self) -> "Detections":
        """Round boxes to 0.001 pixels and scores to 6 decimals; call this as soon as a model's output is in a table."""
        boxes, scores = self.boxes.round(_BOX_DECIMALS), self.scores.round(_SCORE_DECIMALS)
        return Detections(self.image_ids, self.category_ids, boxes, scores)

    def to_coco_results(self) -> list[dict]:
        """Convert to a list of COCO results, without rounding."""
        columns = (self.image_ids.tolist(), self.category_ids.tolist(), self.boxes.tolist(), self.scores.tolist())
        keys = ("image_id", "category_id", "bbox", "score")
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]


def make_id_column(ids: Sequence) -> np.ndarray:
    """Make an (N,) column of ids without changing any: int64 if all are integers that fit, else Python objects.

    ``tolist()`` of the column returns exactly ``ids``. numpy's own choice of type would turn integers above 2^63 into
    floats, turn integers beside strings into strings, and cut null characters off the end of strings.
    """
    if isinstance(ids, np.ndarray) and ids.dtype.kind in "iuf":
        if ids.dtype.kind == "u" and ids.size and ids.max() > _MAX_INT64:
            return ids.astype(object)
        return ids.astype(np.int64)
    ids = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if all(isinstance(i, int | np.integer) and -_MAX_INT64 <= i <= _MAX_INT64 for i in ids):
        return np.array(ids, dtype=np.int64)
    column = np.empty(len(ids), dtype=object)
    column[:] = ids
    return column
