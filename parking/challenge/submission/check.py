"""Check whether the challenge would accept a submission file."""

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from parking.challenge.classes import CLASS_NAMES
from parking.data.datasets.json_io import (
    is_too_large_id,
    parse_json,
    read_image_records,
    read_json_list,
    read_json_object,
    shorten,
)
from parking.utils.errors import UserError
from parking.utils.files import UnusableFileError

# A box may reach this many pixels beyond the image, because the sum of a corner and a side is rounded.
_TOLERANCE = 1e-6
_LARGEST_NUMBER = 1e12


class Problem(NamedTuple):
    """One kind of mistake in a submission: a description, a count, and the first row that has it (rows start at 0)."""

    title: str
    count: int
    first_row: int | None


class SubmissionCheck(NamedTuple):
    """The result of :func:`check_submission`; an acceptable file has no ``problems``."""

    num_bytes: int
    num_boxes: int
    num_images: int
    problems: list[Problem]


def check_submission(
    path: str | os.PathLike,
    *,
    image_info: str | None = None,
    sample: str | None = None,
    max_per_image: int = 50,
    max_bytes: int = 20_000_000,
) -> SubmissionCheck:
    """Check a submission: a JSON list of {"image_id", "category_id", "bbox" [x, y, w, h] in pixels, "score", ...}.

    Args:
        path: the submission.
        image_info: ``Test_Images_Information.json``, which must list all image ids; boxes must lie inside the image
            sizes that it states.
        sample: ``sample_submission.json``; every row must have exactly the keys of its first row.
        max_per_image: largest number of boxes of an image.
        max_bytes: largest size of the file.

    Raises:
        UserError: a file cannot be read, or the submission is not a JSON list in UTF-8.
    """
    num_bytes = os.path.getsize(path) if os.path.isfile(path) else 0
    rows, has_mark = parse_json(path)
    if not isinstance(rows, list):
        raise UnusableFileError(path, f"must hold a JSON list of boxes, not {shorten(rows)}")
    problems = []
    if has_mark:  # strict JSON readers refuse a file with a byte order mark
        problems.append(Problem("byte order mark at the beginning; save it as UTF-8 without one", 1, None))
    sizes = None
    if image_info is not None:
        records = read_image_records(read_json_object(image_info), image_info)
        sizes = {record["image_id"]: (record.get("height"), record.get("width")) for record in records}
    keys = _read_keys(sample) if sample is not None else None

    counts, first_rows, per_image = Counter(), {}, Counter()
    for i, row in enumerate(rows):
        for title in _find_problems(row, sizes, keys):
            counts[title] += 1
            first_rows.setdefault(title, i)
        if isinstance(row, dict) and _is_id(row.get("image_id")):
            per_image[row["image_id"]] += 1
    problems += [Problem(title, count, first_rows[title]) for title, count in counts.items()]
    crowded = sum(count > max_per_image for count in per_image.values())
    if crowded:
        problems.append(Problem(f"images with more than {max_per_image} boxes", crowded, None))
    if num_bytes > max_bytes:
        problems.append(Problem(f"bytes above the limit of {max_bytes:,}", num_bytes - max_bytes, None))
    return SubmissionCheck(num_bytes, len(rows), len(per_image), problems)


def _find_problems(row, sizes: Mapping | None, keys: set[str] | None) -> list[str]:
    if not isinstance(row, dict):
        return ["rows that are not JSON objects"]
    found = []
    others = {key: value for key, value in row.items() if key not in ("image_id", "category_id", "score", "bbox")}
    if others and not _is_strict_json(others):
        found.append(f"rows with NaN, an infinite number or one that is too large in {', '.join(map(shorten, others))}")
    if keys is not None and row.keys() != keys:
        found.append(f"rows whose keys are not the sample's ({', '.join(sorted(keys))})")
    image_id = row.get("image_id")
    size = (None, None)
    if not _is_id(image_id):
        found.append("rows whose image_id is neither a whole number of 64 bits nor a text")
    elif sizes is not None:
        size = sizes.get(image_id, size)
        if image_id not in sizes:
            found.append("rows with an image_id that the image list does not have")
    category_id = row.get("category_id")
    if isinstance(category_id, bool) or not isinstance(category_id, int) or not 1 <= category_id <= len(CLASS_NAMES):
        found.append(f"rows whose category_id is not a whole number of 1 to {len(CLASS_NAMES)}")
    score = row.get("score")
    if not _is_finite_number(score) or not 0 < score <= 1:
        found.append("rows whose score is not above 0 and at most 1")
    box = row.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_finite_number, box)):
        found.append("rows whose bbox is not four finite numbers")
    elif not (box[2] > 0 and box[3] > 0):
        found.append("boxes without width or height")
    elif not _is_inside(box, *size):
        found.append("boxes that are not inside their image")
    return found


def _is_id(value) -> bool:
    if isinstance(value, str):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and not is_too_large_id(value)


def _is_strict_json(values: Mapping) -> bool:
    try:
        json.dumps(values, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _is_finite_number(value) -> bool:
    # Compare without a conversion to float, because an int may be too large for a float.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and -_LARGEST_NUMBER < value < _LARGEST_NUMBER


def _is_inside(box: list[float], height: int | None, width: int | None) -> bool:
    x, y, w, h = box
    low = -_TOLERANCE
    return (
        min(x, y) >= low
        and (width is None or x + w <= width + _TOLERANCE)
        and (height is None or y + h <= height + _TOLERANCE)
    )


def _read_keys(sample: str) -> set[str]:
    rows = read_json_list(sample)
    if not rows or not isinstance(rows[0], dict):
        raise UserError(f"The sample '{sample}' holds no boxes whose keys could be compared.")
    return set(rows[0])
