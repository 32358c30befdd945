"""Check the ``area`` of annotations, by which COCO calls an object small or large; needs neither torch nor detectron2.

The ``area`` of an annotation is the area of its mask or, without a mask, of its box. Many converters write wrong areas,
and COCO's evaluation leaves out boxes whose area is negative, not a number or huge; so every tool uses this module.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# A side of a box may be this many pixels shorter than that of the mask, because the box may be rounded.
_ROUNDING = 1.0
# An area of one pixel or less is impossible if the box has four pixels or more.
_MIN_AREA, _MIN_BOX_AREA = 1.0, 4.0
# The same area for all boxes is impossible if at least _MIN_SAME boxes state it, and their products width x height
# differ by more than _MIN_DIFFERENCE times the largest product.
_MIN_SAME, _MIN_DIFFERENCE = 3, 0.01


def find_impossible_areas(values: Sequence[Any], boxes: np.ndarray) -> tuple[np.ndarray, dict[int, str]]:
    """Find the impossible areas among those that annotations state.

    Args:
        values: the areas of A annotations as in a json, of any type; None where the json states none.
        boxes: (A, 4) float64, XYWH, as they were annotated; numbers may be infinite or NaN.

    Returns:
        (A,) float64 areas, NaN where width x height is to be used instead; and index -> why the area is impossible, in
        words that continue a sentence after its value.
    """
    areas, problems = _to_numbers(values)
    sides = boxes[:, 2:]
    with np.errstate(invalid="ignore", over="ignore"):
        box_areas = sides.prod(axis=1)
        checks = [
            (areas <= 0, "is not above 0"),
            (areas > (sides + _ROUNDING).prod(axis=1), "is larger than width x height of the box"),
            ((areas <= _MIN_AREA) & (box_areas >= _MIN_BOX_AREA), "is a pixel or less, although the box is larger"),
        ]
    for mask, why in checks:
        problems.update((i, why) for i in np.flatnonzero(mask & ~np.isnan(areas)).tolist() if i not in problems)
    given = ~np.isnan(areas) & np.isfinite(box_areas)
    if given.sum() >= _MIN_SAME and np.ptp(areas[given]) == 0:
        least, most = box_areas[given].min(), box_areas[given].max()
        if most - least > _MIN_DIFFERENCE * most:
            why = "is the same for all boxes, although they differ"
            problems.update((i, why) for i in np.flatnonzero(given).tolist() if i not in problems)
    areas[list(problems)] = math.nan
    return areas, problems


def stand_in_areas(areas: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return (A,) areas to evaluate with: the lesser of ``areas`` and width x height; width x height in place of NaN.

    Args:
        areas: (A,) from :func:`find_impossible_areas`.
        boxes: (A, 4) XYWH, clipped to their images.
    """
    return np.fmin(areas, boxes[:, 2:].prod(axis=1))


def _to_numbers(values: Sequence[Any]) -> tuple[np.ndarray, dict[int, str]]:
    """Return (A,) float64 with NaN for unusable values, and {index: problem} for unusable values other than None."""
    is_number = [type(value) in (int, float) and abs(value) < 1e300 for value in values]
    areas = np.array([value if ok else math.nan for value, ok in zip(values, is_number, strict=True)], dtype=np.float64)
    wrong = [i for i, value in enumerate(values) if value is not None and not is_number[i]]
    return areas, dict.fromkeys(wrong, "is not a finite number")
