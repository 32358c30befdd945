import numpy as np
import pytest

from parking.data.transforms.warp import RandomPerspective, WarpTransform, find_box_candidates

H, W, NEW_H, NEW_W = 160, 240, 96, 128


def draw_transform(seed, **settings):
    return RandomPerspective((NEW_H, NEW_W), **settings).draw(H, W, np.random.default_rng(seed))


def test_default_is_the_centre_cut_out():
    transform = draw_transform(0)
    image = np.random.default_rng(0).integers(0, 256, (H, W, 3), dtype=np.uint8)
    # (160 - 96) / 2 = 32 rows and (240 - 128) / 2 = 56 columns are cut off on either side.
    np.testing.assert_array_equal(transform.apply_image(image), image[32:128, 56:184])
    np.testing.assert_allclose(transform.apply_box(np.array([[56, 32, 60, 40]])), [[0, 0, 4, 8]])


def test_half_pixels():
    # Twice as large: pixel (0, 0) covers [0, 2] x [0, 2], so its centre 0.5 maps to 1.0, between two pixels.
    image = np.zeros((8, 8, 3), np.uint8)
    image[3, 5] = 240
    transform = WarpTransform(8, 8, 16, 16, np.diag([2.0, 2.0, 1.0]), 2.0)
    # The outermost pixels are left out, because the gray outside is mixed into them.
    warped = transform.apply_image(image)[1:-1, 1:-1, 0].astype(float)
    ys, xs = np.mgrid[1:15, 1:15] + 0.5
    np.testing.assert_allclose([(xs * warped).sum() / warped.sum(), (ys * warped).sum() / warped.sum()], [11, 7])
    np.testing.assert_allclose(transform.apply_box(np.array([[5, 3, 6, 4]])), [[10, 6, 12, 8]])


def test_outside_is_gray():
    transform = WarpTransform(10, 10, 10, 10, np.array([[1.0, 0, 5], [0, 1, 0], [0, 0, 1]]))
    warped = transform.apply_image(np.zeros((10, 10, 3), np.uint8))
    assert (warped[:, :5] == 114).all()
    assert (warped[:, 5:] == 0).all()


def test_beyond_the_horizon_there_is_no_box():
    # Depth 1 - 0.01 x: zero at x = 100.
    transform = WarpTransform(H, W, NEW_H, NEW_W, np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1.0]]))
    boxes = np.array([[10.0, 10, 50, 50], [80, 10, 120, 50], [120, 10, 160, 50]])
    mapped = transform.apply_box(boxes)
    # 10 / 0.9, 10 / 0.9, 50 / 0.5, 50 / 0.5.
    np.testing.assert_allclose(mapped[0], [10 / 0.9, 10 / 0.9, 100, 100])
    np.testing.assert_array_equal(mapped[1:], 0)
    assert find_box_candidates(boxes, mapped, 1.0).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("original", "mapped", "scale", "keep"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0, True),
        # Sides must exceed 2 px.
        ([0, 0, 10, 2], [0, 0, 10, 2], 1.0, False),
        ([0, 0, 2, 10], [0, 0, 2, 10], 1.0, False),
        ([0, 0, 10, 2.1], [0, 0, 10, 2.1], 1.0, True),
        # Aspect 100 is too slim, 99 is not.
        ([0, 0, 300, 3], [0, 0, 300, 3], 1.0, False),
        ([0, 0, 3, 297], [0, 0, 3, 297], 1.0, True),
        # 10 of 100 px^2 are a tenth: too little; 11 are enough.
        ([0, 0, 10, 10], [0, 0, 2.5, 4], 1.0, False),
        ([0, 0, 10, 10], [0, 0, 2.75, 4], 1.0, True),
        # At scale 0.5 the original counts 25 px^2, so 10 are enough; at scale 2 it counts 400, so 40 are too few.
        ([0, 0, 10, 10], [0, 0, 2.5, 4], 0.5, True),
        ([0, 0, 10, 10], [0, 0, 10, 4], 2.0, False),
    ],
)
def test_box_candidates(original, mapped, scale, keep):
    assert find_box_candidates(np.array([original]), np.array([mapped]), scale).tolist() == [keep]


def test_draws_stay_in_their_ranges():
    augmentation = RandomPerspective((NEW_H, NEW_W), translate=0.1, scale=0.5)
    rng = np.random.default_rng(3)
    transforms = [augmentation.draw(H, W, rng) for _ in range(200)]
    scales = [t.scale for t in transforms]
    assert 0.5 <= min(scales) < 0.6
    assert 1.4 < max(scales) <= 1.5
    centres = np.concatenate([t.apply_coords(np.array([[W / 2, H / 2]])) for t in transforms])
    # 0.5 +- 0.1 of 128 and of 96.
    assert (centres >= [51.2, 38.4]).all()
    assert (centres <= [76.8, 57.6]).all()
