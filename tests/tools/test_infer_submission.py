"""When infer.py writes a submission, and when it takes one away; with published weights, where they are."""

import json
import shutil
from pathlib import Path

import pytest

from parking.challenge.submission.check import check_submission

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / "../shared/parity/yolov5n.pt"
PHOTO = ROOT / "../shared/data/photos/bus.jpg"
FLOORS = ("TEST.SUBMISSION_CLASS_FLOORS", "('bicycle=2',)")


@pytest.fixture
def infer(tmp_path, run_here):
    if not WEIGHTS.exists() or not PHOTO.exists():
        pytest.skip("there are no published weights or no photograph here (../shared)")
    (tmp_path / "in").mkdir()
    shutil.copy(PHOTO, tmp_path / "in" / "bus.jpg")
    image_info = {"images": [{"id": 5, "file_name": "bus.jpg", "width": 810, "height": 1080}]}
    (tmp_path / "Test_Images_Information.json").write_text(json.dumps(image_info))

    def run(*opts):
        code, out, err = run_here(
            *("infer.py", "--input", tmp_path / "in", "--config-file", ROOT / "configs/yolov5/n.yaml"),
            *("--weights", WEIGHTS, "--output", tmp_path / "out", "MODEL.DEVICE", "cpu", "INPUT.SIZE_TEST", "320"),
            *("DATALOADER.NUM_WORKERS", "0", *opts),
        )
        assert code == 0, err
        return out + err

    return run


def test_options_of_the_config_and_what_make_submission_makes_of_it(infer, tmp_path, run_here):
    infer(*("TEST.SUBMISSION_MAX_PER_IMAGE", "4", "TEST.SUBMISSION_SPACING", "original"), *FLOORS)
    submission = tmp_path / "out" / "submission.json"
    check = check_submission(submission, image_info=str(tmp_path / "Test_Images_Information.json"), max_per_image=4)
    assert check.problems == [] and check.num_boxes == 4
    rows = json.loads(submission.read_text())
    assert submission.read_text() == json.dumps(rows)
    # The second bicycle scores lower than many boxes that are out.
    assert sum(row["category_id"] == 12 for row in rows) >= 2
    code, _, err = run_here(
        *("make_submission.py", "--predictions", tmp_path / "out" / "predictions.json", "--output", tmp_path / "new"),
        *("--max-per-image", "4", "--spacing", "original", "--class-floor", "bicycle=2"),
    )
    assert code == 0, err
    assert (tmp_path / "new").read_bytes() == submission.read_bytes()


def test_an_older_submission_goes_where_the_next_run_writes_none(infer, tmp_path):
    submission = tmp_path / "out" / "submission.json"
    infer()
    assert submission.exists()
    out = infer("MODEL.YOLO.NUM_CLASSES", "80")
    assert not submission.exists()
    assert f"Removed {submission}" in out
    assert "no submission.json: the classes of these weights are not the challenge's." in out

    infer()
    (tmp_path / "Test_Images_Information.json").unlink()
    out = infer()
    assert not submission.exists()
    assert f"Removed {submission}" in out and "no submission.json: There is no image list" in out
