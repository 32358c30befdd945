"""infer.py as processes: killed and started again, and several at once."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
OPTS = ["TEST.IMS_PER_BATCH", "3", "DATALOADER.NUM_WORKERS", "1", "MODEL.YOLO.SCORE_THRESH_TEST", "0.2"]
NUM_IMAGES = 23  # of three shapes, none of which divides into batches of three


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """With the challenge's list, and one that cannot be read."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        height, width = [(60, 96), (96, 60), (80, 80)][i % 7 % 3]
        small = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i:02d}.png"), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    (folder / "11.png").write_bytes(b"no image")
    infos = [{"id": 100 - i, "file_name": f"{i:02d}.png"} for i in range(NUM_IMAGES)]
    (root / "Test_Images_Information.json").write_text(json.dumps({"images": infos}))
    return folder


def command(*args):
    return [sys.executable, str(ROOT / "tools" / "infer.py"), *map(str, args)]


def infer(images, weights, output, *args, opts=OPTS):
    args = command("--input", images, "--weights", weights, "--output", output, *args, *opts)
    return subprocess.run(args, env=ENV, capture_output=True, text=True, timeout=300)


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("[!.]*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(images, mild_weights_file, tmp_path_factory):
    """What one uninterrupted process makes."""
    output = tmp_path_factory.mktemp("whole") / "out"
    done = infer(images, mild_weights_file, output)
    assert done.returncode == 3, done.stdout + done.stderr
    return read(output)


def test_results_of_one_process(whole):
    assert whole.keys() == {"predictions.json", "images.json", "submission.json"}
    ids = {row["image_id"] for row in json.loads(whole["predictions.json"])}
    assert ids == set(range(100 - NUM_IMAGES + 1, 101)) - {100 - 11}


def kill_tree(pid):
    """Kill the children first: they would end by themselves when they notice that their parent is gone."""
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        kill_tree(int(child))
    os.kill(pid, signal.SIGKILL)


def count_lines(output):
    return sum(path.read_bytes().count(b"\n") for path in output.glob(".parking-journal/model-0/results-*.jsonl"))


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds the processes to kill by /proc")
def test_killed_in_two_processes_and_finished_by_two_or_one(images, whole, mild_weights_file, tmp_path):
    """Each image exactly once, and the same bytes: 23 images are 9 batches, which two processes share unevenly."""
    output = tmp_path / "out"
    args = ["--input", images, "--weights", mild_weights_file, "--output", output, "--num-gpus", "2"]
    with subprocess.Popen(command(*args, *OPTS), env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and count_lines(output) < 3:
            pass
        assert process.poll() is None, process.stderr.read().decode()
        kill_tree(process.pid)
    assert process.returncode == -signal.SIGKILL, process.stderr.read()
    assert 3 <= count_lines(output) <= 9
    done = infer(images, mild_weights_file, output)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "were done before the interruption" in done.stdout
    assert read(output) == whole

    done = infer(images, mild_weights_file, tmp_path / "two", "--num-gpus", "2")
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stderr.count("unreadable: ") == 1 and "11.png" in done.stderr
    assert done.stdout.count(" boxes in ") == 1, "one process tells the result"
    assert read(tmp_path / "two") == whole


def test_killed_again_and_again(images, mild_weights_file, tmp_path):
    readable = tmp_path / "in"
    readable.mkdir()
    for path in images.iterdir():
        if path.name != "11.png":
            os.link(path, readable / path.name)
    script = Path(__file__).with_name("infer_and_kill.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "6", str(mild_weights_file), str(readable), *OPTS],
        env=ENV,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "killed.log").read_text()
    outcomes = done.stdout.splitlines()
    # A run that is started after another has finished begins from the start.
    assert outcomes.count("killed") >= 4 and set(outcomes) <= {"killed", "ended with 0"}
    assert "were done before the interruption" in (tmp_path / "killed.log").read_text()
    killed, whole = read(tmp_path / "killed"), read(tmp_path / "whole")
    assert killed == whole
    assert "visualizations/overview.png" in whole


def test_two_machines(images, mild_weights_file, tmp_path):
    """Two machines are two starts on this one, which meet at a port."""
    import socket

    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{s.getsockname()[1]}"

    def start(rank, pattern, output):
        machine = ["--num-machines", "2", "--machine-rank", rank, "--dist-url", url, "--output", tmp_path / output]
        args = command("--input", images / pattern, "--weights", mild_weights_file, *machine, *OPTS)
        return subprocess.Popen(args, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for process in (start(0, "0*.png", "0"), start(1, "0[0-8].png", "1")):
        _, err = process.communicate(timeout=300)
        assert process.returncode == 1 and "the images of --input changed between them" in err, err
    assert infer(images / "0*.png", mild_weights_file, tmp_path / "one").returncode == 0
    expected = read(tmp_path / "one")
    assert {row["image_id"] for row in json.loads(expected["predictions.json"])} == set(range(100 - 9, 101))
    for outputs in (("0", "1"), ("shared", "shared")):
        first, second = start(0, "0*.png", outputs[0]), start(1, "0*.png", outputs[1])
        for process in (first, second):
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, out + err
        assert "done: machine 0 has the results" in out
        found = read(tmp_path / outputs[0])
        assert found.keys() == {"predictions.json", "images.json", "submission.json"}
        assert found == expected, "each image once"
    assert read(tmp_path / "1") == {}
