import json
import math
from pathlib import Path

import pytest
import torch
from fvcore.common.param_scheduler import LinearParamScheduler

from parking.config import get_cfg
from parking.solver import (
    PerEpochParamScheduler,
    Warmup,
    accumulation_target,
    build_lr_scheduler,
    build_optimizer,
    takes_optimizer_step,
)

EXPECTED = Path(__file__).resolve().parents[2] / "tests/data/parity/schedule_expected.json"


def make_model():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4))


def test_decay_is_constant_within_an_epoch():
    schedule = PerEpochParamScheduler(LinearParamScheduler(1.0, 0.1), 3)
    # 30 iterations, 3 epochs: 1, 1 - 0.9 / 3 = 0.7, 1 - 2 * 0.9 / 3 = 0.4; asked for at 1.0 after the last step: 0.1.
    values = [schedule(i / 30) for i in range(31)]
    assert values == pytest.approx([1.0] * 10 + [0.7] * 10 + [0.4] * 10 + [0.1])


@pytest.mark.parametrize(("name", "middle"), [("linear", 0.55), ("cosine", 0.55)])
def test_decay_at_its_ends_and_middle(name, middle):
    cfg = get_cfg()
    cfg.SOLVER.LR_SCHEDULER_NAME = name
    cfg.SOLVER.LR_FINAL_FACTOR = 0.1
    cfg.SOLVER.BASE_LR = 2.0
    cfg.SOLVER.MAX_ITER = 4
    optimizer = build_optimizer(cfg, make_model())
    scheduler = build_lr_scheduler(cfg, optimizer, iters_per_epoch=2)
    rates = []
    for _ in range(5):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(2.0)
    assert rates[2] == pytest.approx(2.0 * middle)
    assert rates[4] == pytest.approx(0.2)
    quarter = {"linear": 1 - 0.9 / 4, "cosine": 0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2}[name]
    assert rates[1] == pytest.approx(2.0 * quarter)


def test_warmup_by_hand():
    warmup = Warmup(num_iters=10, bias_lr=0.1, start_momentum=0.8, momentum=0.9)
    # A fifth of the way: weights 0.2 * 0.01, biases 0.1 - 0.2 * 0.09, momentum 0.8 + 0.2 * 0.1.
    assert warmup.lr(2, 0.01, is_bias=False) == pytest.approx(0.002)
    assert warmup.lr(2, 0.01, is_bias=True) == pytest.approx(0.082)
    assert warmup.momentum_at(2) == pytest.approx(0.82)
    # 1 + 0.2 * (64 / 8 - 1) = 2.4 -> 2; half way 4.5 -> 4 (to even); at the end and after 8.
    assert [warmup.accumulation(i, 64, 8) for i in (0, 2, 5, 10, 11)] == [1, 2, 4, 8, 8]
    assert warmup.lr(11, 0.01, is_bias=True) == 0.01
    assert not warmup.is_active(11)


def test_no_warmup():
    warmup = Warmup(num_iters=0, bias_lr=0.1, start_momentum=0.8, momentum=0.9)
    assert warmup.lr(0, 0.01, is_bias=True) == 0.01
    assert warmup.momentum_at(0) == 0.9


def test_accumulation_targets():
    assert [accumulation_target(64, b) for b in (1, 2, 16, 24, 64, 128)] == [64, 32, 4, 3, 1, 1]
    assert accumulation_target(0, 16) == 1
    assert Warmup(10, 0.1, 0.8, 0.9).accumulation(5, 0, 16) == 1


@pytest.mark.parametrize(
    ("name", "lr0", "lrf", "momentum", "warmup_epochs", "warmup_momentum", "warmup_bias_lr"),
    [("scratch-low", 0.01, 0.01, 0.937, 3, 0.8, 0.1), ("finetune", 0.0032, 0.12, 0.843, 2, 0.5, 0.05)],
)
def test_agrees_with_the_published_trainer(name, lr0, lrf, momentum, warmup_epochs, warmup_momentum, warmup_bias_lr):
    expected = json.loads(EXPECTED.read_text())[name]
    iters, batch = expected["iters_per_epoch"], expected["batch_size"]
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR, cfg.SOLVER.LR_FINAL_FACTOR, cfg.SOLVER.MOMENTUM = lr0, lrf, momentum
    cfg.SOLVER.MAX_ITER = iters * expected["epochs"]
    cfg.SOLVER.IMS_PER_BATCH = batch
    cfg.SOLVER.LR_DECAY_PER = "epoch"
    optimizer = build_optimizer(cfg, make_model())
    scheduler = build_lr_scheduler(cfg, optimizer, iters)
    warmup = Warmup(max(warmup_epochs * iters, 100), warmup_bias_lr, warmup_momentum, momentum)
    last_step = -1
    for iteration, *row in expected["rows"]:
        scheduled = scheduler.get_last_lr()[0]
        accumulation = warmup.accumulation(iteration, 64, batch)
        steps = takes_optimizer_step(iteration, last_step, accumulation)
        ours = [
            warmup.lr(iteration, scheduled, is_bias=True),
            warmup.lr(iteration, scheduled, is_bias=False),
            warmup.momentum_at(iteration),
            accumulation,
            int(steps),
        ]
        assert ours == pytest.approx(row, rel=1e-9, abs=1e-12), f"iteration {iteration}"
        if steps:
            last_step = iteration
        optimizer.step()
        scheduler.step()


def test_parameter_groups_and_decay():
    cfg = get_cfg()
    cfg.SOLVER.IMS_PER_BATCH = 24
    cfg.SOLVER.WEIGHT_DECAY = 0.5
    model = make_model()
    optimizer = build_optimizer(cfg, model)
    groups = {group["kind"]: group for group in optimizer.param_groups}
    assert groups["weight"]["params"] == [model[0].weight]
    assert groups["norm"]["params"] == [model[1].weight]
    assert groups["bias"]["params"] == [model[0].bias, model[1].bias]
    # 64 / 24 = 2.67 -> 3 iterations of 24 = 72 images where 64 are nominal.
    assert groups["weight"]["weight_decay"] == pytest.approx(0.5 * 72 / 64)
    assert groups["norm"]["weight_decay"] == groups["bias"]["weight_decay"] == 0


def test_adamw_takes_momentum_as_its_first_beta():
    cfg = get_cfg()
    cfg.SOLVER.OPTIMIZER = "AdamW"
    cfg.SOLVER.NOMINAL_BATCH_SIZE = 0
    optimizer = build_optimizer(cfg, make_model())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.937, 0.999)
    decays = {group["kind"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"bias": 0.0, "norm": 0.0, "weight": 0.0005}
