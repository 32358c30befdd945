import json
import math

import pytest

from parking.challenge.submission.cost import compute_ap75, read_annotations
from parking.structures.detections import Detections
from parking.utils.errors import UserError

BOX = [10, 10, 40, 40]
OTHER = [60, 60, 30, 30]


def save(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


def annotation(image_id, category_id, box, **more):
    return {"image_id": image_id, "category_id": category_id, "bbox": box, **more}


ENTRIES = [annotation(1, 1, BOX), annotation(1, 1, OTHER), annotation(2, 3, BOX, area=1600, iscrowd=0)]


def make(tmp_path, entries=ENTRIES, seen=None, ids=(1, 2), **kwargs):
    images = [{"id": i, "file_name": f"{name}.png"} for i, name in zip(ids, "ab", strict=True)]
    path = save(tmp_path / "Train.json", {"images": images, "annotations": entries})
    if seen is not None:
        kwargs["images"] = save(tmp_path / "images.json", [{"id": i, "file_name": name} for i, name in seen.items()])
    return read_annotations(path, classes={1: "car", 2: "bus", 3: "van"}, **kwargs)


def detections(*rows):
    return Detections.from_columns(*zip(*rows, strict=True)) if rows else Detections.from_columns([], [], [], [])


def test_a_class_of_another_name_is_told(tmp_path, caplog):
    path = tmp_path / "Train.json"
    make(tmp_path)
    content = {**json.loads(path.read_text()), "categories": [{"id": 1, "name": "car "}, {"id": 3, "name": "bus"}]}
    read_annotations(save(path, content), classes={1: "car", 3: "van"})
    assert "category 3" in caplog.text and "'bus'" in caplog.text and "category 1" not in caplog.text


@pytest.mark.parametrize("ids", [(1, 2), ("x", "y")])
def test_ap75_by_hand(tmp_path, ids):
    first, second = ids
    entries = [{**entry, "image_id": ids[entry["image_id"] - 1]} for entry in ENTRIES]
    truth = make(tmp_path, entries, ids=ids)
    assert len(truth.image_ids) == 2
    # Class 3: IoU 1. Class 1: one of two boxes; the precision is 1 at the 51 recalls 0.00 to 0.50 of 101.
    mean, per_class = compute_ap75(truth, detections((first, 1, BOX, 0.9), (second, 3, BOX, 0.5)))
    assert per_class[1] == pytest.approx(100 * 51 / 101)
    assert per_class[3] == pytest.approx(100) and math.isnan(per_class[2])
    assert mean == pytest.approx((100 * 51 / 101 + 100) / 2)
    # 29 * 40 / 1600 is an IoU of 0.725: below 0.75
    assert compute_ap75(truth, detections((second, 3, [10, 10, 29, 40], 0.5)))[1][3] == 0


def test_only_images_that_were_seen_count(tmp_path):
    found = detections((2, 3, BOX, 0.5), (9, 1, BOX, 0.9))
    truth = make(tmp_path, seen={2: "day/B.png", 9: "z.png"})
    assert len(truth.image_ids) == 1 and compute_ap75(truth, found)[0] == pytest.approx(100)
    # Without the list, nothing was found in the other image.
    assert compute_ap75(make(tmp_path), found)[0] == pytest.approx(50)


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        ({7: "a.png"}, r"Train\.json' .*images\.json'"),
        ({1: "b.png"}, "image 1 is 'a.png' in .* but 'b.png'"),
    ],
)
def test_ids_of_other_images(tmp_path, seen, message):
    with pytest.raises(UserError, match=message):
        make(tmp_path, seen=seen)


@pytest.mark.parametrize("content", ["[{}]", "{", "[3]", "3", '[{"id": [], "file_name": "a"}]'])
def test_a_list_of_images_that_is_none(tmp_path, content):
    (tmp_path / "images.json").write_text(content)
    with pytest.raises(UserError, match=r"images\.json' "):
        make(tmp_path, images=str(tmp_path / "images.json"))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "is 3"),
        ({}, "'image_id'"),
        (annotation(1, 4, BOX), "category id 4; known are 1, 2, 3"),
        (annotation(1, 1, [1, 2, 3]), "bbox"),
        (annotation(1, 1, [1, 2, 3, math.nan]), "bbox"),
        (annotation(1, 1, [1, 2, -3, 4]), "bbox"),
        (annotation(1, 1, None), "bbox None"),
        (annotation([], 1, BOX), r"image id \[\]"),
        (annotation(1, [], BOX), r"category id \[\]"),
    ],
)
def test_annotations_that_cannot_be_used(tmp_path, entry, message):
    with pytest.raises(UserError, match=rf"Train\.json': annotations\[3\] .*{message}") as error:
        make(tmp_path, [*ENTRIES, entry])
    assert "POLICY" not in str(error.value), "make_submission.py has none"
