import json
import logging
import math

import numpy as np
import pytest

from parking.evaluation.detections import Detections
from parking.evaluation.ground_truth import GroundTruth, convert_annotations
from parking.utils.errors import UserError

IMAGES = [
    {"image_id": 1, "relative_path": "day/a.png"},
    {"image_id": 2, "relative_path": "day/b.png"},
    {"image_id": 3, "relative_path": "c.png"},
]
CLASSES = {"car": 30, "dog": 40}
# Under other ids than ours: image 7 is our 1, 8 our 3, 9 none; categories 1 and 2 are our 40 and 30, 3 none.
CONTENT = {
    "images": [{"id": 7, "file_name": "a.png"}, {"id": 8, "file_name": "./c.png"}, {"id": 9, "file_name": "x.png"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "car"}, {"id": 3, "name": "cow"}],
    "annotations": [
        {"image_id": 7, "category_id": 1, "bbox": [0, 0, 10, 10]},
        {"image_id": 7, "category_id": 2, "bbox": [20, 20, 10, 10]},
        {"image_id": 7, "category_id": 2, "bbox": [0, 0, 90, 90], "iscrowd": 1},
        {"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4]},
        {"image_id": 9, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ],
}


@pytest.fixture
def read(tmp_path):
    def read(**changes):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps({**CONTENT, **changes}))
        return GroundTruth(str(path), IMAGES, CLASSES)

    return read


def found(*rows):
    """Rows of image id, category id, x, y, w, h, score."""
    table = np.array(rows, dtype=float).reshape(-1, 7)
    return Detections.from_columns(table[:, 0].astype(int), table[:, 1], table[:, 2:6], table[:, 6])


def test_images_and_categories_are_found_by_name(read, caplog):
    with caplog.at_level(logging.WARNING):
        truth = read()
    assert "the model has no class cow; their boxes are left out" in caplog.text
    assert len(truth) == 2 and [i in truth for i in (1, 2, 3)] == [True, False, True]
    found = truth.boxes_of(1)
    assert found.boxes.tolist() == [[0, 0, 10, 10], [20, 20, 10, 10]] and found.category_ids.tolist() == [40, 30]
    assert len(truth.boxes_of(2)) == len(truth.boxes_of(3)) == 0


def test_a_picture_of_the_same_name_in_another_folder_is_another_one(read):
    records = [{"id": 7, "file_name": "night/a.png"}, {"id": 8, "file_name": "/DATA/images/day\\B.png"}]
    truth = read(images=records, annotations=[])
    assert [i in truth for i in (1, 2, 3)] == [False, True, False]


def test_scores_count_annotated_images_only(read):
    truth = read()
    right = [(1, 40, 0, 0, 10, 10, 0.9), (1, 30, 20, 20, 10, 10, 0.8)]
    assert truth.score(found(*right)) == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})
    # On image 2 nothing is known; on image 3 there is no dog, so one that scores higher halves the precision of dogs.
    assert truth.score(found(*right, (2, 40, 0, 0, 5, 5, 0.95)))["AP"] == pytest.approx(100)
    assert truth.score(found(*right, (3, 40, 0, 0, 5, 5, 0.95)))["AP"] == pytest.approx(75)
    # 6 x 10 of 10 x 10: IoU 0.6 is enough for 0.5, 0.55 and 0.6, three of ten thresholds.
    scores = truth.score(found(right[0], (1, 30, 20, 20, 6, 10, 0.8)))
    assert scores == pytest.approx({"AP": 65, "AP50": 100, "AP75": 50})
    assert truth.score(found())["AP"] == truth.score(found((2, 40, 0, 0, 5, 5, 0.9)))["AP"] == 0
    assert math.isnan(read(annotations=[]).score(found(*right))["AP75"])


def test_without_names_the_ids_of_categories_count(read):
    rows = [{"image_id": 7, "category_id": 30, "bbox": [0, 0, 10, 10]}]
    assert read(categories=[], annotations=rows).boxes_of(1).category_ids.tolist() == [30]


def test_the_same_path_comes_before_the_end_of_one(tmp_path):
    images = [{"image_id": i, "relative_path": name} for i, name in enumerate(("a.png", "day/a.png", "night/a.png"))]
    path = tmp_path / "truth.json"

    def matched(*names):
        records = [{"id": 10 + i, "file_name": name} for i, name in enumerate(names)]
        path.write_text(json.dumps({"images": records, "annotations": []}))
        truth = GroundTruth(str(path), images, CLASSES)
        return [i for i in range(3) if i in truth]

    assert matched("a.png") == [0] and matched("a.png", "day/a.png") == [0, 1]
    assert matched("x/night/a.png") == [2]
    images = images[1:]
    with pytest.raises(UserError, match=r"'a\.png' may be 'day/a\.png' or 'night/a\.png'; name it with its folder"):
        matched("a.png")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"images": [{"id": 1, "file_name": "z.png"}]}, "lists none of the images"),
        ({"images": [{"id": 1, "file_name": "day/a.png"}, {"id": 2, "file_name": "x/day/a.png"}]}, "images twice"),
        ({"categories": [{"id": 1}]}, "needs an 'id' and a 'name'"),
        ({"categories": [{"id": 1, "name": ["dog"]}]}, r"category 1 with the name \['dog'\]"),
        ({"categories": 5}, "categories"),
        ({"annotations": [{"image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1]}]}, "category_id of 1 to 3"),
        ({"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1]}]}, r"annotations\[0\] cannot be used"),
    ],
)
def test_what_cannot_be_used_is_told(read, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        read(**changes)


@pytest.mark.parametrize("area", [-1000.0, 0, 1.0, 1e11, "1000", float("nan"), None, [1]])
def test_an_impossible_area_is_that_of_the_box(area):
    entries = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 20], "area": area}]
    (converted,) = convert_annotations(entries, "a.json", image_ids={1: 1}, category_ids={1: 1})
    assert converted["area"] == 1000


def test_the_area_of_a_mask_stays():
    entries = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 20], "area": 600.5}]
    (converted,) = convert_annotations(entries, "a.json", image_ids={1: 1}, category_ids={1: 1})
    assert converted["area"] == 600.5
