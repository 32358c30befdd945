"""Trainings that an older version began go on exactly: version 1's, and those of a made-up later version."""

import copy
import random
from pathlib import Path

import pytest
import torch

from parking.config import compat, get_cfg
from parking.config.checks import Recipe
from parking.config.compat import Upgrade
from parking.config.plain import flatten
from parking.engine import Trainer
from parking.engine.resume import keep_earlier_behaviour, tell_changed_scores
from parking.engine.training_state import arrange_by_names
from parking.inference.build import build_model
from parking.solver import build_optimizer
from parking.utils.errors import UserError

from .test_trainer import make_cfg

V1 = Path(__file__).resolve().parents[2] / "tests/data_of_versions/v1"
LATER = {
    **compat.UPGRADES,
    3: Upgrade(
        keys={"SOLVER.RATE": "SOLVER.BASE_LR"},
        tensors=[(r"trunk\.(.+)", r"backbone.\1"), (r"head\.outputs\.(\d)\.(.+)", r"head.predictors.\1.\2")],
    ),
}


def old_name(name):
    return name.replace("backbone.", "trunk.", 1).replace("head.predictors.", "head.outputs.", 1)


def make_older(checkpoint):
    """What the made-up version 3 would have saved: other names, and another order of everything."""
    older = copy.deepcopy(checkpoint)
    solver = older["config"]["SOLVER"]
    solver["RATE"] = solver.pop("BASE_LR")
    older["config"]["VERSION"] = 3
    older["model"] = {old_name(name): tensor for name, tensor in reversed(older["model"].items())}
    average = older["ema"]["average"]
    older["ema"]["average"] = {old_name(name): average[name] for name in sorted(average)}

    state, shuffle = older["trainer"]["_trainer"], random.Random(0).shuffle
    names = state["names"]
    wanted = copy.deepcopy(names)
    for order in (wanted["parameters"], wanted["buffers"], *wanted["optimizer"]):
        shuffle(order)
    assert wanted["optimizer"][2] != names["optimizer"][2]
    arranged = arrange_by_names(state, wanted)
    renamed = {key: [old_name(name) for name in wanted[key]] for key in ("parameters", "buffers")}
    arranged["names"] = {**renamed, "optimizer": [[old_name(name) for name in group] for group in wanted["optimizer"]]}
    older["trainer"]["_trainer"] = arranged
    return older


def resume(cfg):
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=True)
    trainer.train()
    return trainer


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_a_training_of_a_version_with_other_names_goes_on_exactly(tiny_scenes, tmp_path, monkeypatch, optimizer):
    opts = ["SOLVER.OPTIMIZER", optimizer, "SOLVER.NOMINAL_BATCH_SIZE", "12", "SOLVER.WARMUP_ITERS", "1"]
    opts += ["SOLVER.MAX_ITER", "7", "SOLVER.CHECKPOINT_PERIOD", "4", "DATASETS.TEST", "()", "SOLVER.EMA.WARMUP", "2"]
    folder = tmp_path / "out"
    cfg = make_cfg(tiny_scenes, folder, *opts)
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    expected = torch.load(folder / "model_final.pth", weights_only=True)["model"]

    path = folder / "model_0000003.pth"
    older = make_older(torch.load(path, weights_only=True))
    torch.save(older, path)
    (folder / "last_checkpoint").write_text(path.name)
    with pytest.raises(UserError, match=r"model_0000003\.pth"):
        resume(cfg)  # today's table knows no such names
    monkeypatch.setattr(compat, "UPGRADES", LATER)
    monkeypatch.setattr(compat, "CURRENT_VERSION", 4)
    resume(cfg)
    resumed = torch.load(folder / "model_final.pth", weights_only=True)
    assert resumed["model"].keys() == expected.keys()
    for name, tensor in resumed["model"].items():
        assert tensor.equal(expected[name]), name


def train_with_accumulation(cfg):
    """Train with steps after iterations 0, 3 and 6; the final weights, and what an early release saved after 4."""
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    original, saved = trainer.run_step, {}

    def run_step():
        if trainer.iter == 5:
            state = copy.deepcopy(trainer.state_dict())
            loop = state["_trainer"]
            state["iteration"] = loop["iteration"] = 4
            sound = [buffer.clone() for buffer in trainer._trainer._sound_buffers]
            loop |= {"gradients": [[None]], "since_step": [(4, ["a.png"], {})], "sound_buffers": sound}
            saved.update(trainer=state, model=copy.deepcopy(trainer.model.state_dict()))
            saved.update(ema=copy.deepcopy(trainer._ema.state_dict()))
        original()

    trainer.run_step = run_step
    trainer.train()
    return torch.load(f"{cfg.OUTPUT_DIR}/model_final.pth", weights_only=True)["model"], saved


def test_a_training_that_was_saved_amid_an_accumulation_goes_on_exactly(tiny_scenes, tmp_path):
    folder = tmp_path / "out"
    opts = ["SOLVER.NOMINAL_BATCH_SIZE", "12", "SOLVER.WARMUP_ITERS", "1", "SOLVER.MAX_ITER", "8"]
    sampler = ["DATALOADER.SAMPLER_TRAIN", "ClassBalancedTrainingSampler"]
    cfg = make_cfg(tiny_scenes, folder, *opts, "SOLVER.CHECKPOINT_PERIOD", "4", "DATASETS.TEST", "()", *sampler)
    expected, amid = train_with_accumulation(cfg)
    path = folder / "model_0000003.pth"
    torch.save({**torch.load(path, weights_only=True), **amid}, path)
    (folder / "last_checkpoint").write_text(path.name)
    assert resume(cfg).start_iter == 4
    resumed = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    assert all(tensor.equal(expected[name]) for name, tensor in resumed.items())
    amid["trainer"]["evaluated_before"] = 5
    torch.save({**torch.load(path, weights_only=True), **amid}, path)
    (folder / "last_checkpoint").write_text(path.name)
    with pytest.raises(UserError, match=r"model_0000003\.pth.*SAMPLER_TRAIN.*last_checkpoint"):
        resume(cfg)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("parameters", "another model"),
        ("buffers", "another model"),
        ("optimizer", "another model, or with other groups"),
    ],
)
def test_names_of_another_model_are_refused(names, message):
    state = {
        "names": {"parameters": ["a", "b"], "buffers": ["c"], "optimizer": [["a"], ["b"]]},
        "optimizer": {"state": {0: "of a", 1: "of b"}, "param_groups": []},
    }
    own = copy.deepcopy(state["names"])
    assert arrange_by_names(state, own) is state
    own[names] = [["b"], ["a"]] if names == "optimizer" else ["z"]
    with pytest.raises(ValueError, match=message):
        arrange_by_names(state, own)


def test_numbers_of_version_1_mean_the_same_parameters():
    cfg = get_cfg()
    cfg.merge_from_file(str(V1 / "recipe.yaml"))
    model = build_model(cfg)
    names = {parameter: name for name, parameter in model.named_parameters()}
    checkpoint = torch.load(V1 / "training/model_0000799.pth", weights_only=True)
    upgraded = compat.upgrade_checkpoint(checkpoint, "the checkpoint")
    assert upgraded["trainer"]["_trainer"]["names"] == {
        "parameters": list(names.values()),
        "buffers": [name for name, buffer in model.named_buffers() if buffer.is_floating_point()],
        "optimizer": [[names[p] for p in group["params"]] for group in build_optimizer(cfg, model).param_groups],
    }
    assert "names" not in checkpoint["trainer"]["_trainer"] and "VERSION" not in checkpoint["config"]
    assert upgraded["config"]["INPUT"]["EXIF_ORIENTATION"] == "ignore"


def test_pictures_are_used_as_the_training_began():
    earlier = {"INPUT": {"EXIF_ORIENTATION": "ignore"}}
    for opts, now, expected in [
        ([], "auto", "ignore"),
        ([], "apply", "apply"),  # no default: check_same_recipe refuses it
        (["INPUT.EXIF_ORIENTATION", "auto"], "auto", "auto"),
    ]:
        cfg = get_cfg()
        cfg.INPUT.EXIF_ORIENTATION = now
        keep_earlier_behaviour(cfg, earlier, opts)
        assert expected == cfg.INPUT.EXIF_ORIENTATION
    cfg = get_cfg()
    keep_earlier_behaviour(cfg, {"INPUT": {"EXIF_ORIENTATION": "auto"}}, [])
    keep_earlier_behaviour(cfg, {}, [])
    assert cfg == get_cfg()


@pytest.mark.parametrize(
    ("version", "opts", "is_followed", "is_told"),
    [
        (1, ["SOLVER.EARLY_STOPPING_PATIENCE", "3"], False, True),
        (1, [], True, True),
        (1, [], False, False),
        (2, ["SOLVER.EARLY_STOPPING_PATIENCE", "3"], True, False),
    ],
)
def test_scores_that_steer_and_were_computed_otherwise_are_told(caplog, version, opts, is_followed, is_told):
    cfg = get_cfg()
    cfg.merge_from_list(opts)
    tell_changed_scores(Recipe(dict(flatten(cfg)), is_followed), version, output_dir="out")
    assert ("VERSION 1" in caplog.text and "out" in caplog.text) == is_told
