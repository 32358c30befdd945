"""Foreign, edited and damaged checkpoints on --resume are told in one sentence, and no file changes."""

import copy
import math

import pytest
import torch

from parking.engine import Trainer
from parking.utils.errors import UserError

from .test_trainer import make_cfg


@pytest.fixture(scope="module")
def trained(tiny_scenes, tmp_path_factory):
    """A folder with a checkpoint after two of four iterations, a maker of fresh trainers, and the checkpoint."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    options = ("SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.EARLY_STOPPING_PATIENCE", "3", "TEST.EVAL_PERIOD", "4")
    cfg = make_cfg(tiny_scenes, folder, *options, "SOLVER.CHECKPOINTS_TO_KEEP", "5")
    torch.manual_seed(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    path = folder / "model_0000001.pth"
    return path, lambda: Trainer(cfg), torch.load(path, weights_only=True)


def change(checkpoint, where: str, value):
    """The checkpoint with another value at a path of keys and indices, or without it if the value is ``...``."""
    changed = copy.deepcopy(checkpoint)
    *parents, last = [int(part) if part.isdigit() else part for part in where.split("/")]
    target = changed
    for part in parents:
        target = target[part]
    if value is ...:
        del target[last]
    else:
        target[last] = value(target[last]) if callable(value) else value
    return changed


def with_nan(tensor):
    tensor = tensor.clone()
    tensor[(0,) * tensor.dim()] = math.nan
    return tensor


STEM = "backbone.bottom_up.stem.conv.weight"
CASES = [
    ("trainer", ..., "'trainer'"),
    ("trainer", [], "another kind of training"),
    ("trainer/_trainer/names/parameters", lambda names: [*names[1:], "x"], "another model"),
    ("trainer/_trainer/names/optimizer", lambda groups: groups[:2], "other groups"),
    ("trainer/_trainer/optimizer", {}, "another kind of training"),
    ("trainer/_trainer/optimizer/param_groups", lambda groups: groups[:2], "different number of parameter groups"),
    ("ema", ..., "'ema'"),
    (f"ema/average/{STEM}", ..., "averaged weights of another model"),
    (f"ema/average/{STEM}", torch.zeros(2), "another kind of training"),
    (f"model/{STEM}", with_nan, "stem.conv.weight holds NaN"),
    (f"model/{STEM}", torch.zeros(3), "stem.conv.weight has shape"),
    ("config", [], "'config'"),
    ("data_digest", "x", "'data_digest'"),
]


@pytest.mark.parametrize(("where", "value", "message"), CASES)
def test_one_sentence(trained, where, value, message):
    path, make, checkpoint = trained
    torch.save(change(checkpoint, where, value), path)
    files = sorted(file.name for file in path.parent.iterdir())
    with pytest.raises(UserError, match=rf"model_0000001\.pth.*{message}"):
        make().resume_or_load(resume=True)
    assert sorted(file.name for file in path.parent.iterdir()) == files


def test_the_checkpoint_itself_goes_on(trained):
    path, make, checkpoint = trained
    torch.save(checkpoint, path)
    trainer = make()
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2 and len(trainer.optimizer.state) > 0
    for name, tensor in trainer.model.state_dict().items():
        assert tensor.equal(checkpoint["model"][name])
