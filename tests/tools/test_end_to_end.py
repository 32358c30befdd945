"""Train, evaluate, infer, as a user would: the tools themselves, on a few tiny scenes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
ENV = {**os.environ, "OMP_NUM_THREADS": "1"}
TINY = [
    *("INPUT.SIZE_TRAIN", "[64, 96]", "INPUT.SIZE_TEST", "96", "SOLVER.IMS_PER_BATCH", "4"),
    *("DATALOADER.NUM_WORKERS", "1", "SOLVER.WARMUP_ITERS", "2", "SOLVER.CHECKPOINT_PERIOD", "2"),
    *("MODEL.YOLO.SCORE_THRESH_TEST", "1e-5"),  # that hardly trained weights find something
]


def run_script(name: str, *args: str, timeout: int = 300) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / name), *map(str, args)],
        cwd=ROOT,
        env=ENV,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def train_args(scenes, output_dir, max_iter=4, *opts):
    return [
        *("DATASETS.ROOT", str(scenes), "OUTPUT_DIR", str(output_dir), "SOLVER.MAX_ITER", str(max_iter)),
        *(*TINY, *opts),
    ]


QUICKSTART = ("--config-file", ROOT / "configs" / "quickstart.yaml")


@pytest.fixture(scope="module")
def trained(tiny_scenes, tmp_path_factory, run_here):
    """OUTPUT_DIR of a training, and what it printed."""
    output_dir = tmp_path_factory.mktemp("train") / "out"
    code, out, err = run_here("train_net.py", *QUICKSTART, *train_args(tiny_scenes, output_dir))
    assert code == 0, out + err
    return output_dir, out


def check_outcome(output_dir, printed):
    names = {path.name for path in output_dir.iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "last_checkpoint", "model_best.pth", "model_final.pth"} <= names
    assert {n for n in names if n.startswith("model_0")} == {"model_0000001.pth", "model_0000003.pth"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert (output_dir / "last_checkpoint").read_text() == "model_0000003.pth"
    assert printed.count("running on the CPU") == (not torch.cuda.is_available())
    assert re.search(r"iterations 0 to 4: [\d.]+ epochs of \d+ iterations of 4 images", printed)
    table, paths = printed.split("class         AP75")
    assert "AP50" in table
    assert f"{output_dir}/model_best.pth" in paths
    logged = set().union(*map(json.loads, (output_dir / "metrics.json").read_text().splitlines()))
    assert {"total_loss", "loss_box", "loss_obj", "loss_cls", "lr", "data_time", "iteration"} <= logged


def test_training_leaves_what_it_should(trained):
    check_outcome(*trained)


@pytest.mark.long
def test_training_in_two_processes_leaves_what_it_should(tiny_scenes, tmp_path):
    done = run_script("train_net.py", *QUICKSTART, "--num-gpus", "2", *train_args(tiny_scenes, tmp_path / "out"))
    assert done.returncode == 0, done.stdout + done.stderr
    check_outcome(tmp_path / "out", done.stdout)


def test_released_weights_hold_the_averaged_ones_and_what_inference_needs(trained):
    output_dir, _ = trained
    final = torch.load(output_dir / "model_final.pth", weights_only=True)
    last = torch.load(output_dir / "model_0000003.pth", weights_only=True)
    assert "ema" not in final and "trainer" not in final
    assert last["ema"]["num_updates"] == 4
    assert last["trainer"]["iteration"] == 3
    name = "backbone.bottom_up.stem.conv.weight"
    assert torch.equal(final["model"][name], last["ema"]["average"][name])
    assert not torch.equal(final["model"][name], last["model"][name])
    assert final["class_names"][0] == "sedan"
    assert final["category_ids"] == list(range(1, 15))
    assert final["config"]["INPUT"]["SIZE_TEST"] == 96


def test_no_checkpoint_holds_folded_weights(trained):
    """The evaluation before they are written folds the norms of a copy: the names are those of the model to train."""
    from parking.config import get_cfg
    from parking.modeling import YOLO

    cfg = get_cfg()
    cfg.merge_from_file(str(QUICKSTART[1]))
    with torch.device("meta"):
        names = YOLO(cfg).state_dict().keys()
    for file in ("model_best.pth", "model_final.pth", "model_0000003.pth"):
        assert torch.load(trained[0] / file, weights_only=True)["model"].keys() == names, file


@pytest.mark.long
def test_a_lone_weights_file_is_enough_to_infer(trained, tiny_scenes, tmp_path):
    output_dir, _ = trained
    weights = shutil.copy(output_dir / "model_final.pth", tmp_path / "moved.pth")
    results = tmp_path / "results"
    done = run_script(
        "infer.py",
        *("--input", tiny_scenes / "test", "--weights", weights, "--output", results, "--visualize", "2"),
        *("--min-score", "0", "MODEL.YOLO.SCORE_THRESH_TEST", "1e-5"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "predicting" in done.stderr, "there is a progress bar"
    listed = json.loads((tiny_scenes / "Test_Images_Information.json").read_text(encoding="utf-8"))["images"]
    ids = {image["file_name"]: image["id"] for image in listed}
    images = json.loads((results / "images.json").read_text(encoding="utf-8"))
    assert {image["file_name"]: image["id"] for image in images} == ids
    predictions = json.loads((results / "predictions.json").read_text())
    submission = json.loads((results / "submission.json").read_text())
    sample = json.loads((tiny_scenes / "sample_submission.json").read_text())
    assert predictions and submission
    for box in submission:
        assert box.keys() == sample[0].keys()
        assert box["image_id"] in ids.values()
        assert 1 <= box["category_id"] <= 14
        assert 0 < box["score"] <= 1
        x, y, w, h = box["bbox"]
        assert 0 <= x < x + w <= 160 + 0.1 and 0 <= y < y + h <= 96 + 0.1
    pictures = {path.name for path in (results / "visualizations").glob("*.png")}
    assert len(pictures) == 3 and "overview.png" in pictures
    for path in (results / "predictions.json", results / "submission.json", results / "visualizations"):
        assert str(path) in done.stdout


@pytest.mark.long
def test_ctrl_c_then_resume(tiny_scenes, tmp_path, run_here):
    output_dir = tmp_path / "out"
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), *map(str, QUICKSTART)]
    opts = train_args(tiny_scenes, output_dir, 150)
    process = subprocess.Popen(
        [*command, *opts], cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 240
        while not (output_dir / "last_checkpoint").exists():
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130, out + err
    assert "Traceback" not in err
    assert "--resume" in out
    iteration = int((output_dir / "last_checkpoint").read_text().removeprefix("model_").removesuffix(".pth"))
    assert iteration < 149, "the signal came too late"
    # A typo in the command, or other data, would train other weights.
    for key, value in [("SOLVER.MAX_ITER", "160"), ("SEED", "1"), ("DATASETS.VAL_FRACTION", "0.5")]:
        changed = run_here("train_net.py", *QUICKSTART, "--resume", *opts, key, value)
        assert changed[0] == 1 and f"--resume: {key} is" in changed[2]
    done = run_script("train_net.py", *QUICKSTART, "--resume", *opts)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"iterations {iteration + 1} to 150" in done.stdout
    assert (output_dir / "model_final.pth").exists()


def test_evaluating_without_training(trained, tiny_scenes, tmp_path, run_here):
    output_dir = tmp_path / "out"
    shutil.copytree(trained[0], output_dir)
    results = output_dir / "inference" / "parking_val" / "coco_instances_results.json"
    of_training = json.loads(results.read_text())
    results.unlink()
    before = {path.name: path.read_bytes() for path in output_dir.iterdir() if path.is_file()}
    args = [*QUICKSTART, "--eval-only", *train_args(tiny_scenes, output_dir)]
    code, out, err = run_here("train_net.py", *args)
    assert code == 0, err
    assert "AP50" in out
    # The best weights are those that the training evaluated at its end, and they find the same boxes.
    again = json.loads(results.read_text())
    assert len(of_training) > 1000 and abs(len(again) - len(of_training)) <= 5
    # Scores may differ in the sixth decimal, because the number of threads may differ.
    best = [sorted((found["score"] for found in run), reverse=True)[:1000] for run in (of_training, again)]
    np.testing.assert_allclose(*best, atol=2e-6)
    assert {path.name: path.read_bytes() for path in output_dir.iterdir() if path.is_file()} == before
    # Weights typed on the command line win over OUTPUT_DIR's.
    code, out, err = run_here("train_net.py", *args, "MODEL.WEIGHTS", tmp_path / "none.pth")
    assert code == 1
    assert "none.pth do not exist" in err


def test_evaluating_needs_no_training_set(trained, tiny_scenes, tmp_path, run_here):
    train = tiny_scenes / "train"
    data = [
        *("DATASETS.COCO", f"[['scenes', '{train}/label/Train.json', '{train}/images']]"),
        *("DATASETS.TEST", "('scenes',)", "DATASETS.ROOT", "/nowhere", "OUTPUT_DIR", tmp_path / "out"),
        *("MODEL.WEIGHTS", trained[0] / "model_final.pth", "INPUT.SIZE_TEST", "96", "DATALOADER.NUM_WORKERS", "0"),
    ]
    code, out, err = run_here("train_net.py", *QUICKSTART, "--eval-only", *data)
    assert code == 0, err
    assert "school bus" in out


def test_a_damaged_image_is_named_without_a_traceback(tiny_scenes, tmp_path, run_here):
    scenes = tmp_path / "data"
    shutil.copytree(tiny_scenes, scenes)
    for path in (scenes / "train" / "images").iterdir():
        path.write_bytes(b"not a picture")
    args = train_args(scenes, tmp_path / "out")
    code, _, err = run_here("train_net.py", *QUICKSTART, *args)
    assert code == 1
    assert re.fullmatch(r"error: The image '.*\.png' cannot be decoded: .*\n", err)


def test_overwrite_starts_anew_unless_there_is_a_mistake(trained, tiny_scenes, tmp_path, run_here):
    output_dir = tmp_path / "out"
    shutil.copytree(trained[0], output_dir)
    before = sorted(path.name for path in output_dir.iterdir())
    for opts in (["DATASETS.ROOT", "/nowhere"], ["MODEL.WEIGHTS", "none.pth"], ["MODEL.YOLO.NUM_CLASSES", "3"]):
        args = [*QUICKSTART, "--overwrite", *train_args(tiny_scenes, output_dir), *opts]
        assert run_here("train_net.py", *args)[0] == 1
    assert sorted(path.name for path in output_dir.iterdir()) == before
    # The weights to start from may be among those that are replaced.
    own = ["MODEL.WEIGHTS", output_dir / "model_best.pth"]
    code, _, err = run_here("train_net.py", *QUICKSTART, "--overwrite", *train_args(tiny_scenes, output_dir, 1), *own)
    assert code == 0, err
    iterations = [json.loads(line)["iteration"] for line in (output_dir / "metrics.json").read_text().splitlines()]
    assert max(iterations) <= 1, "curves start anew, too"
    assert len(list(output_dir.glob("events.out.tfevents.*"))) == 1
    assert sorted(p.name for p in output_dir.glob("model_*.pth")) == [
        "model_0000000.pth",
        "model_best.pth",
        "model_final.pth",
    ]


@pytest.mark.parametrize(
    ("script", "args", "code", "message"),
    [
        ("train_net.py", ["--config-file", "none.yaml"], 1, "none.yaml"),
        ("train_net.py", [*QUICKSTART, "SEED", "1", "--resume"], 2, "--resume stands after a KEY VALUE pair"),
        ("train_net.py", [*QUICKSTART, "--resume", "--overwrite"], 2, "give one of them"),
        ("train_net.py", [*QUICKSTART, "SOLVER.MAXITER", "1"], 1, "did you mean SOLVER.MAX_ITER?"),
        (
            "train_net.py",
            [*QUICKSTART, "DATASETS.ROOT", "/nowhere", "OUTPUT_DIR", "{tmp}/o"],
            1,
            "'/nowhere' does not exist",
        ),
        ("train_net.py", [*QUICKSTART, "OUTPUT_DIR", "{trained}"], 1, "already holds a training"),
        (
            "train_net.py",
            [*QUICKSTART, "--resume", "OUTPUT_DIR", "{tmp}/o", "DATASETS.ROOT", "{scenes}"],
            1,
            "holds no training to resume",
        ),
        (
            "train_net.py",
            [*QUICKSTART, "--eval-only", "OUTPUT_DIR", "{tmp}/o", "DATASETS.ROOT", "{scenes}"],
            1,
            "no weights",
        ),
        (
            "train_net.py",
            [*QUICKSTART, "OUTPUT_DIR", "{tmp}/o", "DATASETS.ROOT", "{scenes}", "MODEL.YOLO.NUM_CLASSES", "3"],
            1,
            "MODEL.YOLO.NUM_CLASSES is 3, but the data set parking_train has 14 classes",
        ),
        ("train_net.py", [*QUICKSTART, "--num-gpus", "0"], 1, "--num-gpus is 0"),
        ("infer.py", ["--input", "/nowhere"], 1, "'/nowhere' does not exist"),
        ("infer.py", ["--input", "{tmp}"], 1, "holds no images"),
        ("infer.py", ["--input", "{scenes}/test", "--weights", "none.pth"], 1, "none.pth do not exist"),
        (
            "infer.py",
            ["--input", "{scenes}/test", *QUICKSTART, "OUTPUT_DIR", "{tmp}/none"],
            1,
            "holds none; train first",
        ),
        ("infer.py", ["--input", "{scenes}/test", *QUICKSTART, "A", "1"], 1, "there is no config key A;"),
        ("infer.py", [], 2, "--input"),
        (
            "infer.py",
            [
                "--input",
                "{scenes}/test",
                *QUICKSTART,
                "--weights",
                "{trained}/model_final.pth",
                "MODEL.YOLO.WIDTH_MULTIPLE",
                "1.0",
            ],
            1,
            "do not fit the model of the config",
        ),
    ],
)
def test_mistakes_are_one_sentence(trained, tiny_scenes, tmp_path, run_here, script, args, code, message):
    values = {"tmp": tmp_path, "trained": trained[0], "scenes": tiny_scenes}
    got, _, err = run_here(script, *[str(a).format(**values) for a in args])
    assert message in err
    assert got == code
    if code == 1:
        assert err.startswith("error: ") and err.count("\n") == 1


def test_benchmark(run_here):
    size = ("INPUT.SIZE_TRAIN", "[64, 64]", "SOLVER.IMS_PER_BATCH", "2", "MODEL.DEVICE", "cpu")
    code, out, err = run_here("benchmark.py", *QUICKSTART, "--iters", "2", *size)
    torch.use_deterministic_algorithms(False)
    assert code == 0, err
    assert re.search(r"as configured: +[\d.]+ images/s.*\ndeterministic: +[\d.]+ images/s", out)


def test_stages_one_after_the_other(tiny_scenes, tmp_path, run_here):
    """Both are trained, resumed, evaluated and used for inference without naming any weights."""
    (tmp_path / "one.yaml").write_text("SOLVER: {MAX_ITER: 3}\n")
    (tmp_path / "two.yaml").write_text("SOLVER: {MAX_ITER: 2, BASE_LR: 0.003}\n")
    config = tmp_path / "two_stages.yaml"
    stages = "SOLVER: {STAGES: [[one, one.yaml], [two, two.yaml]]}"
    config.write_text(f"_BASE_: {QUICKSTART[1]}\nOUTPUT_DIR: {tmp_path}/out\n{stages}\n")
    args = ["--config-file", config]
    opts = ["DATASETS.ROOT", tiny_scenes, *TINY, "DATALOADER.NUM_WORKERS", "0"]

    code, _, err = run_here("train_net.py", *args, "--stage", "two", *opts)
    assert code == 1 and "stage two starts from the weights of the stage before it" in err
    code, _, err = run_here("train_net.py", *args, "--stage", "three", *opts)
    assert code == 1 and "it has one, two." in err
    code, _, err = run_here("train_net.py", *args, "--resume", *opts)
    assert code == 1 and "holds no training to resume" in err
    assert not list((tmp_path / "out").rglob("*.pth"))

    code, out, err = run_here("train_net.py", *args, "--stage", "one", *opts)
    assert code == 0, err
    assert "two best weights" not in out
    code, out, err = run_here("train_net.py", *args, "--resume", *opts)
    assert code == 0, err
    assert f"Loaded all 349 tensors of {tmp_path}/out/one/model_best.pth" in out
    assert "iterations 0 to 2" in out and "iterations 0 to 3" not in out, "the first is finished already"
    for stage, max_iter in (("one", 3), ("two", 2)):
        folder = tmp_path / "out" / stage
        saved = yaml.safe_load((folder / "config.yaml").read_text())
        assert (saved["SOLVER"]["MAX_ITER"], saved["SOLVER"]["STAGES"]) == (max_iter, [])
        assert {"model_best.pth", "model_final.pth", "log.txt", "metrics.json", "finished"} <= set(os.listdir(folder))
        assert f"iterations 0 to {max_iter}" in (folder / "log.txt").read_text()
    assert "out/two" not in (tmp_path / "out" / "one" / "log.txt").read_text()

    code, out, err = run_here("train_net.py", *args, *opts)
    assert code == 1 and "out/one already holds a training" in err
    code, out, err = run_here("train_net.py", *args, "--resume", *opts)
    assert code == 0 and "finished already" in out
    code, _, err = run_here("train_net.py", *args, "--resume", *opts, "SOLVER.BASE_LR", "0.5")
    assert code == 1 and "--resume: SOLVER.BASE_LR is 0.5" in err

    for tool, more in (("infer.py", ["--input", tiny_scenes / "test"]), ("train_net.py", ["--eval-only"])):
        code, out, err = run_here(tool, *args, *more, *opts)
        assert code == 0, err
        assert f"Loaded all 349 tensors of {tmp_path}/out/two/model_best.pth" in out
    assert (tmp_path / "out" / "inference" / "predictions.json").exists()


@pytest.mark.long
def test_what_a_stage_holds_is_never_lost_to_a_resume(tiny_scenes, tmp_path, run_here):
    """It is not lost to an --overwrite of another stage either, and a refused config leaves the saved one alone."""
    (tmp_path / "both.yaml").write_text("SOLVER: {MAX_ITER: 2}\n")
    config = tmp_path / "two_stages.yaml"
    stages = "SOLVER: {STAGES: [[one, both.yaml], [two, both.yaml]]}\nMODEL: {YOLO: {NUM_CLASSES: 0}}"
    config.write_text(f"_BASE_: {QUICKSTART[1]}\nOUTPUT_DIR: {tmp_path}/out\n{stages}\n")
    args = ["--config-file", config]
    opts = ["DATASETS.ROOT", tiny_scenes, *TINY, "DATALOADER.NUM_WORKERS", "0"]
    one, two = tmp_path / "out" / "one", tmp_path / "out" / "two"
    assert run_here("train_net.py", *args, *opts)[0] == 0

    def files():
        return {path: path.stat().st_mtime_ns for folder in (one, two) for path in folder.iterdir()}

    before = files()
    code, out, err = run_here("train_net.py", *args, "--resume", *opts)
    assert code == 0 and "finished already" in out, err
    code, _, err = run_here("train_net.py", *args, "--resume", "--stage", "two", *opts, "SEED", "7")
    assert code == 1 and "--resume: SEED is 7" in err
    code, _, err = run_here("train_net.py", *args, "--overwrite", "--stage", "one", *opts)
    assert code == 1 and "stage two was trained from what stage one would replace" in err
    assert files() == before

    # A stage whose checkpoints were removed to save space is still finished. Without its mark, nothing says so.
    for path in [*one.glob("model_0*"), one / "last_checkpoint"]:
        path.unlink()
    (two / "finished").unlink()
    before = files()
    code, out, err = run_here("train_net.py", *args, "--resume", *opts)
    assert code == 0 and "iterations 2 to 2" in out, err
    assert (one / "model_best.pth").stat().st_mtime_ns == before[one / "model_best.pth"]
    (one / "finished").unlink()
    before = files()
    code, _, err = run_here("train_net.py", *args, "--resume", *opts)
    assert code == 1 and "holds weights, but no checkpoint to go on from" in err
    assert files() == before

    # --overwrite starts both anew, with all of the time budget, and the second alone from other weights.
    code, _, err = run_here("train_net.py", *args, "--overwrite", *opts, "SOLVER.MAX_HOURS", "1")
    assert code == 0, err
    other = shutil.copy(one / "model_final.pth", tmp_path / "other.pth")
    code, out, err = run_here("train_net.py", *args, "--overwrite", "--stage", "two", *opts, "MODEL.WEIGHTS", other)
    assert code == 0 and f"tensors of {other}" in out, err
