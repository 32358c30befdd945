import json

import numpy as np
import pytest

from parking.evaluation.coco_results import (
    fit_to_images,
    read_predictions,
    write_coco_results,
)
from parking.structures.detections import Detections
from parking.utils.errors import UserError

ROW = {"image_id": 7, "category_id": 14, "bbox": [0, 10.5, 20, 9.5], "score": 0.5}


def read(tmp_path, content):
    path = tmp_path / "predictions.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_predictions(path)


@pytest.mark.parametrize("ids", [[5, 5, 2**40], ["b", "a", "é"]])
def test_round_trip(tmp_path, ids):
    boxes = [[0, 1, 2, 3], [0.125, 4, 5, 6], [7, 8, 9, 10]]
    written = Detections.from_columns(ids, [1, 14, 2], boxes, [0.5, 0.123456, 1])
    write_coco_results(written, tmp_path / "x.json")
    found = read_predictions(tmp_path / "x.json")
    for name in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))
        assert getattr(found, name).dtype == getattr(written, name).dtype


def test_more_than_coco_results_and_nothing(tmp_path):
    found = read(tmp_path, [{"segmentation": {"size": [4, 4], "counts": "04"}, **ROW, "id": 3}, ROW])
    assert len(found) == 2 and found.boxes.tolist() == [[0, 10.5, 20, 9.5]] * 2
    assert len(read(tmp_path, [])) == 0


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[{", "JSON"),
        ({"images": []}, "an object"),
        (ROW, "an object"),
        ("3", "int"),
        ([ROW, 3], "row 1,"),
        ([ROW, {"image_id": 1}, ROW], "row 1,"),
        ([None, ROW], "row 0,"),
        ([ROW, {"bbox": [1, 2, 3, 4], "image_id": 1, "category_id": 1}], "'score'"),
        ([{**ROW, "bbox": [1, 2, 3]}], "row 0,"),
        ([{**ROW, "bbox": ["1", 2, 3, 4]}], "row 0,"),
        ([{**ROW, "bbox": None}], "row 0,"),
        ([{**ROW, "score": "high"}], "row 0,"),
        ([{**ROW, "category_id": 1.5}], "row 0,"),
        ([ROW, {**ROW, "score": float("nan")}], "row 1,"),
        ([{**ROW, "bbox": [0, 0, float("inf"), 1]}], "row 0,"),
        ([{**ROW, "image_id": 1.5}], "image ids"),
        ([{**ROW, "image_id": None}], "image ids"),
        ([ROW, {**ROW, "image_id": "7"}], "image ids"),
    ],
)
def test_mistakes_are_told(tmp_path, content, named):
    with pytest.raises(UserError, match=r"predictions\.json") as error:
        read(tmp_path, content)
    assert named in str(error.value)


def test_missing(tmp_path):
    with pytest.raises(UserError, match=r"none\.json"):
        read_predictions(tmp_path / "none.json")


def test_boxes_are_cut_at_the_borders(tmp_path):
    boxes = [[-5, -1, 10, 5], [15, 8, 10, 5], [0.1, 0.2, 0.3, 0.7], [30, 30, 5, 5], [-5, 0, 100, 9]]
    found = read(tmp_path, [{**ROW, "image_id": i, "bbox": box} for i, box in zip([1, 1, 1, 1, 2], boxes, strict=True)])
    fitted = fit_to_images(found, {1: (10, 20), 2: (None, None)}, path="p", image_info="i")
    # The fourth box lies outside of its image, and has no size left.
    np.testing.assert_allclose(fitted.boxes, [[0, 0, 5, 4], [15, 8, 5, 2], boxes[2], [20, 10, 0, 0], [0, 0, 95, 9]])
    with pytest.raises(UserError, match=r"'p' .* 2\b.* 'i'"):
        fit_to_images(found, {1: (10, 20)}, path="p", image_info="i")
