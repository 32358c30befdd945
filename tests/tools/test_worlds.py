"""infer.py and --eval-only give the same results in 1, 2, 3, 5 and 8 processes, of three images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
SIZES = (1, 2, 3, 5, 8)
# SOLVER.IMS_PER_BATCH is less than the number of processes, which only a training must refuse.
CONFIG = ["--config-file", str(ROOT / "configs" / "quickstart.yaml")]
OPTS = [
    *("MODEL.YOLO.NUM_CLASSES", "2", "INPUT.SIZE_TEST", "96", "DATALOADER.NUM_WORKERS", "0"),
    *("SOLVER.IMS_PER_BATCH", "2", "MODEL.YOLO.SCORE_THRESH_TEST", "0.2", "MODEL.DEVICE", "cpu"),
]


@pytest.fixture(scope="module")
def results(mild_weights_file, tmp_path_factory):
    """The folder of all runs."""
    folder = tmp_path_factory.mktemp("worlds")
    images = folder / "images"
    images.mkdir()
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(60, 96), (96, 60), (80, 80)]):
        small = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(images / f"{i}.png"), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    truth = {
        "images": [
            {"id": 7 + i, "file_name": f"{i}.png", "height": height, "width": width}
            for i, (height, width) in enumerate([(60, 96), (96, 60), (80, 80)])
        ],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": i, "image_id": 7 + i % 3, "category_id": [7, 3][i % 2], "bbox": [5 * i, 4, 30, 30], "area": 900}
            | {"iscrowd": 0}
            for i in range(1, 7)
        ],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    coco = f"[['three', {str(folder / 'truth.json')!r}, {str(images)!r}]]"
    runs = []
    for size in SIZES:
        infer = ["--input", str(images), "--weights", str(mild_weights_file), "--output", str(folder / f"out-{size}")]
        infer += ["--annotations", str(folder / "truth.json"), *OPTS]
        runs.append({"name": f"infer-{size}", "size": size, "tool": "infer.py", "args": infer})
        evaluate = [*CONFIG, "--eval-only", *OPTS, "DATASETS.COCO", coco, "DATASETS.TEST", "('three',)"]
        evaluate += ["MODEL.WEIGHTS", str(mild_weights_file), "OUTPUT_DIR", str(folder / f"eval-{size}-out")]
        runs.append({"name": f"eval-{size}", "size": size, "tool": "train_net.py", "args": evaluate})
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("worlds.py")), str(folder)],
        input=json.dumps(runs),
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        text=True,
        check=True,
        timeout=600,
    )
    return folder


def read_codes(results, name, size):
    return [(results / f"{name}-{size}-{rank}.code").read_text() for rank in range(size)]


def read_logs(results, name, size):
    return "\n".join((results / f"{name}-{size}-{rank}.log").read_text() for rank in range(size))


@pytest.mark.parametrize("size", SIZES)
def test_inference(results, size):
    assert read_codes(results, "infer", size) == ["0"] * size, read_logs(results, "infer", size)
    files = {path.name: path.read_bytes() for path in (results / f"out-{size}").iterdir() if path.is_file()}
    expected = {path.name: path.read_bytes() for path in (results / "out-1").iterdir() if path.is_file()}
    assert len(json.loads(expected["predictions.json"])) >= 3
    assert files == expected
    assert find_scores(results, "infer", size) == find_scores(results, "infer", 1) != []


@pytest.mark.parametrize("size", SIZES)
def test_evaluation(results, size):
    assert read_codes(results, "eval", size) == ["0"] * size, read_logs(results, "eval", size)
    name = "inference/three/coco_instances_results.json"
    assert (results / f"eval-{size}-out" / name).read_bytes() == (results / "eval-1-out" / name).read_bytes()
    assert find_scores(results, "eval", size) == find_scores(results, "eval", 1) != []


def find_scores(results, name, size):
    """The lines with scores that the first process has printed."""
    lines = (results / f"{name}-{size}-0.log").read_text().splitlines()
    return [line for line in lines if line.startswith("on the ") or line.split()[:1] in (["cat"], ["dog"], ["all"])]
