"""The same config gives the same weights, bit for bit, however often the training is interrupted."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
NUM_KILLS = 10


@pytest.fixture(scope="module")
def runs(tiny_scenes, tmp_path_factory):
    """A folder with the trainings ``whole`` and ``killed``, both of two stages."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "one.yaml").write_text("DATALOADER: {SAMPLER_TRAIN: ClassBalancedTrainingSampler}\n")
    (folder / "two.yaml").write_text("SOLVER: {MAX_ITER: 9, BASE_LR: 0.004}\nINPUT: {AUG: {STRONG_OFF_ITERS: 3}}\n")
    config = folder / "config.yaml"
    config.write_text(
        f"""
_BASE_: {ROOT}/configs/Base-YOLO.yaml
SEED: 5
DATASETS: {{ROOT: {tiny_scenes}}}
INPUT: {{SIZE_TRAIN: [64, 96], SIZE_TEST: 96, AUG: {{MIXUP_PROB: 0.5}}}}
DATALOADER: {{NUM_WORKERS: 1}}
MODEL: {{DEVICE: cpu, YOLO: {{WIDTH_MULTIPLE: 0.125}}}}
SOLVER:
  STAGES: [[one, one.yaml], [two, two.yaml]]
  IMS_PER_BATCH: 4
  NOMINAL_BATCH_SIZE: 12
  ITERS_PER_EPOCH: 5
  MAX_ITER: 14
  WARMUP_ITERS: 3
  CHECKPOINT_PERIOD: 2
TEST: {{EVAL_PERIOD: 4}}
"""
    )
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kill_and_resume.py")), str(folder), str(NUM_KILLS), str(config)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=900,
    )
    logs = "".join(path.read_text(errors="replace")[-3000:] for path in folder.glob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    return folder, done.stdout


@pytest.fixture(scope="module")
def runs_of_two(tiny_scenes, tmp_path_factory):
    """Final weights of a training in two processes, and of one that was killed after a checkpoint and resumed."""
    folder = tmp_path_factory.mktemp("runs_of_two")
    config = folder / "config.yaml"
    config.write_text(
        f"""
_BASE_: {ROOT}/configs/Base-YOLO.yaml
SEED: 5
DATASETS: {{ROOT: {tiny_scenes}, TEST: []}}
INPUT: {{SIZE_TRAIN: [64, 96]}}
DATALOADER: {{NUM_WORKERS: 1, SAMPLER_TRAIN: ClassBalancedTrainingSampler}}
MODEL: {{DEVICE: cpu, YOLO: {{WIDTH_MULTIPLE: 0.125}}}}
SOLVER: {{IMS_PER_BATCH: 4, NOMINAL_BATCH_SIZE: 12, MAX_ITER: 61, WARMUP_ITERS: 3, CHECKPOINT_PERIOD: 5}}
"""
    )

    def start(name, *flags):
        command = [sys.executable, ROOT / "tools/train_net.py", "--config-file", config, "--num-gpus", "2", *flags]
        return subprocess.Popen(
            [*map(str, command), "OUTPUT_DIR", str(folder / name)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.DEVNULL,
        )

    whole = start("whole")
    assert whole.wait(timeout=600) == 0
    killed = start("killed")
    while killed.poll() is None and not list((folder / "killed").glob("model_0000*.pth")):
        time.sleep(0.01)
    assert killed.poll() is None, "it ended before it could be killed"
    for pid in find_descendants(killed.pid):  # the training processes are in a group of their own
        os.kill(pid, signal.SIGKILL)
    killed.kill()
    killed.wait()
    assert start("killed", "--resume").wait(timeout=600) == 0
    return [torch.load(folder / name / "model_final.pth", weights_only=True)["model"] for name in ("whole", "killed")]


def find_descendants(pid):
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [descendant for child in children for descendant in (*find_descendants(int(child)), int(child))]


def test_a_kill_of_two_processes_changes_nothing(runs_of_two):
    whole, killed = runs_of_two
    assert_same(killed, whole)


def test_the_kills_came_in_the_middle(runs):
    _, printed = runs
    assert printed.count("killed") == NUM_KILLS, printed
    assert "one/model_0" in printed, "some of them after a checkpoint"


def assert_same(actual, expected, path=""):
    if isinstance(expected, torch.Tensor):
        assert torch.equal(actual, expected), path
    elif isinstance(expected, dict):
        assert actual.keys() == expected.keys(), path
        for key, value in expected.items():
            assert_same(actual[key], value, f"{path}.{key}")
    elif isinstance(expected, list | tuple):
        assert len(actual) == len(expected), path
        for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(one, other, f"{path}[{i}]")
    else:
        assert actual == expected or (actual != actual and expected != expected), path  # both not a number


@pytest.mark.parametrize("stage", ["one", "two"])
@pytest.mark.parametrize("name", ["model_best.pth", "model_final.pth", "last"])
def test_ten_kills_change_nothing(runs, stage, name):
    folder, _ = runs
    if name == "last":
        name = (folder / "whole" / stage / "last_checkpoint").read_text()
        assert (folder / "killed" / stage / "last_checkpoint").read_text() == name
    whole, killed = (torch.load(folder / run / stage / name, weights_only=True) for run in ("whole", "killed"))
    for checkpoint in (whole, killed):
        checkpoint["config"].pop("OUTPUT_DIR")
        checkpoint["config"]["MODEL"].pop("WEIGHTS")
        checkpoint.get("trainer", {}).pop("hooks", None)  # how long iterations took
    assert_same(killed, whole)
