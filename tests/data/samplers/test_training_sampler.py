import itertools

import numpy as np
import pytest
from detectron2.utils import comm

from parking.data.samplers.class_balanced_sampler import ClassBalancedTrainingSampler
from parking.data.samplers.repeat_factor_sampler import RepeatFactorTrainingSampler
from parking.data.samplers.training_sampler import PositionedTrainingSampler, decode_position, encode_position

# One sampler of each kind, for ten images.
SAMPLERS = [
    lambda **kwargs: PositionedTrainingSampler(10, **kwargs),
    lambda **kwargs: ClassBalancedTrainingSampler(range(1, 11), epoch_size=7, **kwargs),
    lambda **kwargs: RepeatFactorTrainingSampler(np.linspace(1, 2, 10), **kwargs),
]


def take(sampler, n):
    return list(itertools.islice(sampler, n))


def test_code_is_position_times_size_plus_index():
    assert encode_position(7, 3, 5) == 38
    assert decode_position(38, 5) == (7, 3)
    # The code is far beyond 2^53, where a float would lose the index.
    assert decode_position(encode_position(10**13, 24649, 24650), 24650) == (10**13, 24649)


def test_stream_of_known_passes(monkeypatch):
    orders = {0: np.array([2, 0, 1]), 1: np.array([1, 2, 0])}
    monkeypatch.setattr(PositionedTrainingSampler, "_get_order", lambda self, epoch: orders[epoch])
    # Positions 0 to 5 hold 2, 0, 1, 1, 2, 0; each code is 3 * position + index.
    assert take(PositionedTrainingSampler(3, seed=0), 6) == [2, 3, 7, 10, 14, 15]
    # Positions 4 and 5: 12 + 2, 15 + 0.
    assert take(PositionedTrainingSampler(3, seed=0, start=4), 2) == [14, 15]


def test_passes_are_different_permutations():
    pairs = [decode_position(code, 10) for code in take(PositionedTrainingSampler(10, seed=1), 30)]
    assert [position for position, _ in pairs] == list(range(30))
    passes = [[index for _, index in pairs[i : i + 10]] for i in (0, 10, 20)]
    assert all(sorted(p) == list(range(10)) for p in passes)
    assert passes[0] != passes[1] != passes[2]
    assert take(PositionedTrainingSampler(10, seed=2), 30) != take(PositionedTrainingSampler(10, seed=1), 30)


@pytest.mark.parametrize("make", SAMPLERS)
@pytest.mark.parametrize("start", [0, 1, 9, 10, 25])
@pytest.mark.parametrize("world_size", [1, 2, 3, 16])
def test_ranks_together_give_the_one_stream_from_any_start(monkeypatch, make, start, world_size):
    full = take(make(seed=4), 130)
    assert [decode_position(code, 10)[0] for code in full] == list(range(130))
    assert take(make(seed=4), 130) == full != take(make(seed=5), 130)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
    joined = [None] * (world_size * 6)
    for rank in range(world_size):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        joined[rank::world_size] = take(make(seed=4, start=start), 6)
    assert joined == full[start : start + len(joined)]


@pytest.mark.parametrize("make", SAMPLERS)
def test_a_stream_can_be_read_twice(make):
    sampler = make(seed=4)
    assert take(sampler, 30) == take(sampler, 30)
