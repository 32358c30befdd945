import itertools

import numpy as np

from parking.data.samplers.repeat_factor_sampler import RepeatFactorTrainingSampler, compute_repeat_factors
from parking.data.samplers.training_sampler import decode_position


def make_dict(*classes, crowds=()):
    boxes = [{"category_id": c, "iscrowd": 0} for c in classes] + [{"category_id": c, "iscrowd": 1} for c in crowds]
    return {"annotations": boxes}


def take_indices(n, factors, **kwargs):
    sampler = RepeatFactorTrainingSampler(factors, **kwargs)
    return [decode_position(code, len(factors))[1] for code in itertools.islice(sampler, n)]


def test_factors_by_hand():
    dicts = [make_dict(0, 0), make_dict(0, 1), make_dict(), make_dict(0, crowds=[2])]
    # Class 0 is in 3 of 4 images, class 1 in 1 of 4; the crowd of class 2 does not count.
    # Threshold 0.5: class 1 has sqrt(0.5 / 0.25), class 0 max(1, sqrt(0.5 / 0.75)) = 1.
    np.testing.assert_allclose(compute_repeat_factors(dicts, 0.5), [1, 2**0.5, 1, 1], rtol=1e-6)
    np.testing.assert_allclose(compute_repeat_factors(dicts, 0.5, sqrt=False), [1, 2, 1, 1])
    # Threshold 0.9: class 0 has 0.9 / 0.75 = 1.2, class 1 has 3.6.
    np.testing.assert_allclose(compute_repeat_factors(dicts, 0.9, sqrt=False), [1.2, 3.6, 1, 1.2], rtol=1e-6)
    np.testing.assert_array_equal(compute_repeat_factors(dicts, 0.0), [1, 1, 1, 1])


def test_stream_by_hand():
    # A factor is rounded up if the draw is below its fraction: 0 for image 0 (never), 0.5 and 0.25 for 1 and 2.
    draws = [np.random.default_rng([5, epoch]).random(3) for epoch in range(3)]
    expected = [[0.805, 0.808, 0.515], [0.774, 0.471, 0.696], [0.238, 0.428, 0.591]]
    np.testing.assert_allclose(draws, expected, atol=1e-3)
    # The passes hold 0 1 2 2, then 0 1 1 2 2 twice, each shuffled.
    stream = take_indices(14, [1.0, 1.5, 2.25], seed=5)
    assert stream == [2, 1, 0, 2] + [0, 2, 1, 1, 2] + [0, 1, 2, 2, 1]


def test_whole_factors_give_passes_of_one_length():
    stream = take_indices(18, [1, 3, 2], seed=1)
    assert all(sorted(stream[i : i + 6]) == [0, 1, 1, 1, 2, 2] for i in (0, 6, 12))
    assert stream[:6] != stream[6:12]


def test_starts_exactly_in_passes_of_different_lengths():
    factors = [1.5, 1.25, 1.0, 2.75]
    sampler = RepeatFactorTrainingSampler(factors, seed=4)
    assert len({len(sampler._get_order(epoch)) for epoch in range(8)}) > 1
    full = take_indices(60, factors, seed=4)
    for start in range(40):
        assert take_indices(20, factors, seed=4, start=start) == full[start : start + 20]
