"""Describe what is in a data set, as plain objects from which a check makes its report and pictures."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np


class SplitSummary(NamedTuple):
    """One way to divide the images into a training and a validation side.

    Attributes:
        split: a value of DATASETS.SPLIT.
        num_images: numbers of images on the training and on the validation side.
        num_boxes: for each class, numbers of its boxes on the training and on the validation side.
        num_leaking: number of images on either side with a near neighbour on the other side.
        note: why the split is impossible, with all other fields empty; "" if it is possible.
    """

    split: str
    num_images: tuple[int, int]
    num_boxes: list[tuple[int, int]]
    num_leaking: int
    note: str = ""


@dataclass(frozen=True)
class Side:
    """Facts about the images on one side of a split, such as the training side, or in one json.

    Attributes:
        name: such as "training".
        file_names: as in the json.
        class_counts: (C,) boxes of each class.
        boxes_per_image: (N,).
        conditions: how many of the images have each value of each condition, such as {"weather": {"rain": 3}}.
    """

    name: str
    file_names: list[str]
    class_counts: np.ndarray
    boxes_per_image: np.ndarray
    conditions: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Overview:
    """The classes, splits and boxes in the labelled part of the data.

    Attributes:
        class_names: names of all classes.
        sides: empty if no json could be read.
        splits: what each way to split the challenge's data would give; empty for other data.
        classes: (A,) indices into ``class_names``.
        boxes: (A, 4) XYWH_ABS.
        image_files: (A,) paths of the boxes' images.
        exif_orientations: "apply" or "ignore" by image path, as in ``Columns``.
    """

    class_names: list[str]
    sides: list[Side]
    splits: list[SplitSummary]
    classes: np.ndarray
    boxes: np.ndarray
    image_files: list[str]
    exif_orientations: dict[str, str]


def keep_frequent(overview: Overview, limit: int) -> Overview:
    """Return ``overview`` with only the ``limit`` classes that have the most boxes, in unchanged order, for charts."""
    if len(overview.class_names) <= limit:
        return overview
    totals = np.bincount(overview.classes, minlength=len(overview.class_names))
    shown = np.sort(np.argsort(-totals, kind="stable")[:limit])
    new_index = np.full(len(totals), -1)
    new_index[shown] = np.arange(limit)
    kept = new_index[overview.classes] >= 0
    return replace(
        overview,
        class_names=[overview.class_names[c] for c in shown],
        sides=[replace(side, class_counts=side.class_counts[shown]) for side in overview.sides],
        classes=new_index[overview.classes[kept]],
        boxes=overview.boxes[kept],
        image_files=[overview.image_files[i] for i in np.flatnonzero(kept)],
    )
