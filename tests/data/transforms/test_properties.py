"""Check what holds for every transform of one image and all its parameters; test_mosaic.py has the mosaics."""

from typing import NamedTuple

import numpy as np
import pytest
from detectron2.data.transforms import AugInput, Transform
from hypothesis import given, settings
from hypothesis import strategies as st

from parking.data.transforms.color import RandomHSV
from parking.data.transforms.flip import RandomFlip
from parking.data.transforms.letterbox import LetterboxTransform
from parking.data.transforms.warp import RandomPerspective, clip_boxes

# The background equals the padding, so that a low threshold tells the object from both.
BACKGROUND, OBJECT = 114, 250


class Case(NamedTuple):
    """A transform, with height and width of its input and its output."""

    transform: Transform
    size: tuple[int, int]
    new_size: tuple[int, int]


def make_case(kind: str, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    h, w = size = tuple(rng.integers(12, 160, 2).tolist())
    new_h, new_w = tuple(rng.integers(12, 160, 2).tolist())
    image = np.zeros((h, w, 3), np.uint8)
    if kind == "resize":
        return Case(LetterboxTransform(h, w, new_h, new_w), size, (new_h, new_w))
    if kind == "hsv":
        return Case(RandomHSV(0.015, 0.7, 0.4).get_transform(image, rng), size, size)
    if kind == "affine":
        augmentation = RandomPerspective((new_h, new_w), translate=0.2, scale=0.9)
    elif kind == "rotation":
        augmentation = RandomPerspective((new_h, new_w), degrees=180, translate=0.2, scale=0.5, shear=15)
    elif kind == "perspective":
        augmentation = RandomPerspective((new_h, new_w), degrees=20, translate=0.2, scale=0.5, perspective=0.001)
    else:
        return Case(RandomFlip(1.0, vertical=kind == "flip_ud").get_transform(image, rng), size, size)
    return Case(augmentation.draw(h, w, rng), size, (new_h, new_w))


INSIDE = ["resize", "hsv", "flip_lr", "flip_ud"]
every_kind = pytest.mark.parametrize("kind", [*INSIDE, "affine", "rotation", "perspective"])
with_seeds = given(st.integers(0, 2**32 - 1))
quick = settings(max_examples=40, deadline=None)


def draw_boxes(case: Case, num: int, seed: int) -> np.ndarray:
    """Draw boxes inside the input image, with integer coordinates and sides of at least one pixel."""
    h, w = case.size
    rng = np.random.default_rng([seed, 1])
    corners = rng.integers(0, [w, h], (num, 2))
    sides = rng.integers(1, [w, h], (num, 2))
    return np.hstack([corners, np.minimum(corners + sides, [w, h])]).astype(float)


@every_kind
@quick
@with_seeds
def test_images_stay_uint8_and_get_their_size_without_boxes(kind, seed):
    case = make_case(kind, seed)
    image = np.random.default_rng(seed).integers(0, 256, (*case.size, 3), dtype=np.uint8)
    original = image.copy()
    aug_input = AugInput(image, boxes=np.zeros((0, 4)))
    aug_input.transform(case.transform)
    mapped = aug_input.image
    assert aug_input.boxes.shape == (0, 4)
    assert (mapped.dtype, mapped.shape) == (np.uint8, (*case.new_size, 3))
    np.testing.assert_array_equal(image, original)


@pytest.mark.parametrize("kind", INSIDE)
@quick
@with_seeds
def test_boxes_stay_inside_without_clipping(kind, seed):
    case = make_case(kind, seed)
    boxes = case.transform.apply_box(draw_boxes(case, 20, seed))
    np.testing.assert_allclose(clip_boxes(boxes, *case.new_size), boxes, rtol=0, atol=1e-9)
    assert (boxes[:, 2:] > boxes[:, :2]).all()


@every_kind
@quick
@with_seeds
def test_a_drawn_object_is_found_in_its_box(kind, seed):
    case = make_case(kind, seed)
    original = draw_boxes(case, 1, seed)
    mapped = case.transform.apply_box(original)
    box = clip_boxes(mapped, *case.new_size)
    # A thinner object may fall between the pixels that are sampled.
    if (box[0, 2:] - box[0, :2]).min() < 3:
        return
    empty = np.full((*case.size, 3), BACKGROUND, np.uint8)
    image = empty.copy()
    x0, y0, x1, y1 = original[0].astype(int)
    image[y0:y1, x0:x1] = OBJECT
    before, after = (case.transform.apply_image(x)[..., 0].astype(int) for x in (empty, image))
    turned = kind in ("rotation", "perspective")
    # Count pixels that are half covered; the tip of a turned corner covers less of its pixel.
    ys, xs = np.nonzero(after - before > (0.2 if turned else 0.5) * (after.max() - before.max()))
    if not turned or np.array_equal(mapped, box):
        np.testing.assert_allclose([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], box[0], rtol=0, atol=1)
    elif len(xs):
        # The hull of the visible part may be smaller than the visible part of the hull, but not larger.
        assert xs.min() >= box[0, 0] - 1
        assert ys.min() >= box[0, 1] - 1
        assert xs.max() + 1 <= box[0, 2] + 1
        assert ys.max() + 1 <= box[0, 3] + 1
