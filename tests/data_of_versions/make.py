"""Make the data of a version: what a commit's own code trains, releases and finds.

Usage, at that commit's checkout, with its environment: python make.py CHECKOUT OUT

OUT then holds the folders and files that README.md describes. Everything runs on the CPU with one thread.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

INTERRUPTED_AT = "model_0000799.pth"
BASE = """\
# The part that another yaml names as its _BASE_.
INPUT: {SIZE_TRAIN: [96, 160], SIZE_TEST: 160}
DATALOADER: {NUM_WORKERS: 1}
MODEL: {DEVICE: cpu}
TEST: {EVAL_PERIOD: 400, BEST_METRIC: bbox/AP50}
"""
RECIPE = """\
_BASE_: base.yaml
SEED: 5
OUTPUT_DIR: training
DATASETS: {ROOT: data, VAL_FRACTION: 0.25, TEST: [parking_trainval]}
DATALOADER: {SAMPLER_TRAIN: ClassBalancedTrainingSampler}
INPUT:
  AUG: {MOSAIC_PROB: 0.1, MIXUP_PROB: 0.2, STRONG_OFF_ITERS: 3, DEGREES: 2.0, SCALE: 0.2}
MODEL:
  YOLO: {NUM_CLASSES: 14, DEPTH_MULTIPLE: 0.1, WIDTH_MULTIPLE: 0.03, SCORE_THRESH_TEST: 0.04}
SOLVER:
  OPTIMIZER: AdamW
  IMS_PER_BATCH: 4
  NOMINAL_BATCH_SIZE: 8
  ITERS_PER_EPOCH: 7
  BASE_LR: 0.01
  WEIGHT_DECAY: 0.01
  WARMUP_ITERS: 10
  WARMUP_BIAS_LR: 0.0
  MAX_ITER: 806
  CHECKPOINT_PERIOD: 800
  EMA: {DECAY: 0.97, WARMUP: 20}
"""
#: Typed after the yaml.
TYPED = [
    "INPUT.AUG.FLIP_UD_PROB",
    "0.1",
    "MODEL.YOLO.LOSS.LABEL_SMOOTHING",
    "0.02",
    "SOLVER.LR_SCHEDULER_NAME",
    "cosine",
]


def main():
    checkout, out = (Path(arg).resolve() for arg in sys.argv[1:])
    out.mkdir(parents=True)
    (out / "base.yaml").write_text(BASE)
    (out / "recipe.yaml").write_text(RECIPE)
    (out / "typed.json").write_text(json.dumps(TYPED) + "\n")

    def start(tool, *args, **kwargs):
        command = [sys.executable, str(checkout / "tools" / tool), *args]
        env = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        return subprocess.Popen(command, cwd=out, env=env, start_new_session=True, text=True, **kwargs)

    def run(tool, *args):
        process = start(tool, *args, stdout=subprocess.PIPE)
        printed, _ = process.communicate()
        if process.returncode:
            sys.exit(f"{tool} ended with {process.returncode}: {printed}")
        return printed

    size = ("--num-train", "16", "--num-test", "4", "--size", "160x96")
    run("make_synthetic.py", "--output", "data", *size, "--seed", "3", "--balanced", "--workers", "1")
    train = ("train_net.py", "--config-file", "recipe.yaml")
    interrupt(start(*train, *TYPED), out / "training/last_checkpoint")
    keep = shutil.ignore_patterns("log.txt*", "events.*", ".*.tmp", ".*.parking-tmp", "visualizations", "inference")
    shutil.copytree(out / "training", out / "interrupted", ignore=keep)
    run(*train, "--resume", *TYPED)
    os.rename(out / "training", out / "resumed")
    run(*train, *TYPED)
    digests = {name: digest(out / "resumed" / name) for name in ("model_best.pth", "model_final.pth")}
    if digests != {name: digest(out / "training" / name) for name in digests}:
        sys.exit("the resumed training did not end with the weights of the whole one")

    weights = "released/model_final.pth"
    (out / "released").mkdir()
    shutil.copy(out / "resumed/model_final.pth", out / weights)
    shutil.rmtree(out / "resumed")
    shutil.rmtree(out / "training")
    os.rename(out / "interrupted", out / "training")
    run("convert_weights.py", weights, "released/model_final.safetensors")
    run("infer.py", "--input", "data/test", "--weights", weights, "--output", "found")
    scores = run(*train, "--eval-only", *TYPED, "MODEL.WEIGHTS", weights, "OUTPUT_DIR", "scored")
    (out / "found/scores.txt").write_text(scores[scores.rindex("  AP    AP50") :])
    os.rename(next((out / "scored").rglob("coco_instances_results.json")), out / "found/evaluated.json")
    shutil.rmtree(out / "scored")
    machine = {"machine": describe_machine(), "weights": digests}
    (out / "digests.json").write_text(json.dumps(machine, indent=1) + "\n")


def interrupt(training, tag):
    """Kill the process group of ``training`` as soon as the file ``tag`` names the checkpoint INTERRUPTED_AT."""
    while not tag.exists() or tag.read_text() != INTERRUPTED_AT:
        time.sleep(0.005)
        if training.poll() is not None:
            sys.exit("the training ended before it could be interrupted")
    os.killpg(training.pid, signal.SIGKILL)
    training.wait()


def digest(path):
    """Of the weights in a file: names, types, shapes and every bit."""
    import torch

    state = torch.load(path, weights_only=True)["model"]
    value = hashlib.sha256()
    for name, tensor in state.items():
        value.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        value.update(tensor.contiguous().numpy().tobytes())
    return value.hexdigest()


def describe_machine():
    """What the last bits of a computation on the CPU depend on."""
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    return {"torch": torch.__version__, "cpu": hashlib.sha256("\n".join(cpu).encode()).hexdigest()}


if __name__ == "__main__":
    main()
