"""Write and read files of COCO results; needs neither torch nor detectron2."""

import json
import os
from array import array
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from parking.data.datasets.json_io import read_json_list
from parking.structures.detections import Detections
from parking.utils.errors import UserError
from parking.utils.marks import open_output

#: First bytes of every file by :func:`write_coco_results`, also by older versions, which did not mark their files.
COCO_RESULTS_START = b'[{"image_id":'


def write_coco_results(detections: Detections, path: str | os.PathLike, *, option: str = "--output") -> None:
    """Write a file of COCO results that holds ``detections`` in their order; the file appears whole or not at all.

    The file is marked as one that this product wrote, so that a later run may replace it.

    Args:
        option: the option or config key by which the user chose ``path``.

    Raises:
        ValueError: a coordinate or score is not finite, which JSON cannot express.
        UserError: the file would replace something that this product did not write.
    """
    if not detections.is_finite().all():
        raise ValueError(f"{path}: detections with coordinates or scores that are not finite cannot be written")
    chunk = 65536
    with open_output(path, option=option) as file:
        file.write(b"[")
        for start in range(0, len(detections), chunk):
            text = json.dumps(detections[start : start + chunk].to_coco_results(), separators=(",", ":"))
            file.write(b",\n" if start else b"")
            file.write(text[1:-1].encode())
        file.write(b"]")


def read_predictions(path: str | os.PathLike) -> Detections:
    """Read a ``predictions.json`` or a submission; keys that COCO results do not have are ignored.

    Raises:
        UserError: the file cannot be read, is not a JSON list of COCO results, has a number that is not finite, or has
            both numbers and texts as image ids.
    """
    image_ids: list[int | str] = []
    category_ids, boxes, scores = array("q"), array("d"), array("d")
    taken: dict = {}

    # The parser calls this for each object, so that a million dicts, which take a gigabyte, are never kept. A row is
    # replaced by ``taken``; an object that is not a row, such as the run-length code of a row's mask, stays as it is.
    def take_row(row: dict) -> dict:
        if "bbox" not in row:
            return row
        try:
            x, y, w, h = row["bbox"]
            boxes.extend((x, y, w, h))
            category_ids.append(row["category_id"])
            scores.append(row["score"])
            image_ids.append(row["image_id"])
        except KeyError as e:
            raise UserError(f"'{path}': row {len(image_ids)}, counted from 0, has no {e}.") from e
        except (TypeError, ValueError, OverflowError) as e:
            raise UserError(f"'{path}': row {len(image_ids)}, counted from 0, cannot be used: {e}.") from e
        return taken

    content = read_json_list(path, object_hook=take_row)
    number = next((i for i, row in enumerate(content) if row is not taken), len(content))
    if number < len(content) or len(image_ids) != len(content):
        raise UserError(f"'{path}': row {number}, counted from 0, is not an object with a 'bbox'.")
    if set(map(type, image_ids)) not in ({int}, {str}, set()):
        raise UserError(f"'{path}': the image ids must be all whole numbers or all texts.")
    detections = Detections.from_columns(image_ids, category_ids, boxes, scores)
    finite = detections.is_finite()
    if not finite.all():
        number = int(np.flatnonzero(~finite)[0])
        raise UserError(f"'{path}': row {number}, counted from 0, has a bbox or score that is NaN or infinite.")
    return detections


def fit_to_images(
    detections: Detections, sizes: Mapping[int | str, tuple[int | None, int | None]], *, path: str, image_info: str
) -> Detections:
    """Return the detections with their boxes clipped to the images.

    Args:
        sizes: (height, width) in pixels by image id, None if unknown.
        path, image_info: names of the files that hold the boxes and the sizes, for the error.

    Raises:
        UserError: a box is on an image that is not in ``sizes``.
    """
    image_ids, index = np.unique(detections.image_ids, return_inverse=True)
    unknown = [image_id for image_id in image_ids.tolist() if image_id not in sizes]
    if unknown:
        raise UserError(f"'{path}' has boxes on the image {unknown[0]!r}, which '{image_info}' does not list.")
    sides = [[np.inf if side is None else side for side in sizes[image_id]] for image_id in image_ids.tolist()]
    limits = np.array(sides, dtype=np.float64).reshape(-1, 2)[:, ::-1]
    lows = np.clip(detections.boxes[:, :2], 0, limits[index])
    highs = np.clip(detections.boxes[:, :2] + detections.boxes[:, 2:], 0, limits[index])
    return replace(detections, boxes=np.concatenate([lows, highs - lows], axis=1))
