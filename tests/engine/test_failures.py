"""What ends a training, and what is left of it: the tool itself, on a few tiny scenes."""

import contextlib
import importlib
import io
import json
import logging
import os
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from parking.checkpoint import FINISHED, Checkpointer
from parking.engine.setup import lock_output_dir

ROOT = Path(__file__).resolve().parents[2]
TRAIN_NET = ROOT / "tools" / "train_net.py"
# Generous limits, which only a run that hangs exceeds.
START_SECONDS, END_SECONDS = 240, 120
TINY = [
    *("INPUT.SIZE_TRAIN", "[64, 96]", "INPUT.SIZE_TEST", "96", "SOLVER.IMS_PER_BATCH", "4"),
    *("SOLVER.WARMUP_ITERS", "2", "SOLVER.CHECKPOINT_PERIOD", "2", "DATASETS.TEST", "()", "MODEL.DEVICE", "cpu"),
]


def train_args(scenes, output_dir, *opts):
    return [
        *("--config-file", ROOT / "configs" / "quickstart.yaml"),
        *("DATASETS.ROOT", scenes, "OUTPUT_DIR", output_dir, *TINY, *opts),
    ]


def run_here(monkeypatch, capsys, *args):
    """Run the tool in this process, without ten seconds of imports; return exit code, stdout and stderr."""
    from detectron2.utils.logger import setup_logger

    # Handlers of an earlier call write to a stdout that pytest has closed meanwhile.
    setup_logger.cache_clear()
    for logger in ("detectron2", "fvcore", "parking"):
        logging.getLogger(logger).handlers.clear()
    monkeypatch.setattr(sys, "argv", ["train_net.py", *map(str, args)])
    with pytest.raises(SystemExit) as exited:
        runpy.run_path(str(TRAIN_NET), run_name="__main__")
    out, err = capsys.readouterr()
    return exited.value.code, out, err


def run_and_harm(output_dir, harm, script, *args, env=()):
    """Run the tool in a process of its own, call ``harm(pid)`` when it has saved; exit code, stdout and stderr."""
    process = subprocess.Popen(
        [sys.executable, str(script), *map(str, args)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **dict(env)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    started = {}
    try:
        deadline = time.monotonic() + START_SECONDS
        while not (output_dir / "last_checkpoint").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
        started = children(process.pid)
        started |= children(*started)
        harm(process.pid)
        out, err = process.communicate(timeout=END_SECONDS)
        left = [pid for pid, name in started.items() if command_line(pid) == name]
        assert not left, "processes outlive the training"
    finally:
        for pid in {process.pid, *started} if process.returncode is None else ():
            os.kill(pid, signal.SIGKILL)
    return process.returncode, out, err


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def children(*pids):
    """{pid: command line} of the processes that those of ``pids`` have started to share their work."""
    if not Path("/proc/self/stat").exists():
        pytest.skip("needs Linux's /proc")
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # pid (name) state ppid ...; the name may hold anything.
            parent = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        child = int(path.parent.name)
        if parent in pids and b"resource_tracker" not in command_line(child):
            found[child] = command_line(child)
    return found


def kill_a_data_worker(pid, num_processes):
    trainers = [pid] if num_processes == 1 else list(children(pid))
    workers = list(children(*trainers))
    assert len(trainers) == len(workers) == num_processes
    os.kill(workers[-1], signal.SIGKILL)


def kill_a_trainer(pid, rank):
    # Processes are started in the order of their ranks.
    os.kill(sorted(children(pid))[rank], signal.SIGKILL)


def last_lines(text, count=3):
    return "\n".join(text.strip().splitlines()[-count:])


def check_left_intact(output_dir):
    """Check that the last checkpoint is sound and no file is half written; return the names of the checkpoints."""
    last = torch.load(output_dir / (output_dir / "last_checkpoint").read_text(), weights_only=True)
    for name, tensor in [*last["model"].items(), *last["ema"]["average"].items()]:
        assert tensor.isfinite().all(), name
    assert not list(output_dir.glob(".*tmp"))
    assert not (output_dir / "model_final.pth").exists()
    return sorted(path.name for path in output_dir.glob("model_0*.pth"))


@pytest.mark.long
@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_killed_data_worker_ends_the_run(tiny_scenes, tmp_path, num_processes):
    args = train_args(tiny_scenes, tmp_path, "SOLVER.MAX_ITER", "100000", "DATALOADER.NUM_WORKERS", "1")
    code, out, err = run_and_harm(
        tmp_path, lambda pid: kill_a_data_worker(pid, num_processes), TRAIN_NET, "--num-gpus", num_processes, *args
    )
    assert code == 1, out + err
    assert re.match(r"error: A data worker \(process \d+\) was killed by SIGKILL", last_lines(err, 1))
    assert "Traceback" not in out + err
    check_left_intact(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run(tiny_scenes, tmp_path, rank):
    args = train_args(tiny_scenes, tmp_path, "SOLVER.MAX_ITER", "100000", "DATALOADER.NUM_WORKERS", "1")
    code, out, err = run_and_harm(tmp_path, lambda pid: kill_a_trainer(pid, rank), TRAIN_NET, "--num-gpus", "2", *args)
    assert code == 1, out + err
    assert re.match(rf"error: process {rank} was killed by SIGKILL", last_lines(err, 1))
    assert "Traceback" not in out + err + (tmp_path / "log.txt").read_text()
    check_left_intact(tmp_path)


@pytest.mark.long
def test_an_exception_in_one_process_ends_all(tiny_scenes, tmp_path):
    opts = ["SOLVER.MAX_ITER", "100000", "MODEL.META_ARCHITECTURE", "FaultyYOLO", "DATALOADER.NUM_WORKERS", "0"]
    args = train_args(tiny_scenes, tmp_path, *opts)
    script = Path(__file__).with_name("train_with_fault.py")
    code, out, err = run_and_harm(
        tmp_path, lambda pid: None, script, "--num-gpus", "2", *args, env={"FAULT": "raise 9"}
    )
    assert code == 1, out + err
    assert last_lines(err, 1) == "ValueError: this is the fault"
    assert "Process 1 failed:\nTraceback" in err
    assert check_left_intact(tmp_path) == ["model_0000005.pth", "model_0000007.pth"]


@pytest.fixture
def faulty(monkeypatch):
    """Registers the model that fails as FAULT says; the options that choose it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    importlib.import_module("train_with_fault")
    return ["MODEL.META_ARCHITECTURE", "FaultyYOLO", "DATALOADER.NUM_WORKERS", "0", "SOLVER.MAX_ITER", "8"]


def test_three_losses_in_a_row_that_are_not_finite_end_the_run(tiny_scenes, tmp_path, monkeypatch, capsys, faulty):
    monkeypatch.setenv("FAULT", "nan 3,5,6,7")
    code, _, err = run_here(monkeypatch, capsys, *train_args(tiny_scenes, tmp_path, *faulty))
    assert code == 1
    assert re.fullmatch(r"error: The loss was not finite in 3 steps in a row: .*lower SOLVER.BASE_LR.*\n", err)
    assert check_left_intact(tmp_path) == ["model_0000003.pth", "model_0000005.pth"]
    told = [line for line in (tmp_path / "log.txt").read_text().splitlines() if "not finite" in line]
    assert [int(re.search(r"iteration (\d+)", line)[1]) for line in told] == [3, 5, 6, 7]
    for line in told:
        # Four images to a batch, and the three terms of the loss.
        assert len(re.findall(r"\.png", line)) == 4
        assert re.search(r"loss_box nan", line) and re.search(r"loss_obj \d", line) and re.search(r"loss_cls \d", line)


def test_a_loss_that_is_not_finite_costs_one_step(tiny_scenes, tmp_path, monkeypatch, capsys, faulty):
    monkeypatch.setenv("FAULT", "nan 2,3,5,7")
    code, _, err = run_here(monkeypatch, capsys, *train_args(tiny_scenes, tmp_path, *faulty))
    assert code == 0, err
    final = torch.load(tmp_path / "model_0000007.pth", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in final["model"].values())
    assert final["ema"]["num_updates"] == 4, "the steps of 0, 1, 4 and 6"


def test_a_removed_output_dir_ends_the_run(tiny_scenes, tmp_path, monkeypatch, capsys):
    output_dir = tmp_path / "out"
    save_resumable = Checkpointer.save_resumable

    def save_to_a_removed_folder(self, name):
        if name == "model_0000003":
            shutil.rmtree(output_dir)
        save_resumable(self, name)

    monkeypatch.setattr(Checkpointer, "save_resumable", save_to_a_removed_folder)
    args = train_args(tiny_scenes, output_dir, "SOLVER.MAX_ITER", "8", "DATALOADER.NUM_WORKERS", "0")
    code, _, err = run_here(monkeypatch, capsys, *args)
    assert code == 1
    assert re.fullmatch(rf"error: OUTPUT_DIR {re.escape(str(output_dir))} was removed .*", last_lines(err, 1))
    assert not list(output_dir.glob("*.pth"))


def test_a_second_training_of_a_folder_is_refused(tiny_scenes, tmp_path, monkeypatch, capsys):
    args = train_args(tiny_scenes, tmp_path, "SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "0")
    monkeypatch.setattr("parking.engine.setup._LOCK_SECONDS", 0.0)
    with lock_output_dir(str(tmp_path)):
        code, _, err = run_here(monkeypatch, capsys, *args)
        assert code == 1 and re.search(rf"error: OUTPUT_DIR {re.escape(str(tmp_path))} is in use", err)
        assert [path.name for path in tmp_path.iterdir()] == [".training.lock"]
    code, _, err = run_here(monkeypatch, capsys, *args)
    assert code == 0, err
    assert not (tmp_path / ".training.lock").exists()


def test_what_another_training_did_until_it_left_the_folder_counts(tiny_scenes, tmp_path, monkeypatch, capsys):
    args = train_args(tiny_scenes, tmp_path / "out", "SOLVER.MAX_ITER", "2", "DATALOADER.NUM_WORKERS", "0")
    code, _, err = run_here(monkeypatch, capsys, *args)
    assert code == 0, err
    (tmp_path / "later").mkdir()
    for path in [
        *(tmp_path / "out").glob("*.pth"),
        *(tmp_path / "out" / name for name in ("last_checkpoint", FINISHED)),
    ]:
        path.rename(tmp_path / "later" / path.name)

    @contextlib.contextmanager
    def lock_once_it_is_finished(output_dir):
        for path in (tmp_path / "later").iterdir():
            path.rename(tmp_path / "out" / path.name)
        yield

    monkeypatch.setattr("parking.engine.run.lock_output_dir", lock_once_it_is_finished)
    before = {path.name: path.stat() for path in (tmp_path / "later").iterdir()}
    code, _, err = run_here(monkeypatch, capsys, "--resume", *args)
    assert code == 0, err
    assert {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in before} == {
        name: status.st_mtime_ns for name, status in before.items()
    }


def test_a_wrong_config_leaves_no_folder(tiny_scenes, tmp_path, monkeypatch, capsys):
    code, _, err = run_here(monkeypatch, capsys, *train_args(tiny_scenes, tmp_path / "out", "SOLVER.MAX_ITER", "0"))
    assert code == 1 and "SOLVER.MAX_ITER" in last_lines(err, 1)
    (tmp_path / "c.yaml").write_text(f'OUTPUT_DIR: "{tmp_path}/a\\0b"\n')
    code, _, err = run_here(monkeypatch, capsys, "--config-file", tmp_path / "c.yaml")
    assert code == 1 and "OUTPUT_DIR" in last_lines(err, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_a_full_disk_leaves_the_previous_checkpoint(tiny_scenes, tmp_path, monkeypatch, capsys):
    """From the second checkpoint to the run's end nothing can be written to any file."""
    save_resumable = Checkpointer.save_resumable
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_to_a_full_disk(self, name):
        if name == "model_0000003":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        save_resumable(self, name)

    monkeypatch.setattr(Checkpointer, "save_resumable", save_to_a_full_disk)
    args = train_args(tiny_scenes, tmp_path, "SOLVER.MAX_ITER", "8", "DATALOADER.NUM_WORKERS", "0")
    try:
        code, _, err = run_here(monkeypatch, capsys, *args)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 1
    # The lines above it are complaints of logging, which cannot write to log.txt.
    path = re.escape(str(tmp_path / "model_0000003.pth"))
    assert re.fullmatch(rf"error: .*{path}.*File too large.*", last_lines(err, 1))
    assert check_left_intact(tmp_path) == ["model_0000001.pth"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("a data worker died")])
def test_what_interrupts_the_writing_of_a_checkpoint_is_told(tmp_path, monkeypatch, error):
    class Interrupted(io.BytesIO):
        num_writes = 0

        def write(self, data):
            self.num_writes += 1
            if self.num_writes == 4:
                raise error
            return super().write(data)

    monkeypatch.setattr(sys.modules[Checkpointer.__module__], "open_atomic", lambda path, **kwargs: Interrupted())
    model = torch.nn.Linear(9, 9)
    with pytest.raises(type(error)) as raised:
        Checkpointer(model, str(tmp_path)).save_release("model_best", model.state_dict())
    assert raised.value is error


def make_own_data(tmp_path):
    """Write eight images, of which one has a box; return the options that train and evaluate on them."""
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        cv2.imwrite(str(folder / f"{i}.png"), rng.integers(0, 255, (60, 80, 3), dtype=np.uint8))
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in range(8)],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 1, "bbox": [5, 5, 30, 40]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "own.json").write_text(json.dumps(content))
    name = tmp_path.name  # a name of its own for each test, because registered data sets stay registered
    return [
        *("DATASETS.COCO", f"[['{name}', '{tmp_path}/own.json', '{folder}']]", "DATASETS.TRAIN", f"('{name}',)"),
        *("DATASETS.TEST", f"('{name}',)", "MODEL.YOLO.NUM_CLASSES", "0", "SOLVER.MAX_ITER", "4"),
        *("DATALOADER.NUM_WORKERS", "0"),
    ]


@pytest.mark.parametrize("sampler", ["TrainingSampler", "ClassBalancedTrainingSampler", "RepeatFactorTrainingSampler"])
def test_batches_without_boxes_train(tmp_path, monkeypatch, capsys, sampler):
    """Only one of eight images has a box, so that one of two batches has none."""
    opts = [*make_own_data(tmp_path), "DATALOADER.SAMPLER_TRAIN", sampler]
    output_dir = tmp_path / "out"
    code, _, err = run_here(monkeypatch, capsys, *train_args("/nowhere", output_dir, *opts))
    assert code == 0, err
    logged = [json.loads(line) for line in (output_dir / "metrics.json").read_text().splitlines()]
    losses = [line["loss_obj"] for line in logged if "loss_obj" in line]
    assert losses and np.isfinite(losses).all()
    final = torch.load(output_dir / "model_final.pth", weights_only=True)
    assert all(tensor.isfinite().all() for tensor in final["model"].values())
    assert "not finite" not in (output_dir / "log.txt").read_text()
