import json
import logging

import pytest
import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Boxes, Instances

from parking.evaluation.writer import ResultsWriter

IMAGES = [
    {"image_id": 30, "file_name": "images/20201102_경기도_맑음.png", "height": 4},
    {"image_id": 10, "file_name": "b\udcff.png"},
    {"image_id": 20, "file_name": "c.png"},
]


def output(*boxes):
    """Boxes are (x1, y1, x2, y2, score, class)."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    instances = Instances((100, 100))
    instances.pred_boxes, instances.scores, instances.pred_classes = (
        Boxes(table[:, :4]),
        table[:, 4],
        table[:, 5].long(),
    )
    return {"instances": instances}


OUTPUTS = {10: output((1, 2, 11, 22, 0.5, 0), (0, 0, 5, 5, 0.25, 1)), 20: output(), 30: output((0, 0, 9, 9, 0.75, 1))}


def run(writer, image_ids=(10, 20, 30)):
    batches = [[{"image_id": image_id}] for image_id in image_ids]
    return inference_on_dataset(lambda batch: [OUTPUTS[x["image_id"]] for x in batch], batches, writer)


def make(tmp_path, **kwargs):
    return ResultsWriter(output_dir=tmp_path / "out", category_ids=[1, 7], images=IMAGES, **kwargs)


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def test_files_follow_the_order_of_the_images(tmp_path):
    results = run(make(tmp_path))
    assert results == {
        "predictions": str(tmp_path / "out" / "predictions.json"),
        "images": str(tmp_path / "out" / "images.json"),
        "num_boxes": 3,
    }
    assert load(results["predictions"]) == [
        {"image_id": 30, "category_id": 7, "bbox": [0.0, 0.0, 9.0, 9.0], "score": 0.75},
        {"image_id": 10, "category_id": 1, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5},
        {"image_id": 10, "category_id": 7, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.25},
    ]
    assert load(results["images"]) == [{"id": x["image_id"], "file_name": x["file_name"]} for x in IMAGES]
    assert "경기도" in (tmp_path / "out" / "images.json").read_text(encoding="utf-8")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images.json", "predictions.json"]


def test_submission_on_request(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        # Rows of 87 (score 0.75) and 88 (0.5) characters, a comma, two brackets: 178 bytes.
        results = run(make(tmp_path, with_submission=True, max_bytes=178))
    report = results["submission_report"]
    assert (report.num_kept, report.num_left_out, report.threshold) == (2, 1, 0.5)
    assert [row["score"] for row in load(results["submission"])] == [0.5, 0.75]
    assert [row["image_id"] for row in load(results["submission"])] == [10, 30]
    assert "1 boxes that score lowest did not fit" in caplog.text


def test_images_without_any_box(tmp_path):
    results = run(make(tmp_path, with_submission=True), image_ids=[20])
    assert load(results["predictions"]) == load(results["submission"]) == []
    assert len(load(results["images"])) == 3


def test_nothing_processed(tmp_path):
    results = run(make(tmp_path), image_ids=[])
    assert load(results["predictions"]) == []


def test_unannounced_image(tmp_path):
    writer = make(tmp_path)
    writer.reset()
    writer.process([{"image_id": 99}], [output()])
    with pytest.raises(ValueError, match="image 99"):
        writer.evaluate()


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    writer = make(tmp_path)
    writer.reset()
    assert writer.evaluate() == {} and not list(tmp_path.iterdir())
