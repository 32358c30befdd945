import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from parking.challenge.submission.check import check_submission
from parking.challenge.submission.selection import SubmissionOptions, write_submission
from parking.structures.detections import Detections
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
GOOD = {"image_id": 7, "category_id": 14, "bbox": [0, 10.5, 20, 9.5], "score": 0.5, "segmentation": []}


@pytest.fixture
def image_info(tmp_path):
    path = tmp_path / "info.json"
    path.write_text(json.dumps({"images": [{"id": 7, "file_name": "a.png", "width": 20, "height": 20}]}))
    return str(path)


def check(tmp_path, rows, **kwargs):
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(rows))
    return check_submission(path, **kwargs)


def test_a_good_one(tmp_path, image_info):
    (tmp_path / "sample.json").write_text(json.dumps([{**GOOD, "score": 0.1}]))
    result = check(tmp_path, [GOOD, GOOD], image_info=image_info, sample=str(tmp_path / "sample.json"))
    assert (result.num_boxes, result.num_images, result.problems) == (2, 1, [])


@pytest.mark.parametrize(
    ("change", "title"),
    [
        *[({"image_id": value}, "image_id") for value in (8, True, 2**70, None)],
        *[({"category_id": value}, "category_id") for value in (0, 15, 1.0)],
        *[({"score": value}, "score") for value in (0, 1.01, math.nan)],
        *[({"bbox": [0, 0, *rest]}, "bbox") for rest in ([1], [math.inf, 1], ["1", 1], [10**400, 1])],
        ({"bbox": [0, 0, 0, 1]}, "without width"),
        *[({"bbox": b}, "inside") for b in ([-0.3, 0, 1, 1], [15, 0, 5.3, 1], [0, 0, 20.1, 1], [0, 15, 1, 5.3])],
    ],
)
def test_each_mistake_is_found(tmp_path, image_info, change, title):
    (problem,) = check(tmp_path, [GOOD, {**GOOD, **change}, {**GOOD, **change}], image_info=image_info).problems
    assert title in problem.title
    assert (problem.count, problem.first_row) == (2, 1)


def test_one_mistake_does_not_hide_another(tmp_path, image_info):
    (tmp_path / "sample.json").write_text(json.dumps([GOOD]))
    row = {**GOOD, "extra": 1, "bbox": [0, 0, 30, 1]}
    problems = check(tmp_path, [row], image_info=image_info, sample=str(tmp_path / "sample.json")).problems
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("text", "title", "row"),
    [
        ("\ufeff[%s]", "byte order mark", None),
        ('[%s, {"segmentation": [[1, NaN]]}]', "NaN, an infinite number or one that is too large in 'segmentation'", 1),
        ('[%s, {"area": 1e400}]', "too large in 'area'", 1),
        ("[%s, -Infinity]", "not JSON objects", 1),
    ],
)
def test_what_lenient_readers_read_over(tmp_path, text, title, row):
    path = tmp_path / "a.json"
    path.write_text(text % json.dumps(GOOD), encoding="utf-8")
    problem = check_submission(path).problems[0]
    assert title in problem.title
    assert (problem.count, problem.first_row) == (1, row)


def test_twice_as_many_rows_take_twice_the_work(tmp_path, measure_work):
    def measure(n):
        # Numbers that are all the same to Python's hash.
        rows = ", ".join('{"image_id": %d, "x": 1}' % (i * (2**61 - 1)) for i in range(n))  # noqa: UP031
        path = tmp_path / f"{n}.json"
        path.write_text(f"[{rows}]")
        return measure_work(lambda: check_submission(path))

    small, large = measure(1000), measure(2000)
    assert all(b <= 2.3 * a for a, b in zip(small, large, strict=True)), (small, large)


def test_keys_rows_number_and_size(tmp_path):
    (tmp_path / "sample.json").write_text(json.dumps([{key: 0 for key in GOOD if key != "segmentation"}]))
    result = check(tmp_path, [GOOD], sample=str(tmp_path / "sample.json"))
    assert "sample" in result.problems[0].title
    assert "JSON objects" in check(tmp_path, [[1]]).problems[0].title
    assert check(tmp_path, [GOOD] * 3, max_per_image=3).problems == []
    assert "more than 2 boxes" in check(tmp_path, [GOOD] * 3, max_per_image=2).problems[0].title
    size = len(json.dumps([GOOD]))
    assert check(tmp_path, [GOOD], max_bytes=size).problems == []
    assert check(tmp_path, [GOOD], max_bytes=size - 2).problems[0].count == 2


@pytest.mark.parametrize(
    ("content", "word"),
    [
        *[(text.encode(), "") for text in ("{}", "[", "")],
        *[(json.dumps([GOOD]).encode(code), word) for code, word in (("utf-16", "UTF-16"), ("utf-16-le", "NUL"))],
    ],
)
def test_files_that_hold_no_list_in_utf8(tmp_path, content, word):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.json'.*{word}"):
        check_submission(tmp_path / "a.json")


def test_what_we_write_passes(tmp_path, image_info):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (500, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), np.ptp(corners, axis=1)], axis=1)
    detections = Detections(
        image_ids=np.full(500, 7), category_ids=rng.integers(1, 15, 500), boxes=boxes, scores=rng.uniform(0, 1, 500)
    )
    write_submission(detections, tmp_path / "submission.json", SubmissionOptions(max_bytes=20_000, max_per_image=500))
    result = check_submission(tmp_path / "submission.json", image_info=image_info, max_per_image=500, max_bytes=20_000)
    assert result.num_boxes > 100
    assert result.problems == []


def test_the_tool(tmp_path, image_info):
    (tmp_path / "good.json").write_text(json.dumps([GOOD]))
    (tmp_path / "bad.json").write_text(json.dumps([{**GOOD, "score": 2}]))
    command = [sys.executable, str(ROOT / "tools/check_submission.py"), "--image-info", image_info]
    for name, code, text in [("good", 0, "Nothing is wrong"), ("bad", 1, "row 0"), ("none", 1, "error: ")]:
        done = subprocess.run([*command, str(tmp_path / f"{name}.json")], cwd=ROOT, capture_output=True, text=True)
        assert (done.returncode, text in done.stdout + done.stderr) == (code, True), done
