import math

import pytest
import torch

from parking.solver import ModelEMA


class Tiny(torch.nn.Module):
    def __init__(self, value=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([value]))
        self.register_buffer("mean", torch.tensor([value]))
        self.register_buffer("count", torch.tensor([3]))


def set_to(model, value):
    with torch.no_grad():
        model.weight.fill_(value)
        model.mean.fill_(value)


def test_two_updates_by_hand():
    model = Tiny(0.0)
    ema = ModelEMA(model, decay=0.9, warmup=2.0)
    set_to(model, 1.0)
    ema.update(model)
    d1 = 0.9 * (1 - math.exp(-1 / 2))
    first = 1 - d1  # d1 * 0 + (1 - d1) * 1
    set_to(model, 3.0)
    ema.update(model)
    d2 = 0.9 * (1 - math.exp(-2 / 2))
    second = d2 * first + (1 - d2) * 3.0
    state = ema.model_state_dict(model)
    torch.testing.assert_close(state["weight"], torch.tensor([second]))
    torch.testing.assert_close(state["mean"], torch.tensor([second]))
    assert state["count"] is not None and state["count"].item() == 3
    assert ema.num_updates == 2


def test_state_round_trip_continues_alike():
    model = Tiny(0.0)
    one = ModelEMA(model, decay=0.9, warmup=2.0)
    set_to(model, 1.0)
    one.update(model)
    two = ModelEMA(Tiny(7.0), decay=0.9, warmup=2.0)
    two.load_state_dict({"num_updates": 1, "average": {k: v.clone() for k, v in one.state_dict()["average"].items()}})
    set_to(model, 5.0)
    for ema in (one, two):
        ema.update(model)
    assert torch.equal(one.state_dict()["average"]["weight"], two.state_dict()["average"]["weight"])


def test_restart_forgets():
    model = Tiny(0.0)
    ema = ModelEMA(model, decay=0.9, warmup=2.0)
    ema.update(model)
    set_to(model, 4.0)
    ema.restart_from(model)
    assert ema.num_updates == 0
    assert ema.model_state_dict(model)["weight"].item() == 4.0


def test_refuses_the_state_of_another_model():
    with pytest.raises(ValueError, match="another model"):
        ModelEMA(Tiny(), decay=0.9, warmup=2.0).load_state_dict({"num_updates": 1, "average": {"other": None}})
