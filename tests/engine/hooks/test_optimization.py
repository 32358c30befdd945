from types import SimpleNamespace

import pytest
import torch

from parking.engine.hooks.optimization import EMAHook, WarmupHook
from parking.solver import ModelEMA, Warmup

from .stand_ins import make_loop, make_trainer


def test_warmup_sets_each_kind_of_group():
    weight, bias = torch.nn.Parameter(torch.zeros(1)), torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD(
        [{"params": [weight], "kind": "weight"}, {"params": [bias], "kind": "bias"}], lr=0.01, momentum=0.9
    )
    scheduler = SimpleNamespace(get_lr=lambda: [0.01, 0.01])
    hook = WarmupHook(Warmup(num_iters=4, bias_lr=0.1, start_momentum=0.5, momentum=0.9), optimizer, scheduler)
    hook.trainer = make_trainer()
    hook.trainer.iter = 1
    hook.before_step()
    # A quarter of the way.
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.0025, 0.0775])
    assert [g["momentum"] for g in optimizer.param_groups] == pytest.approx([0.6, 0.6])
    optimizer.param_groups[0]["lr"] = 0.007
    hook.trainer.iter = 5
    hook.before_step()
    assert optimizer.param_groups[0]["lr"] == 0.007, "after the warm-up the schedule's rate stays"


def test_warmup_of_adamw_moves_the_first_beta():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([{"params": [weight], "kind": "weight"}], lr=0.01, betas=(0.9, 0.999))
    scheduler = SimpleNamespace(get_lr=lambda: [0.01])
    hook = WarmupHook(Warmup(num_iters=4, bias_lr=0.1, start_momentum=0.5, momentum=0.9), optimizer, scheduler)
    hook.trainer = make_trainer()
    hook.before_step()
    assert optimizer.param_groups[0]["betas"] == (0.5, 0.999)


def test_ema_moves_only_with_the_optimizer():
    model = torch.nn.Linear(1, 1)
    ema = ModelEMA(model, decay=0.9, warmup=1.0)
    loop = make_loop(has_stepped=False)
    hook = EMAHook(ema, model, loop)
    hook.after_step()
    assert ema.num_updates == 0
    loop.has_stepped = True
    hook.after_step()
    assert ema.num_updates == 1
