import json
import logging
from pathlib import Path

import numpy as np

from parking.challenge.classes import CLASS_COLORS, CLASS_NAMES
from parking.data.image_io import read_image
from parking.evaluation.annotations_file import AnnotationsFile
from parking.inference.sinks import pictures
from parking.inference.sinks.pictures import PictureWriter
from parking.structures.detections import Detections
from parking.visualization.drawing import save_image

GRAY = 128
CLASSES = {name: i for i, name in enumerate(CLASS_NAMES, start=1)}


def make_images(folder, *names, size=(60, 80)):
    for name in names:
        save_image(np.full((*size, 3), GRAY, np.uint8), folder / name)
    return [
        {"image_id": i, "file_name": str(folder / name), "relative_path": name} for i, name in enumerate(names, start=1)
    ]


def on_all(images, *boxes):
    """Boxes are (x, y, w, h, score, category id); all of them on each image."""
    rows = np.array([(image["image_id"], *box) for image in images for box in boxes], dtype=float).reshape(-1, 7)
    return Detections.from_columns(rows[:, 0].astype(int), rows[:, 6], rows[:, 1:5], rows[:, 5])


def draw(images, *boxes, output_dir, drawn=None, **kwargs):
    writer = PictureWriter(output_dir=str(output_dir), **{"classes": CLASSES, "min_score": 0.25, **kwargs})
    return writer.draw(images if drawn is None else drawn, on_all(images, *boxes))


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("[!.]*") if p.is_file())


def test_every_image_has_a_picture_of_its_own(tmp_path):
    names = ("a.jpg", "a.png", "day/a.png", "day__a.png", "overview.png", "낮/b.png")
    folder = draw(make_images(tmp_path / "in", *names), output_dir=tmp_path)
    assert folder == str(tmp_path / "visualizations")
    assert files(folder) == sorted([*(f"{name}.png" for name in names), "overview.png"])


def test_pictures_of_the_images_asked_for_that_can_be_read(tmp_path):
    images = make_images(tmp_path / "in", "a.png", "b.png", "c.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    assert draw(images, drawn=images[:2], output_dir=tmp_path)
    assert files(tmp_path / "visualizations") == ["a.png.png", "overview.png"]
    assert draw(images, drawn=images[1:2], output_dir=tmp_path / "none") is None
    assert not (tmp_path / "none").exists()


def test_pictures_of_an_earlier_run_are_counted(tmp_path):
    images = make_images(tmp_path / "in", "a.png", "day/a.png", "b.png")
    draw(images, output_dir=tmp_path)
    (tmp_path / "visualizations" / "mine.png").write_bytes(b"the user's")
    writer = PictureWriter(output_dir=str(tmp_path), classes=CLASSES, min_score=0.25)
    for num_drawn, num_earlier in ((1, 2), (2, 1), (3, 0)):
        writer.draw(images[:num_drawn], on_all(images))
        assert writer.count_earlier() == num_earlier


def test_overview_is_bounded(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(pictures, "_MAX_SHEET_PICTURES", 3)
    monkeypatch.setattr(pictures, "_SHEET_TILE_WIDTH", 80)
    names = [f"{i}.png" for i in range(5)]
    with caplog.at_level(logging.INFO):
        draw(make_images(tmp_path / "in", *names), output_dir=tmp_path)
    assert files(tmp_path / "visualizations") == [*(f"{name}.png" for name in names), "overview.png"]
    # Three tiles of 80 x 60 in one row: nothing but they is of this gray.
    assert (read_image(tmp_path / "visualizations" / "overview.png") == GRAY).all(axis=2).sum() == 3 * 80 * 60
    assert [r.getMessage() for r in caplog.records].count("overview.png shows the first 3 of 5 pictures") == 1


def test_boxes_below_the_minimal_score_are_not_drawn(tmp_path):
    images = make_images(tmp_path / "in", "a.png")
    draw(images, (10, 20, 30, 30, 0.25, 1), (60, 20, 18, 30, 0.24, 2), output_dir=tmp_path)
    picture = read_image(tmp_path / "visualizations" / "a.png.png")
    # Lines are 2 wide: in row 40, below the tags, the box from 10 to 40 has two of them.
    drawn = np.flatnonzero((picture[40] != GRAY).any(axis=1))
    assert drawn.tolist() == [10, 11, 38, 39] and tuple(picture[40, 10]) == CLASS_COLORS[0]


def test_annotations_stand_beside_the_predictions(tmp_path):
    images = make_images(tmp_path / "in", "a.png", "day/b.png")
    truth = tmp_path / "truth.json"
    annotations = [{"image_id": 70, "category_id": 2, "bbox": [20, 20, 40, 30]}]
    truth.write_text(json.dumps({"images": [{"id": 70, "file_name": "b.png"}], "annotations": annotations}))
    ground_truth = AnnotationsFile(str(truth), images, CLASSES)
    draw(images, (10, 20, 30, 30, 0.5, 1), output_dir=tmp_path, ground_truth=ground_truth)
    both = read_image(tmp_path / "visualizations" / "day" / "b.png.png")
    alone = read_image(tmp_path / "visualizations" / "a.png.png")
    assert alone.shape == (60, 80, 3)
    # Under titles, which both have: the image twice, with gaps of 4 pixels around each.
    assert both.shape[1] == 4 + 80 + 4 + 80 + 4
    top = both.shape[0] - 4 - 60
    np.testing.assert_array_equal(both[top:-4, 88:168], alone)
    annotated = both[top:-4, 4:84]
    drawn = np.flatnonzero((annotated[40] != GRAY).any(axis=1))
    assert drawn.tolist() == [20, 21, 58, 59] and tuple(annotated[40, 20]) == CLASS_COLORS[1]
    for left in (4, 88):
        assert (both[:top, left : left + 80] < 100).any(), "a title"


def test_other_names_keep_the_colors(tmp_path):
    images = make_images(tmp_path / "in", "a.png")
    box = (10, 20, 30, 30, 0.5, 5)
    draw(images, box, output_dir=tmp_path / "plain")
    draw(images, box, output_dir=tmp_path / "other", display_names=[f"~{i}" for i in range(len(CLASS_NAMES))])
    plain, other = (read_image(tmp_path / name / "visualizations" / "a.png.png") for name in ("plain", "other"))
    assert tuple(other[40, 10]) == CLASS_COLORS[4]
    np.testing.assert_array_equal(plain[40:], other[40:])
    assert (plain[:40] != other[:40]).any()  # the tags


def test_large_images_are_reduced(tmp_path):
    # 1920 / 20000 = 0.096 would make one row of 1 no row at all.
    images = make_images(tmp_path / "in", "a.png", size=(1, 20000))
    draw(images, (5000, 0, 5000, 1, 0.5, 1), output_dir=tmp_path, classes={"": 1}, min_score=0)
    assert read_image(tmp_path / "visualizations" / "a.png.png").shape == (1, 1920, 3)
