"""The tool that checks data."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parking.utils.errors import UserError
from parking.utils.marks import MARK_NAME

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "check_data.py"
PICTURES = {"class_counts.png", "box_sizes.png", "boxes_per_image.png", "conditions.png", "class_examples.png"}


@pytest.fixture
def data(tmp_path):
    """Four clean images of two sequences."""
    root = tmp_path / "데이터"
    folder = root / "train" / "images"
    folder.mkdir(parents=True)
    (root / "train" / "label").mkdir()
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for k in range(4):
        name = f"20201102_서울_-_-_비_야간_실내_left_{k // 2:06d}_{k:07d}.png"
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / name)
        images.append({"id": k, "file_name": name, "width": 64, "height": 48})
        annotations.append({"id": k, "image_id": k, "category_id": k % 2 + 1, "bbox": [4, 5, 20, 30]})
    content = {"images": images, "annotations": annotations}
    (root / "train" / "label" / "Train.json").write_text(json.dumps(content), encoding="utf-8")
    return root


def run_main(*args):
    return runpy.run_path(str(TOOL))["main"]([*map(str, args)])


def list_states(root):
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_clean_data_ends_with_0_and_is_left_alone(data, tmp_path, capsys):
    before = list_states(data)
    output = tmp_path / "out"
    assert run_main("--data-dir", data, "--output", output, "--num-workers", 1) == 0
    assert list_states(data) == before
    assert {path.name for path in output.iterdir()} == {*PICTURES, "report.json", MARK_NAME}
    assert json.loads((output / "report.json").read_bytes())["severities"]["error"] == 0
    printed = capsys.readouterr()
    assert "errors: 0, warnings: 12, notes: 0" in printed.out  # classes without a box
    assert "4/4" in printed.err


def test_errors_end_with_1(data, tmp_path):
    name = next((data / "train" / "images").iterdir())
    name.write_bytes(name.read_bytes()[:300])
    (tmp_path / "elsewhere").mkdir()
    result = subprocess.run(
        [sys.executable, str(TOOL), "--data-dir", str(data), "--num-workers", "2"],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
    )
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    row = next(line for line in result.stdout.splitlines() if "cut off" in line)
    assert row.split()[:4] == ["train", "error", "1", "stop"]
    output = tmp_path / "elsewhere" / "output" / "check"
    findings = json.loads((output / "report.json").read_bytes())["findings"]
    (finding,) = [finding for finding in findings if finding["kind"] != "class_without_boxes"]
    assert (finding["kind"], finding["where"]) == ("image_truncated", name.name)
    assert {path.name for path in output.glob("*.png")} == PICTURES


def test_pictures_are_drawn_without_a_json_as_well(data, tmp_path):
    (data / "train" / "label" / "Train.json").unlink()
    assert run_main("--data-dir", data, "--output", tmp_path / "out", "--num-workers", 1) == 1
    assert (tmp_path / "out" / "class_counts.png").is_file()


def test_wrong_usage_ends_with_2():
    for args in (["--num-workers", 0], ["--split", "half"], ["--coco", "one"], ["--data-dir", "a", "--coco", "b", "c"]):
        with pytest.raises(SystemExit) as exited:
            run_main(*args)
        assert exited.value.code == 2


def test_mistakes_are_explained(data, tmp_path):
    images, json_file = data / "train" / "images", data / "train" / "label" / "Train.json"
    (tmp_path / "file").touch()
    for args, message in [
        (["--data-dir", data, "--output", data / "train" / "check"], f"--output .*check .* data folder {data}"),
        (["--coco", json_file, images, "--output", images / "check"], f"--output .*check .* data folder {images}"),
        (["--data-dir", tmp_path / "nowhere"], "nowhere' .*--data-dir"),
        (["--data-dir", data, "--output", tmp_path / "file" / "x"], "--output .*file"),
    ]:
        with pytest.raises(UserError, match=message):
            run_main(*args)
    assert not (images / "check").exists()
