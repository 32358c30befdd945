import cv2
import numpy as np
import pytest
from detectron2.data.transforms import AugInput
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, VFlipTransform

from parking.data.dataset_mapper import get_sample_rng
from parking.data.transforms.color import HSVTransform, RandomHSV
from parking.data.transforms.flip import RandomFlip

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def to_hsv(rgb):
    return cv2.cvtColor(np.uint8([[rgb]]), cv2.COLOR_RGB2HSV)[0, 0].tolist()


def apply(transform, rgb):
    return transform.apply_image(np.uint8([[rgb]]))[0, 0].tolist()


def test_value_and_saturation_gains():
    # A pure gray has no saturation: only its value, 100, changes, to 100 * 1.4 = 140.
    assert apply(HSVTransform(1.0, 1.7, 1.4), [100, 100, 100]) == [140, 140, 140]
    assert apply(HSVTransform(1.0, 1.0, 3.0), [100, 100, 100]) == [255, 255, 255]
    # Half of full saturation: value 200, the other channels 200 * (1 - 127 / 255) = 100.4.
    assert apply(HSVTransform(1.0, 0.5, 1.0), [200, 0, 0]) == [200, 100, 100]


def test_hue_wraps_around():
    # Magenta is 300 degrees, 150 of 180; times 1.4 is 210, which wraps to 30: yellow.
    assert to_hsv([255, 0, 255])[0] == 150
    assert apply(HSVTransform(1.4, 1.0, 1.0), [255, 0, 255]) == [255, 255, 0]


def test_random_gains_stay_in_their_ranges():
    rng = np.random.default_rng(1)
    transforms = [RandomHSV(0.015, 0.7, 0.4).get_transform(IMAGE, rng) for _ in range(300)]
    gains = np.array([[t.hue, t.saturation, t.value] for t in transforms])
    ranges = np.array([0.015, 0.7, 0.4])
    assert (abs(gains - 1) <= ranges).all()
    assert (gains.min(axis=0) < 1 - 0.9 * ranges).all()
    assert (gains.max(axis=0) > 1 + 0.9 * ranges).all()
    assert isinstance(RandomHSV(0.0, 0.0, 0.0).get_transform(IMAGE, rng), NoOpTransform)


@pytest.mark.parametrize(("vertical", "kind"), [(False, HFlipTransform), (True, VFlipTransform)])
def test_flip(vertical, kind):
    aug_input = AugInput(IMAGE)
    aug_input.rng = np.random.default_rng(0)
    assert isinstance(RandomFlip(1.0, vertical=vertical)(aug_input), kind)
    np.testing.assert_array_equal(aug_input.image, np.flip(IMAGE, axis=int(not vertical)))


def test_flip_probability():
    rng = np.random.default_rng(0)
    flipped = [isinstance(RandomFlip(0.25).get_transform(IMAGE, rng), HFlipTransform) for _ in range(1000)]
    # Four standard deviations: sqrt(0.25 * 0.75 / 1000) = 0.0137.
    assert abs(np.mean(flipped) - 0.25) < 0.055
    assert isinstance(RandomFlip(0.0).get_transform(IMAGE, rng), NoOpTransform)


def test_sample_generators_differ_by_seed_and_position_only():
    def draw(*key):
        return get_sample_rng(*key).integers(2**60)

    assert draw(3, 10) == draw(3, 10)
    assert len({draw(3, 10), draw(3, 11), draw(4, 10), np.random.default_rng([3, 10]).integers(2**60)}) == 4
