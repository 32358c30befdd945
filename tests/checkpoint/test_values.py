"""Numbers that no sound model has are refused by the name of their tensor, whichever way a file holds them."""

import math

import pytest
import safetensors.torch
import torch
from torch import nn

from parking.checkpoint import read_weights
from parking.checkpoint.values import find_not_finite
from parking.utils.errors import UserError

STATE = {
    "stem.weight": torch.ones(2, 3),
    "norm.running_var": torch.ones(2),
    "norm.num_batches_tracked": torch.tensor(3),
}
PUBLISHED = {
    "model.0.conv.weight": torch.ones(2, 3).half(),
    "model.0.bn.running_var": torch.ones(2).half(),
    "model.24.anchors": torch.ones(3, 3, 2).half(),
}


def with_value(state, name, value):
    changed = state[name].clone()
    changed.view(-1)[-1] = value
    return {**state, name: changed}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("state", "name", "value", "shown"),
    [
        (STATE, "stem.weight", math.nan, "stem.weight holds NaN"),
        (STATE, "stem.weight", -math.inf, "stem.weight holds .*inf"),
        (STATE, "norm.running_var", -1e-3, "norm.running_var.* negative"),
        (PUBLISHED, "model.0.conv.weight", math.nan, "stem.conv.weight holds NaN"),
        (PUBLISHED, "model.24.anchors", math.inf, "head.anchors holds .*inf"),
    ],
)
def test_the_tensor_is_named(tmp_path, suffix, state, name, value, shown):
    path = tmp_path / f"bad{suffix}"
    save = safetensors.torch.save_file if suffix == ".safetensors" else torch.save
    save(state, path)
    read_weights(path)
    save(with_value(state, name, value), path)
    with pytest.raises(UserError, match=rf"bad{suffix} are refused: .*{shown}"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        # A number that overflows only in float32.
        ({"stem.weight": torch.tensor([1.0, 1e39], dtype=torch.float64)}, ".*inf"),
        # Weights must be floating point.
        *(({"stem.weight": torch.ones(2).to(dtype)}, ".*floating") for dtype in (torch.int8, torch.int64, torch.bool)),
        # The average counts as well.
        ({"model": STATE, "ema": {"average": {"stem.weight": torch.full((2, 3), math.nan)}}}, "NaN"),
    ],
)
def test_what_no_weights_hold(tmp_path, content, shown):
    torch.save(content, tmp_path / "m.pth")
    with pytest.raises(UserError, match=rf"stem\.weight holds {shown}"):
        read_weights(tmp_path / "m.pth")


@pytest.mark.parametrize("count", [-5, 0, 2**62])
def test_counters_may_hold_any_whole_number(tmp_path, count):
    torch.save({**STATE, "norm.num_batches_tracked": torch.tensor(count)}, tmp_path / "m.pth")
    assert read_weights(tmp_path / "m.pth").state_dict["norm.num_batches_tracked"] == count


def test_what_half_precision_cannot_hold_is_found():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    nn.init.constant_(model[0].weight, 7e4)
    assert find_not_finite(model.state_dict()) == []
    assert find_not_finite(model.half().state_dict()) == ["0.weight"]
    assert find_not_finite({"a": torch.zeros(0), "b": torch.tensor(1)}) == []
