import json
import logging

import numpy as np
import pytest

from parking.challenge.submission.selection import SubmissionOptions, write_submission
from parking.evaluation.coco_results import read_predictions
from parking.inference.sinks.results import write_results
from parking.structures.detections import Detections
from parking.utils.errors import UserError
from parking.utils.marks import MARK_NAME

IMAGES = [
    {"image_id": 30, "file_name": "images/20201102_경기도_맑음.png", "height": 4},
    {"image_id": 10, "file_name": "b\udcff.png"},
    {"image_id": 20, "file_name": "c.png"},
]


KEYS = ("file_name", "width", "height")
# image id, category id, x, y, w, h, score
ROWS = [(10, 1, 1, 2, 10, 20, 0.5), (10, 7, 0, 0, 5, 5, 0.25), (30, 7, 0, 0, 9, 9, 0.75)]


def detections(rows=ROWS):
    table = np.array(rows, dtype=float).reshape(-1, 7)
    return Detections.from_columns(table[:, 0].astype(int), table[:, 1], table[:, 2:6], table[:, 6]).round()


def write(tmp_path, rows=ROWS, submission=None):
    return write_results(detections(rows), output_dir=tmp_path / "out", images=IMAGES, submission=submission)


def options(max_bytes=10**6):
    return SubmissionOptions(max_bytes)


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def test_files_follow_the_order_of_the_images(tmp_path):
    results = write(tmp_path)
    assert results == {name: str(tmp_path / "out" / f"{name}.json") for name in ("predictions", "images")}
    assert load(results["predictions"]) == [
        {"image_id": 30, "category_id": 7, "bbox": [0.0, 0.0, 9.0, 9.0], "score": 0.75},
        {"image_id": 10, "category_id": 1, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.5},
        {"image_id": 10, "category_id": 7, "bbox": [0.0, 0.0, 5.0, 5.0], "score": 0.25},
    ]
    assert load(results["images"]) == [{"id": x["image_id"], **{k: x[k] for k in KEYS if k in x}} for x in IMAGES]
    assert "경기도" in (tmp_path / "out" / "images.json").read_text(encoding="utf-8")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MARK_NAME, "images.json", "predictions.json"]


def test_submission_on_request(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        # Rows of 87 (score 0.75) and 88 (0.5) characters, a comma, two brackets: 178 bytes.
        results = write(tmp_path, submission=options(max_bytes=178))
    assert "submission.json: 2 boxes, scores from 0.5000" in caplog.text
    assert [row["score"] for row in load(results["submission"])] == [0.5, 0.75]
    assert [row["image_id"] for row in load(results["submission"])] == [10, 30]
    assert "1 boxes that score lowest did not fit" in caplog.text


def test_images_without_any_box(tmp_path):
    results = write(tmp_path, [], submission=options())
    assert load(results["predictions"]) == load(results["submission"]) == []
    assert len(load(results["images"])) == 3


def test_unannounced_image(tmp_path):
    with pytest.raises(ValueError, match="image 99"):
        write(tmp_path, [*ROWS, (99, 1, 0, 0, 5, 5, 0.5)])
    assert not list(tmp_path.iterdir())


def test_values_are_rounded_alike_in_all_files(tmp_path):
    results = write(tmp_path, [(10, 1, 0.12345, 2, 10.00049, 20, 0.12345678)], submission=options())
    (row,) = load(results["predictions"])
    assert (row["bbox"], row["score"]) == ([0.123, 2.0, 10.0, 20.0], 0.123457)
    (row,) = load(results["submission"])
    assert (row["bbox"], row["score"]) == ([0.1, 2.0, 10.0, 20.0], 0.1235)


def test_a_submission_of_an_earlier_run_is_removed(tmp_path, caplog):
    results = write(tmp_path, submission=options())
    with caplog.at_level(logging.WARNING):
        assert "submission" not in write(tmp_path)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [MARK_NAME, "images.json", "predictions.json"]
    assert f"Removed {results['submission']}" in caplog.text
    caplog.clear()
    write(tmp_path)
    assert "Removed" not in caplog.text


def test_no_old_submission_lies_beside_new_predictions(tmp_path, monkeypatch):
    """Wherever the run is cut off."""
    results = write(tmp_path, submission=options())

    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("parking.inference.sinks.results.write_submission", fail)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, ROWS[:2], submission=options())
    assert len(load(results["predictions"])) == 2
    assert not (tmp_path / "out" / "submission.json").exists()


def test_the_predictions_give_the_same_submission_again(tmp_path):
    """Though they have fewer decimals: 0.0495 + 0.1004 = 0.1499 is 0.1 px, but 0.050 + 0.100 = 0.150 is 0.2."""
    rng = np.random.default_rng(0)
    corners = rng.random((500, 2)) * 20
    corners[0] = 0.0495, 0
    sides = rng.random((500, 2)) * 20
    sides[0] = 0.1004, 5
    rows = np.concatenate([np.full((500, 1), 10), np.ones((500, 1)), corners, sides, rng.random((500, 1))], axis=1)
    results = write(tmp_path, rows, submission=options(max_bytes=20_000)._replace(max_per_image=400))
    again = tmp_path / "again.json"
    write_submission(read_predictions(results["predictions"]), again, SubmissionOptions(20_000, 400))
    with open(results["submission"], "rb") as file:
        assert file.read() == again.read_bytes()


@pytest.mark.parametrize("name", ["predictions.json", "images.json", "submission.json"])
def test_what_is_not_ours_is_not_replaced(tmp_path, name):
    path = tmp_path / "out" / name
    write(tmp_path, submission=options())
    path.write_text(path.read_text() + "\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{name}.*--output"):
        write(tmp_path, submission=options())
    assert path.read_bytes() == before


def test_a_foreign_submission_stays_where_none_is_written(tmp_path, caplog):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "submission.json").write_text("mine")
    write(tmp_path)
    assert (tmp_path / "out" / "submission.json").read_text() == "mine"
    assert "submission.json is not of this run" in caplog.text


# Beyond int64 and uint64, negative, and texts beside numbers (which numpy would make texts of).
@pytest.mark.parametrize("ids", [[2**64 + 3, -(2**63) - 1], ["a\0", "2"], [1, "1"]])
def test_ids_of_any_kind_are_exact(tmp_path, ids):
    found = Detections.from_columns(ids, [2**70, -5], [[0, 0, 5, 5]] * 2, [0.5, 0.25])
    images = [{"image_id": i, "file_name": "a.png"} for i in ids]
    results = write_results(found, output_dir=tmp_path, images=images)
    rows = load(results["predictions"])
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(ids[0], 2**70), (ids[1], -5)]
    assert [row["id"] for row in load(results["images"])] == ids
