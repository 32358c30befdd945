import json

import numpy as np
import pytest

from parking.challenge.submission.check import check_submission
from parking.challenge.submission.selection import SubmissionOptions, write_submission
from parking.evaluation.coco_results import write_coco_results
from parking.structures.detections import Detections

NUM_IMAGES = 40


@pytest.fixture
def predictions(tmp_path):
    rng = np.random.default_rng(0)
    num = NUM_IMAGES * 30
    corners = rng.uniform(0, 100, (num, 2, 2)).astype(np.float32)
    detections = Detections.from_columns(
        np.repeat(np.arange(1, NUM_IMAGES + 1), 30),
        np.where(np.arange(num) % 40, 1 + rng.integers(0, 12, num), 13),
        np.concatenate([corners.min(axis=1), np.ptp(corners, axis=1)], axis=1),
        rng.uniform(0.001, 1, num),
    )
    # The strollers score lowest.
    detections.scores[detections.category_ids == 13] /= 100
    write_coco_results(detections, tmp_path / "predictions.json")
    return tmp_path / "predictions.json"


@pytest.fixture
def image_info(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": 101, "width": 101} for i in range(1, NUM_IMAGES + 1)]
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"images": images}))
    return str(path)


def test_cut_again_in_other_ways(predictions, image_info, tmp_path, run_here):
    before = predictions.read_bytes()
    code, out, err = run_here("make_submission.py", "--predictions", predictions, "--max-size-mb", "0.05")
    assert (code, err) == (0, "")
    plain = tmp_path / "submission.json"
    assert f"{plain}: " in out and "did not fit into the size limit" in out and "AP75" not in out
    counts = [sum(row["category_id"] == 13 for row in json.loads(plain.read_text()))]

    other = tmp_path / "new" / "other.json"
    code, out, err = run_here(
        *("make_submission.py", "--predictions", predictions, "--output", other, "--max-size-mb", "0.05"),
        *("--max-per-image", "20", "--class-floor", "stroller=20", "--class-floor", "5", "--spacing", "original"),
        *("--image-info", image_info),
    )
    assert (code, err) == (0, "")
    rows = json.loads(other.read_text())
    assert other.read_text() == json.dumps(rows)
    counts.append(sum(row["category_id"] == 13 for row in rows))
    assert counts == [0, 20]
    for path, limit in ((plain, 50), (other, 20)):
        check = check_submission(path, image_info=image_info, max_per_image=limit, max_bytes=50_000)
        assert check.problems == [] and check.num_bytes > 49_800
    assert predictions.read_bytes() == before


def test_what_it_costs(predictions, image_info, tmp_path, run_here):
    """All boxes are right, so what is left of a class is its AP75."""
    boxes = json.loads(predictions.read_text())
    images = json.loads((tmp_path / "info.json").read_text())["images"]
    annotations = [{key: row[key] for key in ("image_id", "category_id", "bbox")} for row in boxes]
    (tmp_path / "Train.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (tmp_path / "images.json").write_text(json.dumps(images))
    code, out, err = run_here(
        *("make_submission.py", "--predictions", predictions, "--max-size-mb", "0.05"),
        *("--annotations", tmp_path / "Train.json"),
    )
    assert (code, err) == (0, "")
    line = next(line for line in out.splitlines() if line.startswith("AP75"))
    assert line.startswith("AP75 on 40 annotated images: 100.00 of all boxes, ")
    after, cost = float(line.split(", ")[1].split()[0]), float(line.split()[-1])
    assert after + cost == pytest.approx(100, abs=0.011) and 30 < after < 60
    assert next(line for line in out.splitlines() if line.startswith("stroller")).split()[-2:] == ["100.00", "0.00"]


def test_mistakes_leave_what_is_there(predictions, tmp_path, run_here):
    (tmp_path / "submission.json").write_text("old")
    for args, message in [
        (["--class-floor", "tram=5"], "--class-floor 'tram=5'"),
        *[(["--max-size-mb", size], f"--max-size-mb: '{size}'") for size in ("0", "-1", "1e-6", "nan", "inf")],
        (["--max-per-image", "0"], "--max-per-image: '0'"),
        (["--spacing", "wide"], "--spacing: "),
        (["--annotations", "none.json"], "'none.json'"),
        (["--image-info", "none.json"], "'none.json'"),
    ]:
        code, _, err = run_here("make_submission.py", "--predictions", predictions, *args)
        assert code in (1, 2) and message in err
    assert (tmp_path / "submission.json").read_text() == "old"


def test_inputs_are_not_overwritten(predictions, image_info, tmp_path, run_here):
    for path, args in ((predictions, []), (image_info, ["--image-info", image_info])):
        code, _, err = run_here("make_submission.py", "--predictions", predictions, "--output", path, *args)
        assert code == 1 and f"would overwrite '{path}'" in err
    # A submission that is cut again stays as it is, too.
    detections = Detections.from_columns([1], [1], [[0, 0, 5, 5]], [0.5])
    write_submission(detections, tmp_path / "submission.json", SubmissionOptions())
    code, _, err = run_here("make_submission.py", "--predictions", tmp_path / "submission.json")
    assert code == 1 and "would overwrite" in err


def test_classes_of_another_data_set(tmp_path, run_here):
    write_coco_results(Detections.from_columns([1], [17], [[0, 0, 5, 5]], [0.5]), tmp_path / "predictions.json")
    code, _, err = run_here("make_submission.py", "--predictions", tmp_path / "predictions.json")
    assert code == 1 and "17" in err and "1 to 14" in err


@pytest.mark.parametrize("content", ['{"image_ids": "of val.json"}', "[]", "{", '{"a": ' * 9999])
def test_ids_that_are_not_the_challenges_are_told(predictions, run_here, content):
    predictions.with_name("ids.json").write_text(content)
    code, _, err = run_here("make_submission.py", "--predictions", predictions)
    assert code == 0 and ("image ids" in err and "val.json" in err) == ("val.json" in content)
