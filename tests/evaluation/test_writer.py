import json
import logging

import pytest
import torch
from detectron2.evaluation import inference_on_dataset
from detectron2.structures import Boxes, Instances

from parking.evaluation.predictions import read_predictions
from parking.evaluation.submission import write_submission
from parking.evaluation.submission_options import SubmissionOptions
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


def options(max_bytes=10**6):
    return SubmissionOptions(max_bytes=max_bytes, max_per_image=50, class_floors={}, spacing="compact")


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
        results = run(make(tmp_path, submission=options(max_bytes=178)))
    report = results["submission_report"]
    assert (report.num_kept, report.num_left_out, report.threshold) == (2, 1, 0.5)
    assert [row["score"] for row in load(results["submission"])] == [0.5, 0.75]
    assert [row["image_id"] for row in load(results["submission"])] == [10, 30]
    assert "1 boxes that score lowest did not fit" in caplog.text


def test_images_without_any_box(tmp_path):
    results = run(make(tmp_path, submission=options()), image_ids=[20])
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


def test_a_submission_of_an_earlier_run_is_removed(tmp_path, caplog):
    results = run(make(tmp_path, submission=options()))
    with caplog.at_level(logging.WARNING):
        assert "submission" not in run(make(tmp_path))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["images.json", "predictions.json"]
    assert f"Removed {results['submission']}" in caplog.text
    caplog.clear()
    run(make(tmp_path))
    assert "Removed" not in caplog.text


def test_no_old_submission_lies_beside_new_predictions(tmp_path, monkeypatch):
    """Wherever the run is cut off."""
    results = run(make(tmp_path, submission=options()))

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("parking.evaluation.writer.write_submission", fail)
    with pytest.raises(KeyboardInterrupt):
        run(make(tmp_path, submission=options()), image_ids=[10])
    assert len(load(results["predictions"])) == 2
    assert not (tmp_path / "out" / "submission.json").exists()


def test_the_predictions_give_the_same_submission_again(tmp_path):
    """Though they have fewer decimals: 0.0495 + 0.1004 = 0.1499 is 0.1 px, but 0.050 + 0.100 = 0.150 is 0.2."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(500, 2, generator=generator) * 20
    boxes = torch.cat([corners, corners + torch.rand(500, 2, generator=generator) * 20], dim=1)
    boxes[0] = torch.tensor([0.0495, 0, 0.1499, 5])
    rows = torch.cat([boxes, torch.rand(500, 1, generator=generator), torch.zeros(500, 1)], dim=1)
    writer = make(tmp_path, submission=options(max_bytes=20_000)._replace(max_per_image=400))
    writer.reset()
    writer.process([{"image_id": 10}], [output(*rows.tolist())])
    results = writer.evaluate()
    again = tmp_path / "again.json"
    write_submission(read_predictions(results["predictions"]), again, max_bytes=20_000, max_per_image=400)
    with open(results["submission"], "rb") as file:
        assert file.read() == again.read_bytes()
