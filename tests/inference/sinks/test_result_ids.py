import json

import numpy as np
import pytest

from parking.data.datasets.images import ImageList
from parking.evaluation.annotations_file import AnnotationsFile
from parking.inference.sinks.result_ids import choose_result_ids
from parking.structures.detections import Detections
from parking.utils.errors import UserError

CLASSES = {"car": 3, "dog": 18, "bus": 6}


def make_list(names, ids=None):
    return ImageList(
        [
            {"image_id": i, "relative_path": name, "file_name": f"/photos/{name}"}
            for i, name in zip(ids or range(1, len(names) + 1), names, strict=True)
        ],
        ids is not None,
        "",
    )


@pytest.fixture
def choose(tmp_path):
    def choose(images, categories=None, *, listed=None, classes=CLASSES, numbered=False):
        truth = None
        if categories is not None:
            content = {
                "images": [{"id": i, "file_name": name} for name, i in listed.items()],
                "categories": [{"id": i, "name": name} for name, i in categories.items()],
                "annotations": [
                    {"image_id": image_id, "category_id": category_id, "bbox": [0, 0, 9, 9]}
                    for image_id in listed.values()
                    for category_id in categories.values()
                ],
            }
            path = tmp_path / "truth.json"
            path.write_text(json.dumps(content))
            truth = AnnotationsFile(str(path), images.images, classes)
        return choose_result_ids(images, classes, truth, are_classes_numbered=numbered)

    return choose


def test_ids_that_are_made_up_are_told(choose):
    ids = choose(make_list(["a.png", "b.png"]), numbered=True)
    assert ids.are_own and ids.about.keys() == {"image_ids", "category_ids"}
    assert all("made up" in text for text in ids.about.values()) and "car (3), dog (18)" in ids.about["category_ids"]
    assert choose(make_list(["a.png"], ids=[7])).about == {}


@pytest.mark.parametrize("offset", [0, 100, 2**63 - 10])
def test_ids_come_from_the_annotations(choose, offset):
    listed = {"b.png": offset + 1, "a.png": offset + 2}
    ids = choose(make_list(["a.png", "b.png"]), {"dog": 1, "bus": 2, "car": 3}, listed=listed)
    assert ids.image_ids == {1: offset + 2, 2: offset + 1} and ids.category_ids == {3: 3, 18: 1, 6: 2}
    assert "made up" not in str(ids.about) and "truth.json" in ids.about["image_ids"]
    found = ids.translate(Detections.from_columns([1, 2, 2], [18, 3, 6], np.ones((3, 4)), [0.5] * 3))
    assert found.image_ids.tolist() == [offset + 2, offset + 1, offset + 1]
    assert found.category_ids.tolist() == [1, 3, 2]


def test_what_the_annotations_lack_gets_ids_that_they_do_not_have(choose):
    images = make_list(["a.png", "b.png", "c.png"])
    ids = choose(images, {"dog": 3, "cow": 6}, listed={"b.png": 1, "other.png": 2})
    assert ids.image_ids == {1: 3, 2: 1, 3: 4} and "made up for the 2 images" in ids.about["image_ids"]
    assert ids.category_ids[18] == 3 and len({*ids.category_ids.values(), 6}) == 4
    assert "car (1), bus (2)" in ids.about["category_ids"]
    ids = choose(images, {"dog": 5}, listed={"b.png": "b"})
    assert ids.image_ids == {1: "1", 2: "b", 3: "2"} and ids.category_ids == {18: 5, 3: 3, 6: 6}
    ids = choose(images, {"dog": 5}, listed={"b.png": "1"})
    assert ids.image_ids == {1: "2", 2: "1", 3: "3"}


def test_an_image_list_counts_for_what_the_annotations_lack(choose):
    ids = choose(make_list(["a.png", "b.png"], ids=[10, 11]), {"dog": 18}, listed={"a.png": 10})
    assert ids.are_own and "image list" in ids.about["image_ids"]
    ids = choose(make_list(["a.png", "b.png"], ids=[10, 11]), {"dog": 18}, listed={"a.png": 11})
    assert not ids.are_own and ids.image_ids == {10: 11, 11: 1}


def test_without_categories_the_ids_are_those_of_the_weights(choose):
    ids = choose(make_list(["a.png"]), {}, listed={"a.png": 9})
    assert ids.category_ids == {3: 3, 18: 18, 6: 6} and ids.image_ids == {1: 9}


def test_two_categories_of_one_class_are_refused(choose):
    with pytest.raises(UserError, match=r"4\b.*\b9\b"):
        choose(make_list(["a.png"]), {"dog": 4, "dog ": 9}, listed={"a.png": 9})


def test_a_json_of_other_classes_keeps_its_ids(choose):
    ids = choose(make_list(["a.png"]), {"bird": 3, "cat": 6}, listed={"a.png": 1})
    assert not {3, 6} & set(ids.category_ids.values()) and ids.category_ids.keys() == set(CLASSES.values())
    assert "car (" in ids.about["category_ids"]


@pytest.mark.parametrize(("own", "listed"), [(["x", "y"], 7), ([5, 6], "seven")])
def test_ids_of_one_file_are_of_one_type(choose, own, listed):
    ids = choose(make_list(["a.png", "b.png"], ids=own), {"car": 3}, listed={"a.png": listed})
    assert {type(image_id) for image_id in ids.image_ids.values()} == {type(listed)}
    assert "made up for the 1 image" in ids.about["image_ids"]
