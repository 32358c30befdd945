import json
import logging
import math

import cv2
import numpy as np
import pytest

from parking.evaluation.annotations_file import AnnotationsFile
from parking.evaluation.scorer import CLASS_METRICS
from parking.structures.detections import Detections
from parking.utils.errors import UserError

IMAGES = [
    {"image_id": i, "relative_path": name, "file_name": f"/nowhere/{name}"}
    for i, name in enumerate(("day/a.png", "day/b.png", "c.png"), start=1)
]
CLASSES = {"car": 30, "dog": 40}
# The ids differ from IMAGES and CLASSES: image 7 is 1 there, 8 is 3, 9 is missing; categories 1 and 2 are 40 and 30.
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
    def read(*, images_given=IMAGES, policy="strict", **changes):
        path = tmp_path / "truth.json"
        path.write_text(json.dumps({**CONTENT, **changes}))
        return AnnotationsFile(str(path), images_given, CLASSES, policy=policy)

    return read


def found(*rows):
    """Rows of image id, category id, x, y, w, h, score."""
    table = np.array(rows, dtype=float).reshape(-1, 7)
    return Detections.from_columns(table[:, 0].astype(int), table[:, 1], table[:, 2:6], table[:, 6])


def score(truth, detections, **kwargs):
    scores = truth.score(detections, **kwargs).summarize()
    return {name: scores[name] for name in CLASS_METRICS}


def test_images_and_categories_are_found_by_name(read, caplog):
    with caplog.at_level(logging.WARNING):
        truth = read()
    assert "cow" in caplog.text and "dog" not in caplog.text
    assert len(truth) == 2 and [i in truth for i in (1, 2, 3)] == [True, False, True]
    found = truth.boxes_of(1)
    assert found.boxes.tolist() == [[0, 0, 10, 10], [20, 20, 10, 10]] and found.category_ids.tolist() == [40, 30]
    assert len(truth.boxes_of(2)) == len(truth.boxes_of(3)) == 0


def test_a_picture_of_the_same_name_in_another_folder_is_another_one(read):
    records = [{"id": 7, "file_name": "night/a.png"}, {"id": 8, "file_name": "/DATA/images/day\\B.png"}]
    truth = read(images=records, annotations=[])
    assert [i in truth for i in (1, 2, 3)] == [False, True, False]


def test_scores_count_annotated_images_only(read):
    truth = read(annotations=[entry for entry in CONTENT["annotations"] if entry["category_id"] != 3])
    right = [(1, 40, 0, 0, 10, 10, 0.9), (1, 30, 20, 20, 10, 10, 0.8)]
    assert score(truth, found(*right)) == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})
    # On image 2 nothing is known; on image 3 there is no dog, so one that scores higher halves the precision of dogs.
    assert score(truth, found(*right, (2, 40, 0, 0, 5, 5, 0.95)))["AP"] == pytest.approx(100)
    assert score(truth, found(*right, (3, 40, 0, 0, 5, 5, 0.95)))["AP"] == pytest.approx(75)
    # 6 x 10 of 10 x 10: IoU 0.6 is enough for 0.5, 0.55 and 0.6, three of ten thresholds.
    scores = score(truth, found(right[0], (1, 30, 20, 20, 6, 10, 0.8)))
    assert scores == pytest.approx({"AP": 65, "AP50": 100, "AP75": 50})
    assert score(truth, found())["AP"] == score(truth, found((2, 40, 0, 0, 5, 5, 0.9)))["AP"] == 0
    assert math.isnan(score(read(annotations=[]), found(*right))["AP75"])


def test_without_names_the_ids_of_categories_count(read):
    rows = [{"image_id": 7, "category_id": 30, "bbox": [0, 0, 10, 10]}]
    assert read(categories=[], annotations=rows).boxes_of(1).category_ids.tolist() == [30]


def test_the_same_path_comes_before_the_end_of_one(tmp_path):
    names = ("a.png", "day/a.png", "night/a.png")
    images = [{"image_id": i, "relative_path": name, "file_name": f"/nowhere/{name}"} for i, name in enumerate(names)]
    path = tmp_path / "truth.json"

    def matched(*names):
        records = [{"id": 10 + i, "file_name": name} for i, name in enumerate(names)]
        path.write_text(json.dumps({"images": records, "annotations": []}))
        truth = AnnotationsFile(str(path), images, CLASSES)
        return [i for i in range(3) if i in truth]

    assert matched("a.png") == [0] and matched("a.png", "day/a.png") == [0, 1]
    assert matched("x/night/a.png") == [2]
    images = images[1:]
    with pytest.raises(UserError, match=r"'a\.png'.*'day/a\.png'.*'night/a\.png'"):
        matched("a.png")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": [{"id": 1, "file_name": "z.png"}]}, r"truth\.json' names none"),
        ({"images": [{"id": 1, "file_name": "day/a.png"}, {"id": 2, "file_name": "x/day/a.png"}]}, "twice"),
        ({"categories": [{"id": 1}]}, "'id' .*'name'"),
        ({"categories": [{"id": 1, "name": ["dog"]}]}, r"\['dog'\]"),
        ({"categories": 5}, "categories"),
        (
            {"annotations": [{"image_id": 7, "category_id": 4, "bbox": [0, 0, 1, 1]}]},
            "category id 4",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1]}]},
            r"annotations\[0\].* \[0, 0, 1\]",
        ),
    ],
)
def test_what_cannot_be_used_is_told(read, changes, named):
    with pytest.raises(UserError, match=named):
        read(**changes)


# 10 x 20 pixels of which 10 x 10 are in the picture, whose size only its file says.
PARTLY_OUTSIDE = {"image_id": 7, "category_id": 1, "bbox": [0, 90, 10, 20]}


def test_boxes_end_at_the_border_of_the_picture(read, tmp_path):
    images = [{**IMAGES[0], "file_name": str(tmp_path / "a.png")}, *IMAGES[1:]]
    cv2.imwrite(images[0]["file_name"], np.zeros((100, 80, 3), np.uint8))
    right = found((1, 40, 0, 90, 10, 10, 0.9))
    assert score(read(images_given=images, annotations=[PARTLY_OUTSIDE]), right)["AP"] == pytest.approx(100)
    sized = [{"id": 7, "file_name": "a.png", "width": 80, "height": 100}]
    truth = read(images=sized, annotations=[PARTLY_OUTSIDE])
    assert score(truth, right)["AP"] == pytest.approx(100) and truth.boxes_of(1).boxes.tolist() == [[0, 90, 10, 10]]
    assert score(read(annotations=[PARTLY_OUTSIDE]), right)["AP"] == pytest.approx(10), "IoU 0.5: no size is known"


def test_the_policy_of_data_sets_decides(read, caplog):
    annotations = [*CONTENT["annotations"][:2], {"image_id": 7, "category_id": 1, "bbox": [50, 50, -5, 5]}]
    with pytest.raises(UserError, match=r"annotations\[2\] .*DATASETS.POLICY repair"):
        read(annotations=annotations)
    with caplog.at_level(logging.WARNING):
        truth = read(annotations=annotations, policy="repair")
    assert "zero or negative size" in caplog.text
    assert score(truth, found((1, 40, 0, 0, 10, 10, 0.9), (1, 30, 20, 20, 10, 10, 0.8)))["AP"] == pytest.approx(100)


def test_a_class_that_the_model_lacks_is_not_found(read):
    right = [(1, 40, 0, 0, 10, 10, 0.9), (1, 30, 20, 20, 10, 10, 0.8)]
    assert score(read(), found(*right))["AP"] == pytest.approx(200 / 3)


def test_an_image_that_is_left_out_is_not_missed(read):
    annotations = [CONTENT["annotations"][0], {"image_id": 8, "category_id": 1, "bbox": [1, 2, 30, 40]}]
    truth = read(annotations=annotations)
    right = found((1, 40, 0, 0, 10, 10, 0.9), (3, 40, 50, 50, 10, 10, 0.95))
    assert score(truth, right)["AP"] < 50 and score(truth, right, left_out=[3])["AP"] == pytest.approx(100)
    assert math.isnan(score(truth, right, left_out=[1, 3])["AP"])


@pytest.mark.parametrize("first", [2**64 - 4, 2**63, -1])
def test_ids_beyond_63_bits_are_exact(tmp_path, first):
    images = [{**image, "image_id": first + image["image_id"]} for image in IMAGES]
    path = tmp_path / "truth.json"
    entries = [{"id": first + i, "file_name": image["relative_path"]} for i, image in enumerate(IMAGES)]
    boxes = [{"image_id": first + i, "category_id": 1, "bbox": [10 * i, 0, 10, 10]} for i in range(3)]
    path.write_text(json.dumps({"images": entries, "annotations": boxes, "categories": CONTENT["categories"]}))
    truth = AnnotationsFile(str(path), images, CLASSES)
    for i, image in enumerate(images):
        assert truth.boxes_of(image["image_id"]).boxes.tolist() == [[10.0 * i, 0, 10, 10]]
