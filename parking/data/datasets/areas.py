"""The field ``area`` of annotations, by which COCO calls an object small or large; needs neither torch nor detectron2.

It is the area of a mask, and where there is none, that of the box. Converters write it wrong in many ways, and COCO's
evaluation leaves boxes out whose area is negative, not a number or huge, so every tool has areas from here.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# A box may have been rounded to whole pixels, on either side, while its mask was not.
_ROUNDING = 1.0
# A mask of one pixel or less has a box of about one, whatever the rounding.
_MIN_AREA, _MIN_BOX_AREA = 1.0, 4.0
# Areas that are all the same, of boxes that are not: at least this many, whose areas differ by more than this part.
_MIN_SAME, _MIN_DIFFERENCE = 3, 0.01

#: Why an area is impossible, in words that follow its value.
NOT_A_NUMBER = "is not a finite number"
NOT_POSITIVE = "is not above 0"
TOO_LARGE = "is larger than width x height of the box"
TOO_SMALL = "is a pixel or less, although the box is larger"
ALL_THE_SAME = "is that of all boxes, although they differ"


def find_impossible_areas(values: Sequence[Any], boxes: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Areas as they may be used, and which cannot be.

    Args:
        values: A areas as in a json, of any type; None where there is none.
        boxes: (A, 4) float64, XYWH, as they were annotated; may hold what is not finite.

    Returns:
        (A,) float64, NaN where width x height shall stand in; and by index, why an area is impossible.
    """
    areas, problems = _to_numbers(values)
    sides = boxes[:, 2:]
    with np.errstate(invalid="ignore", over="ignore"):
        box_areas = sides.prod(axis=1)
        checks = [
            (areas <= 0, NOT_POSITIVE),
            (areas > (sides + _ROUNDING).prod(axis=1), TOO_LARGE),
            ((areas <= _MIN_AREA) & (box_areas >= _MIN_BOX_AREA), TOO_SMALL),
        ]
    for mask, why in checks:
        problems.update((i, why) for i in np.flatnonzero(mask & ~np.isnan(areas)).tolist() if i not in problems)
    given = ~np.isnan(areas) & np.isfinite(box_areas)
    if given.sum() >= _MIN_SAME and np.ptp(areas[given]) == 0:
        least, most = box_areas[given].min(), box_areas[given].max()
        if most - least > _MIN_DIFFERENCE * most:
            problems.update((i, ALL_THE_SAME) for i in np.flatnonzero(given).tolist() if i not in problems)
    areas[list(problems)] = math.nan
    return areas, problems


def stand_in_areas(areas: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(A,) areas to evaluate with: those that are there, at most width x height, which stands in for NaN.

    Args:
        areas: (A,) from :func:`find_impossible_areas`.
        boxes: (A, 4) XYWH; clipped to their images, which no mask reaches out of.
    """
    return np.fmin(areas, boxes[:, 2:].prod(axis=1))


def _to_numbers(values: Sequence[Any]) -> tuple[np.ndarray, dict[int, str]]:
    """(A,) float64, NaN where there is no number; and what is wrong by index."""
    try:
        if {int, float}.issuperset(map(type, values)):
            areas = np.array(values, dtype=np.float64)
            if np.isfinite(areas).all():
                return areas, {}
    except OverflowError:
        pass
    is_number = [type(value) in (int, float) and abs(value) < 1e300 for value in values]
    areas = np.array([value if ok else math.nan for value, ok in zip(values, is_number, strict=True)], dtype=np.float64)
    wrong = [i for i, value in enumerate(values) if value is not None and not is_number[i]]
    return areas, dict.fromkeys(wrong, NOT_A_NUMBER)
