"""The data set on disk, and the tool that makes it."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import cv2
import numpy as np
import pytest

from parking.challenge.classes import CLASS_NAMES
from parking.challenge.conditions import parse_conditions
from parking.synthetic import make_dataset
from parking.utils.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[2]
TOOL = REPOSITORY / "tools" / "make_synthetic.py"
SMALL = {"num_train": 14, "num_test": 3, "size": (160, 90), "balanced": True}

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def run_tool(*args):
    command = [sys.executable, str(TOOL), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)


def contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "data"
    make_dataset(root, **SMALL)
    return root


def test_layout(data):
    names = {"Test_Images_Information.json", "sample_submission.json", "test", "train"}
    assert {path.name for path in data.iterdir()} == names
    assert [path.name for path in (data / "train" / "label").iterdir()] == ["Train.json"]
    assert not list(data.rglob("*.zip"))


def test_train_json(data):
    content = json.loads((data / "train" / "label" / "Train.json").read_text(encoding="utf-8"))
    assert set(content) == {"images", "annotations", "categories"}
    assert [(c["id"], c["name"]) for c in content["categories"]] == list(enumerate(CLASS_NAMES, start=1))
    assert [image["id"] for image in content["images"]] == list(range(1, 15))
    assert {image["file_name"] for image in content["images"]} == {p.name for p in (data / "train/images").iterdir()}
    for image in content["images"]:
        pixels = cv2.imdecode(np.fromfile(data / "train/images" / image["file_name"], np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (image["height"], image["width"], 3) == (90, 160, 3)
        assert len(parse_conditions(image["file_name"])) == 5
    assert len(content["annotations"]) > 14
    assert [a["id"] for a in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for annotation in content["annotations"]:
        assert set(annotation) == {"id", "image_id", "category_id", "bbox", "area", "iscrowd"}
        assert 1 <= annotation["image_id"] <= 14 and 1 <= annotation["category_id"] <= 14
        x, y, width, height = annotation["bbox"]
        assert 0 <= x < x + width <= 160 and 0 <= y < y + height <= 90
        assert annotation["area"] == width * height and annotation["iscrowd"] == 0


def test_test_images_and_sample_submission(data):
    images = json.loads((data / "Test_Images_Information.json").read_text())["images"]
    assert [image["id"] for image in images] == [1, 2, 3]
    assert {image["file_name"] for image in images} == {path.name for path in (data / "test/images").iterdir()}
    assert all(str(uuid.UUID(Path(image["file_name"]).stem)) + ".png" == image["file_name"] for image in images)
    submission = json.loads((data / "sample_submission.json").read_text())
    assert {entry["image_id"] for entry in submission} == {1, 2, 3}
    for entry in submission:
        assert set(entry) == {"image_id", "category_id", "bbox", "score", "segmentation"}
        assert entry["segmentation"] == [] and len(entry["bbox"]) == 4 and 0 <= entry["score"] <= 1


def test_same_seed_same_bytes_whatever_the_workers(data, tmp_path):
    make_dataset(tmp_path / "two", workers=2, **SMALL)
    assert contents(tmp_path / "two") == contents(data)
    make_dataset(tmp_path / "other", seed=1, **{**SMALL, "num_train": 1, "num_test": 0})
    assert not set(contents(tmp_path / "other")) & {p for p in contents(data) if "train/images" in p}


def test_an_output_that_holds_data_is_left_alone(data):
    before = contents(data)
    with pytest.raises(UserError, match=r"train.*--output"):
        make_dataset(data, **SMALL)
    assert contents(data) == before


def test_a_failed_run_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(images):
        raise KeyboardInterrupt

    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "notes.txt").write_text("mine")
    for name, left in (("new", []), ("kept", ["kept", "notes.txt"])):
        with pytest.raises(KeyboardInterrupt):
            make_dataset(tmp_path / name, progress=fail, **SMALL)
        assert [p.name for p in [tmp_path / name, *(tmp_path / name).rglob("*")] if p.exists()] == left


def test_the_tool_and_its_exit_codes(tmp_path):
    args = ("--num-train", 2, "--num-test", 1, "--size", "96x64", "--workers", 1, "--output", tmp_path / "data")
    done = run_tool(*args)
    assert done.returncode == 0 and f"written to {tmp_path / 'data'}" in done.stdout
    assert "3/3" in done.stderr
    again = run_tool(*args)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in again.stderr
    (tmp_path / "file").write_text("")
    assert run_tool("--output", tmp_path / "file" / "below").returncode == 1
    for wrong in (("--size", "960"), ("--num-train", "0"), ("--num-test", "-1")):
        done = run_tool("--output", tmp_path / "x", *wrong)
        assert done.returncode == 2 and f"{wrong[0]}: '{wrong[1]}'" in done.stderr


def test_ctrl_c(tmp_path):
    command = [sys.executable, str(TOOL), "--output", str(tmp_path / "data"), "--workers", "2", "--size", "320x180"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
        # A shell starts background jobs, and so these tests and this tool, with SIGINT ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("data/.unfinished-*/train/images/*.png")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr
    assert not (tmp_path / "data").exists()


def test_neither_torch_nor_detectron2_is_imported():
    code = (
        "import sys, runpy; sys.argv = ['make_synthetic.py', '--help']\n"
        "try: runpy.run_path(sys.path.pop(), run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'parking.synthetic.scene' in sys.modules\n"
        "print(sorted({'torch', 'detectron2', 'torchvision', 'matplotlib'} & set(sys.modules)))"
    )
    code = f"import sys; sys.path.append({str(TOOL)!r})\n" + code
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
