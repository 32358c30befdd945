import json

import numpy as np
import pytest

from parking.evaluation.coco_results import read_predictions, write_coco_results
from parking.structures.detections import Detections


def test_coco_results_round_trip(tmp_path):
    detections = Detections.from_columns([3, 1], [2, 14], [[1.23456, 2, 3, 4], [0, 0.0004, 5, 6]], [0.12345678, 1])
    detections = detections.round()
    path = tmp_path / "results.json"
    write_coco_results(detections, path)
    rows = json.loads(path.read_text())
    assert rows == [
        {"image_id": 3, "category_id": 2, "bbox": [1.235, 2.0, 3.0, 4.0], "score": 0.123457},
        {"image_id": 1, "category_id": 14, "bbox": [0.0, 0.0, 5.0, 6.0], "score": 1.0},
    ]
    again = read_predictions(path)
    np.testing.assert_array_equal(again.image_ids, [3, 1])
    np.testing.assert_array_equal(again.boxes, detections.boxes)
    np.testing.assert_array_equal(again.scores, detections.scores)


@pytest.mark.parametrize("num", [0, 1, 65536, 65537])
def test_every_row_is_written_once(tmp_path, num):
    path = tmp_path / "results.json"
    boxes = np.tile([0.0, 0, 1, 1], (num, 1))
    write_coco_results(Detections(np.arange(num), np.ones(num, int), boxes, np.full(num, 0.5)), path)
    assert [row["image_id"] for row in json.loads(path.read_text())] == list(range(num))


def test_values_that_json_lacks_are_refused(tmp_path):
    detections = Detections.from_columns([1], [1], [[0, 0, np.nan, 1]], [0.5])
    with pytest.raises(ValueError, match="not finite"):
        write_coco_results(detections, tmp_path / "results.json")
    assert not list(tmp_path.iterdir())


def test_columns_must_agree():
    with pytest.raises(ValueError, match="columns"):
        Detections(np.zeros(2, int), np.zeros(2, int), np.zeros((1, 4)), np.zeros(2))
