"""The trainer as a whole, on a few tiny scenes in this process."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog

from parking.challenge.registration import register_datasets_from_config
from parking.config import get_cfg
from parking.engine import Trainer
from parking.engine.train_loop import autocast_dtype
from parking.utils.errors import UserError


def make_cfg(scenes, output_dir, *opts):
    cfg = get_cfg()
    cfg.merge_from_list(
        ["DATASETS.ROOT", str(scenes), "OUTPUT_DIR", str(output_dir), "MODEL.DEVICE", "cpu", "SEED", "0"]
    )
    cfg.merge_from_list(["INPUT.SIZE_TRAIN", "[64, 96]", "INPUT.SIZE_TEST", "96", "DATALOADER.NUM_WORKERS", "0"])
    cfg.merge_from_list(["MODEL.YOLO.WIDTH_MULTIPLE", "0.125", "SOLVER.IMS_PER_BATCH", "4", "SOLVER.WARMUP_ITERS", "2"])
    cfg.merge_from_list(["SOLVER.NOMINAL_BATCH_SIZE", "0"])
    cfg.merge_from_list(["SOLVER.MAX_ITER", "4", *map(str, opts)])
    register_datasets_from_config(cfg)
    output_dir.mkdir(exist_ok=True)
    return cfg


def make_trainer(*args):
    torch.manual_seed(0)
    trainer = Trainer(make_cfg(*args))
    trainer.resume_or_load(resume=False)
    return trainer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"), "CUDA out of memory"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "the CPU's memory is full",
        ),
    ],
)
def test_a_batch_that_is_too_large_names_the_keys(tiny_scenes, tmp_path, monkeypatch, error, reason):
    trainer = make_trainer(tiny_scenes, tmp_path / "out", "DATASETS.TEST", "()")

    def fail(batch):
        raise error

    monkeypatch.setattr(trainer._trainer.model, "forward", fail)
    with pytest.raises(UserError) as info:
        trainer.train()
    assert str(info.value) == (
        f"Out of memory in iteration 0 ({reason}): lower SOLVER.IMS_PER_BATCH (now 4, 4 for each of 1 processes) or "
        f"INPUT.SIZE_TRAIN (now [64, 96])."
    )


@pytest.mark.parametrize("patience", [0, 3])
def test_an_evaluation_that_takes_too_much_memory_names_what_resume_accepts(
    tiny_scenes, tmp_path, monkeypatch, patience
):
    trainer = make_trainer(tiny_scenes, tmp_path / "out", "SOLVER.EARLY_STOPPING_PATIENCE", patience)

    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0")

    monkeypatch.setattr("parking.engine.evaluation.detect_ahead", fail)
    with pytest.raises(UserError, match=r"on parking_val .*TEST\.IMS_PER_BATCH .*INPUT\.SIZE_TEST \(now 96\)") as info:
        trainer._test_weights(trainer.release_state_dict(), with_pictures=False)
    assert ("--overwrite" in str(info.value)) == (patience > 0)


@pytest.mark.parametrize("policy", ["strict", "repair"])
def test_an_image_that_is_cut_off_ends_an_evaluation_or_is_left_out(tiny_scenes, tmp_path, policy, caplog):
    shutil.copytree(tiny_scenes, tmp_path / "data")
    trainer = make_trainer(tmp_path / "data", tmp_path / "out", "DATASETS.POLICY", policy)
    first, *rest = DatasetCatalog.get("parking_val")
    image = Path(first["file_name"])
    image.write_bytes(image.read_bytes()[:300])
    if policy == "strict":
        with pytest.raises(UserError, match=image.name):
            Trainer.test(trainer.cfg, trainer.model)
    else:
        results = Trainer.test(trainer.cfg, trainer.model)
        assert "AP75" in results["bbox"]
        assert "1 images of parking_val" in caplog.text
        assert "nothing counts as found" not in caplog.text, "the rest was processed"
    assert rest


@pytest.mark.parametrize(("has_instructions", "dtype"), [(True, torch.bfloat16), (False, None)])
def test_auto_is_bfloat16_only_where_the_cpu_has_it(monkeypatch, has_instructions, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    cfg = get_cfg()
    cfg.SOLVER.AMP.ENABLED = True
    assert autocast_dtype(cfg, on_gpu=False) is dtype
    assert autocast_dtype(cfg, on_gpu=True) is torch.float16


def test_other_errors_stay_what_they_are(tiny_scenes, tmp_path, monkeypatch):
    trainer = make_trainer(tiny_scenes, tmp_path / "out", "DATASETS.TEST", "()")
    monkeypatch.setattr(trainer._trainer.model, "forward", lambda batch: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        trainer.train()


def test_the_head_is_told_when_strong_augmentation_ends(tiny_scenes, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "parking.modeling.DenseHead.strong_augmentation_ends", lambda head, iteration: told.append(iteration)
    )
    trainer = make_trainer(tiny_scenes, tmp_path / "out", "DATASETS.TEST", "()", "INPUT.AUG.STRONG_OFF_ITERS", 1)
    trainer.end_at(3, next_iteration=0)
    make_trainer(tiny_scenes, tmp_path / "out", "DATASETS.TEST", "()")
    assert told == [3, 2, None]


def test_what_is_logged(tiny_scenes, tmp_path):
    """Losses, rates of each group, and scores of the averaged weights and, where asked, of the weights themselves."""
    trainer = make_trainer(tiny_scenes, tmp_path / "out", "TEST.EVAL_PERIOD", 2, "SOLVER.EMA.EVAL_RAW", True)
    trainer.train()
    logged = {}
    for line in (tmp_path / "out" / "metrics.json").read_text().splitlines():
        logged.update(json.loads(line))
    assert {"total_loss", "loss_box", "loss_obj", "loss_cls", "lr", "lr_bias", "lr_norm", "lr_weight"} <= logged.keys()
    assert {"bbox/AP75", "raw/bbox/AP75"} <= logged.keys()
    of_classes = {name for name in logged if name.startswith("bbox/AP75-")}
    assert of_classes and {f"raw/{name}" for name in of_classes} <= logged.keys()


def test_a_shortened_training_ends_with_its_rate_decayed(tiny_scenes, tmp_path):
    trainer = make_trainer(tiny_scenes, tmp_path / "out", "DATASETS.TEST", "()", "SOLVER.MAX_ITER", 100)
    original = trainer.run_step

    def run_step():
        original()
        if trainer.iter == 2:
            trainer.end_at(6, next_iteration=3)

    trainer.run_step = run_step
    trainer.train()
    assert trainer.iter == 6
    assert (tmp_path / "out" / "model_0000005.pth").exists() and (tmp_path / "out" / "model_final.pth").exists()
    # The rate falls linearly from 0.01 to 0.0001 over 6 iterations; this is the rate after the last.
    assert trainer.optimizer.param_groups[-1]["lr"] == pytest.approx(0.0001)


@pytest.mark.long
def test_a_resumed_training_may_evaluate_otherwise_and_ends_with_the_same_weights(tiny_scenes, tmp_path, caplog):
    def train(folder, *opts, resume=False, stop_after=None):
        torch.manual_seed(0)
        test = ("DATASETS.TEST", "('parking_val',)", "TEST.EVAL_PERIOD", "3")
        trainer = Trainer(make_cfg(tiny_scenes, folder, *test, "SOLVER.CHECKPOINT_PERIOD", "2", *opts))
        trainer.resume_or_load(resume=resume)
        if stop_after is not None:
            original = trainer.run_step

            def run_step():
                if trainer.iter == stop_after:
                    raise KeyboardInterrupt
                original()

            trainer.run_step = run_step
            with pytest.raises(KeyboardInterrupt):
                trainer.train()
        else:
            trainer.train()

    train(tmp_path / "whole")
    train(tmp_path / "parts", stop_after=2)
    changed = ("SOLVER.EMA.EVAL_RAW", "True", "TEST.AUG.ENABLED", "True", "INPUT.SIZE_TEST", "64")
    train(tmp_path / "parts", *changed, resume=True)
    assert caplog.text.count("scores before and after") == 1 and "INPUT.SIZE_TEST is 64 and was 96" in caplog.text
    whole, parts = (torch.load(tmp_path / name / "model_0000003.pth", weights_only=True) for name in ("whole", "parts"))
    for name, tensor in whole["model"].items():
        assert torch.equal(tensor, parts["model"][name]), name
    train(tmp_path / "steered", "SOLVER.EARLY_STOPPING_PATIENCE", "5", stop_after=2)
    with pytest.raises(UserError, match=r"--resume: INPUT\.SIZE_TEST is 64"):
        train(tmp_path / "steered", "SOLVER.EARLY_STOPPING_PATIENCE", "5", *changed, resume=True)


def test_an_evaluation_that_is_repeated_does_not_replace_better_weights(tiny_scenes, tmp_path, monkeypatch):
    def start(resume):
        trainer = Trainer(make_cfg(tiny_scenes, tmp_path, "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2))
        trainer.resume_or_load(resume=resume)
        return trainer

    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("parking.engine.trainer.evaluate_copy", interrupt)
    first = start(resume=False)
    with pytest.raises(KeyboardInterrupt):
        first.train()
    first.checkpointer.save_release("model_best", {}, metric="bbox/AP75", value=50.0)

    second, best = start(resume=True), []

    def evaluate(*args):
        best.append(second.checkpointer.read_values("model_best")["value"])
        return {"bbox": {"AP75": 40.0}}

    monkeypatch.setattr("parking.engine.trainer.evaluate_copy", evaluate)
    second.train()
    assert (second.start_iter, best) == (2, [50.0, 50.0])
