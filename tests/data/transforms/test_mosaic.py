import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from parking.data.transforms.mosaic import blend_images, compute_tile_offset, crop_to_canvas, place_boxes


def test_hand_computed_layout():
    # H = 6, W = 8: the canvas is 12 x 16, the point at x = 5, y = 7.
    size, sizes = (6, 8), [(6, 8), (3, 8), (6, 4), (6, 8)]
    offsets = [compute_tile_offset(i, tile_size, (5, 7)) for i, tile_size in enumerate(sizes)]
    assert offsets == [(-3, 1), (5, 4), (1, 7), (5, 7)]
    parts = [crop_to_canvas(np.zeros((*s, 3)), offset, size) for s, offset in zip(sizes, offsets, strict=True)]
    # The first is 8 wide, but only 5 to the left of the point; the third is 6 high, but only 5 below it.
    assert [(part.shape[:2], corner) for part, corner in parts] == [
        ((6, 5), (0, 1)),
        ((3, 8), (5, 4)),
        ((5, 4), (1, 7)),
        ((5, 8), (5, 7)),
    ]
    boxes = [
        place_boxes(np.array([[0.0, 0.0, w, h]]), offset, size) for (h, w), offset in zip(sizes, offsets, strict=True)
    ]
    np.testing.assert_array_equal(np.concatenate(boxes), [[0, 1, 5, 7], [5, 4, 13, 7], [1, 7, 5, 12], [5, 7, 13, 12]])
    assert place_boxes(np.zeros((0, 4)), (3, 4), size).shape == (0, 4)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_blend_weighs_both_images(ratio, seed):
    first, second = np.random.default_rng(seed).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    blended = blend_images(first, second, ratio)
    assert (blended.dtype, blended.shape) == (np.uint8, (20, 30, 3))
    np.testing.assert_allclose(blended, ratio * first + (1 - ratio) * second, rtol=0, atol=0.501)
