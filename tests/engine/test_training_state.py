"""Foreign, edited and damaged checkpoints on --resume: one sentence, before anything of the training has changed."""

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
    """The checkpoint with another value at a path of keys and indices; ``...`` takes it away."""
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


def shared(number):
    """Lists of lists of 2^number texts, which take a few bytes in a file."""
    texts = ["a"]
    for _ in range(number):
        texts = [texts, texts]
    return texts


def endless():
    texts = []
    texts.append(texts)
    return texts


NAMES = "trainer/_trainer/names"
STEM = "backbone.bottom_up.stem.conv.weight"
MOMENTUM = "trainer/_trainer/optimizer/state/0/momentum_buffer"
CASES = [
    ("trainer", ..., "'trainer'"),
    ("trainer", [], "not a dict"),
    ("trainer", {}, "no iteration"),
    ("trainer/iteration", -2, "impossible iteration"),
    ("trainer/iteration", 10**30, "impossible iteration"),
    ("trainer/iteration", 1.0, "impossible iteration"),
    ("trainer/iteration", 4, "iteration 4 of 4"),
    ("trainer/max_iter", 0, "impossible max_iter"),
    ("trainer/seed", "a", "impossible seed"),
    ("trainer/rng", [1], "impossible rng"),
    ("trainer/rng", ..., "no rng"),
    ("trainer/class_ap", "high", "impossible class_ap"),
    ("trainer/hooks", ..., "no state of"),
    ("trainer/hooks", 7, "not a dict"),
    ("trainer/hooks/LRScheduler", ..., "no state of LRScheduler"),
    ("trainer/hooks/LRScheduler/base_lrs", [math.nan] * 3, "base_lrs"),
    ("trainer/hooks/EarlyStoppingHook/best", "high", "best"),
    ("trainer/hooks/EarlyStoppingHook/num_worse", ..., "num_worse"),
    ("trainer/hooks/TimeBudgetHook/seconds", -1.0, "seconds"),
    ("trainer/hooks/TimeBudgetHook/seconds", math.inf, "seconds"),
    ("trainer/hooks/UnreadableImagesHook/names", [1], "names"),
    ("trainer/_trainer", None, "_trainer"),
    ("trainer/_trainer/last_step_iteration", 0, "step of the optimizer"),
    (NAMES, ..., "impossible names"),
    (NAMES, shared(60), "impossible names"),
    (f"{NAMES}/parameters", endless(), "impossible names"),
    (f"{NAMES}/optimizer", shared(60), "impossible names"),
    (f"{NAMES}/optimizer", lambda groups: [groups[2]] * 10**6, "impossible names"),
    (f"{NAMES}/optimizer", [[]] * 10**6, "impossible names"),
    (f"{NAMES}/buffers", lambda names: [*names[1:], "x"], "another model"),
    ("trainer/_trainer/num_skipped_in_a_row", -3, "num_skipped_in_a_row"),
    ("trainer/_trainer/optimizer", {}, "no state of an optimizer"),
    ("trainer/_trainer/optimizer/param_groups", lambda groups: groups[:2], "other groups"),
    ("trainer/_trainer/optimizer/param_groups/0/params", [0], "other groups"),
    ("trainer/_trainer/optimizer/param_groups/0/lr", math.nan, "lr is not finite"),
    ("trainer/_trainer/optimizer/param_groups/0/lr", "0.1", "lr is not a number"),
    ("trainer/_trainer/optimizer/param_groups/0/momentum", ..., "another optimizer"),
    ("trainer/_trainer/optimizer/state", {10**5: {}}, "another model"),
    ("trainer/_trainer/optimizer/state/0", [], "another optimizer"),
    (MOMENTUM, torch.zeros(7, 7), "momentum_buffer of another shape"),
    (MOMENTUM, with_nan, "momentum_buffer .*not finite"),
    ("ema", ..., "'ema'"),
    ("ema", {}, "averaged weights of another model"),
    ("ema/num_updates", -1, "updates"),
    (f"ema/average/{STEM}", ..., "averaged weights of another model"),
    (f"ema/average/{STEM}", torch.zeros(2), "averaged tensor .*stem"),
    (f"ema/average/{STEM}", with_nan, "averaged tensor .*stem.* not finite"),
    (f"model/{STEM}", with_nan, "stem.conv.weight holds NaN"),
    (f"model/{STEM}", torch.zeros(3), "stem.conv.weight has shape"),
    ("config", [], "'config'"),
    ("data_digest", "x", "'data_digest'"),
]


@pytest.fixture(scope="module")
def trainer(trained):
    return trained[1]()


@pytest.mark.parametrize(("where", "value", "message"), CASES)
def test_one_sentence_before_anything_has_changed(trained, trainer, where, value, message):
    path, _, checkpoint = trained
    torch.save(change(checkpoint, where, value), path)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    files = sorted(file.name for file in path.parent.iterdir())
    with pytest.raises(UserError, match=rf"model_0000001\.pth.*{message}"):
        trainer.checkpointer.resume(trainer._check_resumable)
    assert trainer.iter == 0 and not trainer.optimizer.state
    assert all(tensor.equal(before[name]) for name, tensor in trainer.model.state_dict().items())
    assert sorted(file.name for file in path.parent.iterdir()) == files


def test_the_checkpoint_itself_goes_on(trained):
    path, make, checkpoint = trained
    torch.save(checkpoint, path)
    trainer = make()
    trainer.resume_or_load(resume=True)
    assert trainer.start_iter == 2 and len(trainer.optimizer.state) > 0
    for name, tensor in trainer.model.state_dict().items():
        assert tensor.equal(checkpoint["model"][name])
