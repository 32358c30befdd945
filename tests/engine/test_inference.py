import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch import nn

from parking.config import get_cfg
from parking.data.datasets.classes import CLASS_COLORS, CLASS_NAMES
from parking.data.image_io import read_image
from parking.engine import inference
from parking.engine.inference import PictureWriter, get_submission_options, predict_images
from parking.utils.errors import UserError
from parking.visualization.drawing import save_image

GRAY = 128


def make_images(folder, *names, size=(60, 80)):
    for name in names:
        save_image(np.full((*size, 3), GRAY, np.uint8), folder / name)
    return [
        {"image_id": i, "file_name": str(folder / name), "relative_path": name} for i, name in enumerate(names, start=1)
    ]


def output(*boxes, size=(60, 80)):
    """Boxes are (x1, y1, x2, y2, score, class)."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    instances = Instances(size)
    instances.pred_boxes, instances.scores = Boxes(table[:, :4]), table[:, 4]
    instances.pred_classes = table[:, 5].long()
    return {"instances": instances}


def draw(images, *boxes, **kwargs):
    writer = PictureWriter(images, **{"class_names": CLASS_NAMES, "min_score": 0.25, **kwargs})
    writer.reset()
    for image in images:
        writer.process([image], [output(*boxes)])
    return writer.evaluate()


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in Path(folder).rglob("*") if p.is_file())


class FixedModel(nn.Module):
    """One box of class 1 in every image, and one of class 0 in those wider than 80."""

    def forward(self, batch):
        boxes = [(10, 10, 30, 40, 0.5, 1), (0, 0, 20, 10, 0.75, 0)]
        return [output(*boxes[: 1 + (x["width"] > 80)], size=(x["height"], x["width"])) for x in batch]


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.INPUT.SIZE_TEST = 64
    return cfg


def predict(cfg, images, tmp_path, **kwargs):
    return predict_images(cfg, FixedModel().eval(), images, output_dir=str(tmp_path), category_ids=[3, 9], **kwargs)


def test_files_of_a_run_with_an_unreadable_image(cfg, tmp_path):
    images = make_images(tmp_path / "in", "a.png", "b.png", "c.png")
    save_image(np.zeros((60, 90, 3), np.uint8), tmp_path / "in" / "c.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no image")
    out = tmp_path / "out"
    pictures = PictureWriter(images, output_dir=str(out), class_names=["x", "y"], min_score=0.25)
    submission = get_submission_options(cfg, {"x": 3, "y": 9})
    report = predict(cfg, images, out, submission=submission, pictures=pictures)

    assert (report.num_images, report.num_boxes, len(report.unreadable)) == (2, 3, 1)
    assert str(tmp_path / "in" / "b.png") in report.unreadable[0]
    assert report.files == {
        "predictions": str(out / "predictions.json"),
        "images": str(out / "images.json"),
        "submission": str(out / "submission.json"),
        "visualizations": str(out / "visualizations"),
    }
    # [10, 10, 30, 40] is 20 wide and 30 high; classes 0 and 1 are the categories 3 and 9.
    assert json.loads((out / "predictions.json").read_text()) == [
        {"image_id": 1, "category_id": 9, "bbox": [10.0, 10.0, 20.0, 30.0], "score": 0.5},
        {"image_id": 3, "category_id": 9, "bbox": [10.0, 10.0, 20.0, 30.0], "score": 0.5},
        {"image_id": 3, "category_id": 3, "bbox": [0.0, 0.0, 20.0, 10.0], "score": 0.75},
    ]
    assert [row["file_name"] for row in json.loads((out / "images.json").read_text())] == ["a.png", "b.png", "c.png"]
    assert len(json.loads((out / "submission.json").read_text())) == 3
    assert files(out / "visualizations") == ["a.png.png", "c.png.png", "overview.png"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("SUBMISSION_MB", -1.0),
        ("SUBMISSION_MAX_PER_IMAGE", 0),
        ("SUBMISSION_CLASS_FLOORS", ("z=5",)),
        ("SUBMISSION_SPACING", "wide"),
    ],
)
def test_submission_options_from_the_config(cfg, key, value):
    assert get_submission_options(cfg, {"x": 3}) == (20_000_000, 50, {3: 0}, "compact")
    cfg.TEST[key] = value
    with pytest.raises(UserError, match=f"TEST.{key}"):
        get_submission_options(cfg, {"x": 3})


def test_boxes_alone(cfg, tmp_path):
    images = make_images(tmp_path / "in", "a.png")
    level = logging.getLogger("detectron2.evaluation.evaluator").level
    report = predict(cfg, images, tmp_path / "out")
    assert list(report.files) == ["predictions", "images"] and report.unreadable == []
    assert files(tmp_path / "out") == ["images.json", "predictions.json"]
    assert logging.getLogger("detectron2.evaluation.evaluator").level == level


def test_nothing_readable(cfg, tmp_path):
    images = make_images(tmp_path / "in", "a.png")
    (tmp_path / "in" / "a.png").unlink()
    pictures = PictureWriter(images, output_dir=str(tmp_path / "out"), class_names=["x", "y"], min_score=0)
    report = predict(cfg, images, tmp_path / "out", pictures=pictures)
    assert (report.num_images, report.num_boxes, len(report.unreadable)) == (0, 0, 1)
    assert list(report.files) == ["predictions", "images"]
    assert json.loads((tmp_path / "out" / "predictions.json").read_text()) == []


def test_every_image_has_a_picture_of_its_own(tmp_path):
    names = ("a.jpg", "a.png", "day/a.png", "day__a.png", "overview.png", "낮/b.png")
    results = draw(make_images(tmp_path / "in", *names), output_dir=str(tmp_path))
    assert results == {"visualizations": str(tmp_path / "visualizations")}
    assert files(tmp_path / "visualizations") == sorted([*(f"{name}.png" for name in names), "overview.png"])


def test_pictures_of_the_announced_images_only(tmp_path):
    first, second = make_images(tmp_path / "in", "a.png", "b.png")
    writer = PictureWriter([second], output_dir=str(tmp_path), class_names=CLASS_NAMES, min_score=0)
    writer.reset()
    writer.process([first, second], [output(), output()])
    writer.evaluate()
    assert files(tmp_path / "visualizations") == ["b.png.png", "overview.png"]
    writer.reset()
    assert writer.evaluate() == {}


def test_overview_is_bounded(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(inference, "_MAX_SHEET_PICTURES", 3)
    monkeypatch.setattr(inference, "_SHEET_TILE_WIDTH", 80)
    names = [f"{i}.png" for i in range(5)]
    with caplog.at_level(logging.INFO):
        draw(make_images(tmp_path / "in", *names), output_dir=str(tmp_path))
    assert files(tmp_path / "visualizations") == [*(f"{name}.png" for name in names), "overview.png"]
    # Three tiles of 80 x 60 in one row: nothing but they is of this gray.
    assert (read_image(tmp_path / "visualizations" / "overview.png") == GRAY).all(axis=2).sum() == 3 * 80 * 60
    assert [r.getMessage() for r in caplog.records].count("overview.png shows the first 3 of 5 pictures") == 1


def test_boxes_below_the_minimal_score_are_not_drawn(tmp_path):
    images = make_images(tmp_path / "in", "a.png")
    draw(images, (10, 20, 40, 50, 0.25, 0), (60, 20, 78, 50, 0.24, 1), output_dir=str(tmp_path))
    picture = read_image(tmp_path / "visualizations" / "a.png.png")
    # Lines are 2 wide: in row 40, below the tags, the box from 10 to 40 has two of them.
    drawn = np.flatnonzero((picture[40] != GRAY).any(axis=1))
    assert drawn.tolist() == [10, 11, 38, 39] and tuple(picture[40, 10]) == CLASS_COLORS[0]


def test_other_names_keep_the_colors(tmp_path):
    images = make_images(tmp_path / "in", "a.png")
    box = (10, 20, 40, 50, 0.5, 4)
    draw(images, box, output_dir=str(tmp_path / "plain"))
    draw(images, box, output_dir=str(tmp_path / "other"), display_names=[f"~{i}" for i in range(len(CLASS_NAMES))])
    plain, other = (read_image(tmp_path / name / "visualizations" / "a.png.png") for name in ("plain", "other"))
    assert tuple(other[40, 10]) == CLASS_COLORS[4]
    np.testing.assert_array_equal(plain[40:], other[40:])
    assert (plain[:40] != other[:40]).any()  # the tags
    with pytest.raises(ValueError, match="14 colors"):
        draw(images, box, output_dir=str(tmp_path), display_names=["one"])


@pytest.mark.parametrize(
    ("size", "box", "reduced", "extent"),
    [
        # 1920 / 3840 = 0.5: the box becomes [200, 400, 500, 900].
        ((2160, 3840), (400, 800, 1000, 1800), (1080, 1920), [200, 500]),
        # 1920 / 20000 = 0.096 would make one row of 1 no row at all. 5000 * 0.096 = 480, 10000 * 0.096 = 960
        ((1, 20000), (5000, 0, 10000, 1), (1, 1920), [480, 960]),
    ],
)
def test_large_images_are_reduced(tmp_path, size, box, reduced, extent):
    images = make_images(tmp_path / "in", "a.png", size=size)
    writer = PictureWriter(images, output_dir=str(tmp_path), class_names=[""], min_score=0)
    writer.reset()
    writer.process(images, [output((*box, 0.5, 0), size=size)])
    writer.evaluate()
    picture = read_image(tmp_path / "visualizations" / "a.png.png")
    assert picture.shape == (*reduced, 3)
    columns = np.flatnonzero((picture[-reduced[0] // 3 :] != GRAY).any(axis=(0, 2)))
    assert [columns.min(), columns.max() + 1] == extent
