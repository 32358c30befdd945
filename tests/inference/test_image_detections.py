"""Detections of one picture as arrays, COCO results, supervision.Detections and pixels."""

import io
import sys
import types

import numpy as np
import pytest
from PIL import Image

from parking.challenge.classes import CLASS_COLORS, CLASS_NAMES, CLASS_NAMES_KO
from parking.inference.image_detections import ImageDetections
from parking.utils.errors import UserError

GRAY = 128


def make(*rows, image=None, thing_classes=("cat", "dog", "cow"), category_ids=(5, 2, 9)):
    """Rows are (x1, y1, x2, y2, score, class)."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return ImageDetections(
        boxes=table[:, :4],
        scores=table[:, 4],
        class_ids=table[:, 5].astype(np.int64),
        thing_classes=thing_classes,
        category_ids=category_ids,
        image_source=np.full((60, 80, 3), GRAY, np.uint8) if image is None else image,
    )


THREE = ((10, 20, 30.5, 40, 0.875, 2), (0, 0, 8, 4, 0.5, 0), (1, 2, 4, 8, 0.25, 2))


@pytest.fixture
def no_supervision(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)  # None: "not to be found"


def test_columns_and_rows():
    detections = make(*THREE)
    assert len(detections) == 3 and repr(detections) == "<ImageDetections: 2 cow, 1 cat>"
    assert detections.class_names == ["cow", "cat", "cow"]
    box, score, class_id, class_name = list(detections)[1]
    assert (box.tolist(), score, class_id, class_name) == ([0, 0, 8, 4], 0.5, 0, "cat")
    assert detections[-1].score == 0.25 and detections[np.int64(1)].class_name == "cat"
    with pytest.raises(IndexError):
        detections[3]


@pytest.mark.parametrize(
    ("rows", "scores"),
    [
        (np.array([True, False, True]), [0.875, 0.25]),
        ([True, False, True], [0.875, 0.25]),
        (slice(1, None), [0.5, 0.25]),
        ([2, 0], [0.25, 0.875]),
        ([], []),
    ],
)
def test_selecting(rows, scores):
    detections = make(*THREE)
    selected = detections[rows]
    assert isinstance(selected, ImageDetections) and selected.scores.tolist() == scores
    assert selected.boxes.shape == (len(scores), 4) and selected.class_ids.shape == (len(scores),)
    assert selected.image is detections.image


def test_none():
    detections = make()
    assert len(detections) == 0 and list(detections) == [] and repr(detections) == "<ImageDetections: none>"
    assert detections.class_names == [] and detections.to_coco(1) == []
    np.testing.assert_array_equal(detections.draw(), detections.image)


def test_coco_results():
    # Width 30.5 - 10, height 40 - 20; classes 2 and 0 have the ids 9 and 5.
    assert make(*THREE[:2]).to_coco("0017") == [
        {"image_id": "0017", "category_id": 9, "bbox": [10.0, 20.0, 20.5, 20.0], "score": 0.875},
        {"image_id": "0017", "category_id": 5, "bbox": [0.0, 0.0, 8.0, 4.0], "score": 0.5},
    ]


def test_supervision_that_is_not_installed(no_supervision):
    with pytest.raises(ImportError, match="`pip install supervision`"):
        make(*THREE).to_supervision()


def test_arguments_of_supervision(monkeypatch):
    module = types.SimpleNamespace(Detections=lambda **columns: columns)
    monkeypatch.setitem(sys.modules, "supervision", module)
    detections = make(*THREE)
    columns = detections.to_supervision()
    assert columns.keys() == {"xyxy", "confidence", "class_id", "data"}
    np.testing.assert_array_equal(columns["xyxy"], detections.boxes)
    np.testing.assert_array_equal(columns["confidence"], detections.scores)
    np.testing.assert_array_equal(columns["class_id"], detections.class_ids)
    assert columns["data"].keys() == {"class_name"}
    np.testing.assert_array_equal(columns["data"]["class_name"], np.array(["cow", "cat", "cow"]))
    columns["xyxy"][:] = 0
    assert detections.boxes.any(), "a copy"


@pytest.mark.parametrize("rows", [THREE, ()])
def test_supervision_itself(rows):
    supervision = sys.modules.get("supervision") or pytest.importorskip("supervision")
    converted = make(*rows).to_supervision()
    assert isinstance(converted, supervision.Detections) and len(converted) == len(rows)
    assert converted[converted.class_id == 2].data["class_name"].tolist() == ["cow"] * (2 if rows else 0)


def drawn_columns(picture, row):
    return np.flatnonzero((picture[row] != GRAY).any(axis=1)).tolist()


def test_drawing(tmp_path):
    detections = make((10, 20, 40, 50, 0.5, 1), thing_classes=CLASS_NAMES, category_ids=range(1, 15))
    picture = detections.draw()
    # Lines are 2 wide; row 40 is below the name.
    assert drawn_columns(picture, 40) == [10, 11, 38, 39] and tuple(picture[40, 10]) == CLASS_COLORS[1]
    assert (detections.image == GRAY).all(), "a copy"
    detections.save(tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "new" / "a.png")), picture)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(detections._repr_png_()))), picture)
    with pytest.raises(UserError, match=r"'.*a\.xyz' cannot be written: end its name in"):
        detections.save(tmp_path / "a.xyz")


def test_other_names_keep_the_colors():
    detections = make((10, 20, 40, 50, 0.5, 1), thing_classes=CLASS_NAMES, category_ids=range(1, 15))
    plain, other = detections.draw(), detections.draw(display_names=CLASS_NAMES_KO)
    np.testing.assert_array_equal(plain[40:], other[40:])
    assert (plain[:40] != other[:40]).any()
    with pytest.raises(ValueError, match="14 class names"):
        detections.draw(display_names=["one"])


def test_a_notebook_shows_a_reduced_picture():
    detections = make((400, 200, 1000, 800, 0.5, 0), image=np.full((1000, 2560, 3), GRAY, np.uint8))
    picture = np.asarray(Image.open(io.BytesIO(detections._repr_png_())))
    assert picture.shape == (500, 1280, 3) and drawn_columns(picture, 350)[0] == 200


def test_an_image_may_be_read_when_it_is_wanted():
    reads = []

    def read():
        reads.append(1)
        return np.zeros((4, 6, 3), np.uint8)

    detections = make(image=read)
    assert not reads and detections.image.shape == (4, 6, 3) and len(reads) == 1
