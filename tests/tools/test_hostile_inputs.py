"""Inputs that a tool might wait for without end, or whose names would control the terminal."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ["--config-file", str(ROOT / "configs/quickstart.yaml")]
CPU = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"]
ESCAPES = "\x1b]0;title\x07\x1b[2J\r\u202e\u200b"


def run_all(folder, commands):
    """Exit code and output by name."""
    logs = folder / "logs"
    logs.mkdir()
    runs = [{"name": name, "size": 1, "tool": c[0], "args": [*map(str, c[1:])]} for name, c in commands.items()]
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("worlds.py")), str(logs)],
        input=json.dumps(runs),
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        check=True,
        timeout=300,
    )
    texts = {name: (logs / f"{name}-0.log").read_text(errors="replace") for name in commands}
    return {name: (int((logs / f"{name}-0.code").read_text()), text) for name, text in texts.items()}


def data_opts(json_file, images):
    return ["DATASETS.COCO", f"[['own',{str(json_file)!r},{str(images)!r}]]", "DATASETS.TRAIN", "('own',)",
            "DATASETS.TEST", "('own',)", "MODEL.YOLO.NUM_CLASSES", "0", "MODEL.WEIGHTS", "", *CPU]  # fmt: skip


def make_commands(x, data, weights, folder):
    """Every path argument of every tool, with ``x`` as the path."""
    images, info, rows = data / "test/images", data / "Test_Images_Information.json", folder / "rows.json"
    rows.write_text("[]")
    infer = ["infer.py", "--input", images, "--output", folder / "out"]
    (folder / "data").mkdir(exist_ok=True)
    if not os.path.lexists(folder / "data/train.zip"):
        (folder / "data/train.zip").symlink_to(x)
    return {
        "train-config": ["train_net.py", "--config-file", x],
        "train-json": ["train_net.py", *CONFIG, "OUTPUT_DIR", folder / "t", *data_opts(x, images)],
        "train-weights": ["train_net.py", *CONFIG, "OUTPUT_DIR", folder / "t", *data_opts(info, images)[:-6],
                          *CPU, "MODEL.WEIGHTS", x],
        "train-images": ["train_net.py", *CONFIG, "OUTPUT_DIR", folder / "t", *data_opts(info, x)],
        "train-output": ["train_net.py", *CONFIG, *data_opts(info, images), "OUTPUT_DIR", x],
        "infer-input": ["infer.py", "--input", x, "--weights", weights, "--output", folder / "out"],
        "infer-weights": [*infer, "--weights", x, *CPU],
        "infer-config": [*infer, "--weights", weights, "--config-file", x, *CPU],
        "infer-info": [*infer, "--weights", weights, "--image-info", x, *CPU],
        "infer-annotations": [*infer, "--weights", weights, "--annotations", x, *CPU],
        "infer-output": ["infer.py", "--input", images, "--weights", weights, "--output", x, *CPU],
        "check-json": ["check_data.py", "--coco", x, images, "--output", folder / "check"],
        "check-images": ["check_data.py", "--coco", info, x, "--output", folder / "check"],
        "check-root": ["check_data.py", "--data-dir", x, "--output", folder / "check"],
        "check-output": ["check_data.py", "--coco", info, images, "--output", x],
        "prepare-root": ["prepare_data.py", "--data-dir", x],
        "prepare-zip": ["prepare_data.py", "--data-dir", folder / "data"],
        "visualize-config": ["visualize_data.py", "--source", "annotation", "--config-file", x],
        "visualize-json": ["visualize_data.py", "--source", "annotation", *CONFIG, *data_opts(x, images)],
        "visualize-output": ["visualize_data.py", "--source", "annotation", *CONFIG, "--output", x],
        "anchors-config": ["compute_anchors.py", "--config-file", x],
        "anchors-json": ["compute_anchors.py", *CONFIG, *data_opts(x, images)],
        "submission-predictions": ["make_submission.py", "--predictions", x, "--output", folder / "s.json"],
        "submission-info": ["make_submission.py", "--predictions", rows, "--image-info", x],
        "submission-annotations": ["make_submission.py", "--predictions", rows, "--annotations", x],
        "check-submission": ["check_submission.py", x],
        "check-submission-info": ["check_submission.py", rows, "--image-info", x],
        "check-submission-sample": ["check_submission.py", rows, "--sample", x],
        "convert-input": ["convert_weights.py", x, folder / "c.pth"],
        "convert-config": ["convert_weights.py", weights, folder / "c.pth", "--config-file", x],
        "synthetic-output": ["make_synthetic.py", "--output", x, "--num-train", "1", "--num-test", "1"],
    }  # fmt: skip


def test_a_fifo_in_place_of_any_file_ends_every_tool_in_a_sentence(tmp_path, tiny_scenes, mild_weights_file):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    commands = make_commands(fifo, tiny_scenes, mild_weights_file, tmp_path)
    for name, (code, text) in run_all(tmp_path, commands).items():
        errors = [line for line in text.splitlines() if line.startswith("error: ")]
        assert (code, len(errors)) == (1, 1), (name, code, text)
        assert "Traceback" not in text


@pytest.fixture
def hostile(tmp_path):
    """Data whose names steer a terminal."""
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    names = [f"{i}{ESCAPES}\n[log] forged.png" for i in range(3)]
    for name in names:
        cv2.imwrite(str(root / "a.png"), rng.integers(0, 256, (60, 96, 3), dtype=np.uint8))
        shutil.move(root / "a.png", root / "images" / name)
    (root / "images" / names[2]).write_bytes(b"\x89PNG\r\n\x1a\n broken")
    content = {
        "images": [
            {"id": f"{ESCAPES}{i}", "file_name": name, "height": 60, "width": 96} for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": f"{ESCAPES}{i}",
                "image_id": f"{ESCAPES}{i}",
                "category_id": 1,
                "bbox": [5, 5, 20 - 30 * (i == 1), 20],
            }
            for i in range(2)
        ],
        "categories": [{"id": 1, "name": f"cat{ESCAPES}"}, {"id": 2, "name": "dog"}],
        ESCAPES: [float("nan")],
    }
    (root / "own.json").write_text(json.dumps(content))
    return root


def test_names_steer_no_terminal_and_no_log(tmp_path, hostile, mild_weights_file):
    json_file, images = hostile / "own.json", hostile / "images"
    rows = tmp_path / "rows.json"
    rows.write_text(json.dumps([{"image_id": ESCAPES, "category_id": ESCAPES, ESCAPES: float("nan")}]))
    config = tmp_path / f"c{ESCAPES}.yaml"
    config.write_text(f'SEED: {json.dumps(ESCAPES)}\n"K{json.dumps(ESCAPES)[1:-1]}": 1\n')
    named = tmp_path / f"gone{ESCAPES}\nforged"
    train = ["train_net.py", *CONFIG, *data_opts(json_file, images), "OUTPUT_DIR", tmp_path / "t",
             "SOLVER.MAX_ITER", "1", "SOLVER.IMS_PER_BATCH", "1"]  # fmt: skip
    infer = ["infer.py", "--weights", mild_weights_file, "--input", images]
    commands = {
        "check": ["check_data.py", "--coco", json_file, images, "--num-workers", "1", "--output", tmp_path / "check"],
        "train": train,
        "train-repair": [*train, "DATASETS.POLICY", "repair"],
        "train-config": ["train_net.py", "--config-file", config],
        "train-key": ["train_net.py", *CONFIG, f"KEY{ESCAPES}", ESCAPES],
        "train-flag": ["train_net.py", *CONFIG, f"--{ESCAPES}"],
        "infer": [*infer, "--output", tmp_path / "out", *CPU],
        "infer-named": [*infer, "--output", tmp_path / f"out{ESCAPES}", "--visualize", "3", *CPU],
        "infer-annotations": [*infer, "--output", tmp_path / "out3", "--annotations", json_file, *CPU],
        "infer-gone": ["infer.py", "--input", named, "--weights", named],
        "visualize": ["visualize_data.py", "--source", "annotation", *CONFIG, "--output", tmp_path / "v",
                      *data_opts(json_file, images), "DATASETS.POLICY", "repair"],
        "anchors": ["compute_anchors.py", *CONFIG, *data_opts(json_file, images), "DATASETS.POLICY", "repair"],
        "submission": ["make_submission.py", "--predictions", rows],
        "check-submission": ["check_submission.py", rows, "--image-info", json_file, "--sample", rows],
        "prepare": ["prepare_data.py", "--data-dir", named],
        "convert": ["convert_weights.py", named, tmp_path / "c.pth"],
        "synthetic": ["make_synthetic.py", "--output", config],
    }  # fmt: skip
    results = run_all(tmp_path, commands)
    texts = {name: text for name, (_, text) in results.items()}
    texts |= {str(path): path.read_text() for path in (tmp_path / "t").glob("log.txt*")}
    for name, text in texts.items():
        assert not set(text) & set("\x1b\x07\u202e\u200b"), (name, text)
        # tqdm writes a carriage return before its own text.
        assert all(part.startswith(("predicting", "reading", "drawing")) or "it/s" in part or "image" in part
                   for part in text.split("\r")[1:] if part.strip()), (name, text)  # fmt: skip
        assert not any(line.startswith(("[log]", "forged")) for line in text.splitlines()), (name, text)
        assert "Traceback" not in text, (name, text)
    assert {code for code, _ in results.values()} <= {0, 1, 2, 3}
    assert results["infer"][0] == 3 and "\\x1b]0;title" in results["infer"][1]
