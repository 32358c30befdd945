import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parking.data.image_io import compute_resized_sides
from parking.data.transforms.letterbox import LetterboxTransform, pad_to_size, resize_to_fit

SIDES = st.integers(1, 3000)


@pytest.mark.parametrize(
    ("h", "w", "size", "expected"),
    [
        # 1080 * 1280/1920 = 720.
        (1080, 1920, 1280, (720, 1280)),
        # 101 * 64/37: ratio 64/101 = 0.63366; 37 * 0.63366 = 23.4.
        (101, 37, 64, (64, 23)),
        # Enlarged: 7 * 64/9 = 49.8.
        (7, 9, 64, (50, 64)),
        (1, 1000, 100, (1, 100)),
    ],
)
def test_resized_sides(h, w, size, expected):
    assert compute_resized_sides(h, w, size, size) == expected
    image = np.zeros((h, w, 3), np.uint8)
    assert resize_to_fit(image, (size, size)).shape == (*expected, 3)


@given(SIDES, SIDES, SIDES, SIDES)
def test_resized_sides_fit_and_fill(h, w, max_h, max_w):
    new_h, new_w = compute_resized_sides(h, w, max_h, max_w)
    assert 1 <= new_h <= max_h
    assert 1 <= new_w <= max_w
    assert new_h == max_h or new_w == max_w


def test_same_pixels_as_opencv():
    image = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    resized = LetterboxTransform(33, 47, 45, 64).apply_image(image)
    np.testing.assert_array_equal(resized, cv2.resize(image, (64, 45), interpolation=cv2.INTER_LINEAR))


def test_boxes_follow():
    transform = LetterboxTransform(33, 47, 45, 64)
    boxes = np.array([[0, 0, 47, 33], [4.7, 3.3, 9.4, 6.6]])
    np.testing.assert_allclose(transform.apply_box(boxes), [[0, 0, 64, 45], [6.4, 4.5, 12.8, 9.0]])


def test_wrong_image_size_is_refused():
    with pytest.raises(ValueError, match=r"\(33, 47\).*\(47, 33\)"):
        LetterboxTransform(33, 47, 45, 64).apply_image(np.zeros((47, 33, 3), np.uint8))


def test_fit_and_pad_right_and_bottom_with_gray():
    # Ratio min(48 / 10, 80 / 40) = 2.
    padded = pad_to_size(resize_to_fit(np.full((10, 40, 3), 255, np.uint8), (48, 80)), (48, 80))
    expected = np.full((48, 80, 3), 114, np.uint8)
    expected[:20] = 255
    np.testing.assert_array_equal(padded, expected)
