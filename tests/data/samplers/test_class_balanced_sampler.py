import itertools

import numpy as np
import pytest

from parking.data.samplers.class_balanced_sampler import ClassBalancedTrainingSampler, class_balanced_weights
from parking.data.samplers.training_sampler import decode_position


def make_dict(*classes, crowds=()):
    boxes = [{"category_id": c, "iscrowd": 0} for c in classes] + [{"category_id": c, "iscrowd": 1} for c in crowds]
    return {"annotations": boxes}


# Class 0 has 4 boxes and class 1 has 1; the crowd does not count, and class 2 has none.
DICTS = [make_dict(0, 0, 1), make_dict(0), make_dict(), make_dict(0, crowds=[1])]


def take_indices(n, weights, **kwargs):
    sampler = ClassBalancedTrainingSampler(weights, **kwargs)
    return [decode_position(code, len(weights))[1] for code in itertools.islice(sampler, n)]


def test_weights_by_hand():
    # 1 / boxes: 1/4 and 1, mean 0.625: 0.4 and 1.6. Image 0: (2 * 0.4 + 1.6) / 3 classes; images 1 and 3: 0.4 / 3.
    # Image 2, without boxes: their mean, (2.4 + 0.4 + 0.4) / 3 / 3.
    np.testing.assert_allclose(class_balanced_weights(DICTS, 3), np.array([2.4, 0.4, 3.2 / 3, 0.4]) / 3)


@pytest.mark.parametrize("missing", [0.0, None, float("nan")])
def test_weights_with_scores_by_hand(missing):
    # Class 0: 0.4 * (1 - 0.5)^2 = 0.1; class 1 has no score and keeps 1.6. The mean of 1.8, 0.1 and 0.1 is 2 / 3.
    weights = class_balanced_weights(DICTS, 3, [0.5, missing, missing])
    np.testing.assert_allclose(weights, np.array([1.8, 0.1, 2 / 3, 0.1]) / 3)


def test_images_of_perfectly_detected_classes_are_not_excluded():
    # Images 1 and 3 would weigh 0; the mean of 1.6, 0 and 0 is 1.6 / 3, and they weigh a hundredth of it.
    weights = class_balanced_weights(DICTS, 3, [1.0, 0.0, 0.0])
    np.testing.assert_allclose(weights, np.array([1.6, 0.016 / 3, 1.6 / 3, 0.016 / 3]) / 3)
    np.testing.assert_array_equal(class_balanced_weights(DICTS, 3, [1.0, 1.0, 1.0]), [1, 1, 1, 1])


def test_weights_without_any_box():
    np.testing.assert_array_equal(class_balanced_weights([make_dict(), {}, make_dict(crowds=[1])], 3), [1, 1, 1])


def test_stream_by_hand():
    # The cumulated probabilities of 1, 2, 1 are 0.25, 0.75, 1.
    np.testing.assert_allclose(np.random.default_rng([0, 0]).random(5), [0.637, 0.270, 0.041, 0.017, 0.813], atol=1e-3)
    np.testing.assert_allclose(np.random.default_rng([0, 1]).random(5), [0.890, 0.557, 0.801, 0.957, 0.059], atol=1e-3)
    assert take_indices(10, [1, 2, 1], epoch_size=5, seed=0) == [1, 1, 0, 0, 2, 2, 1, 2, 2, 0]
    # With epochs of three images, the second epoch starts at position 3, with the first draw of its own generator.
    assert take_indices(6, [1, 2, 1], epoch_size=3, seed=0) == [1, 1, 0, 2, 1, 2]


def test_new_weights_continue_at_the_same_place():
    """A stream under new weights that starts late is the end of the whole stream under these weights."""
    old, new = [1, 2, 1], [4, 1, 3]
    full = take_indices(30, new, epoch_size=7, seed=1)
    assert full != take_indices(30, old, epoch_size=7, seed=1)
    assert take_indices(20, new, epoch_size=7, seed=1, start=10) == full[10:]
