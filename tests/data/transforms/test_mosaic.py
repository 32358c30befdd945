import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from parking.data.transforms import blend_images, compose_mosaic

COLORS = [200, 210, 220, 230]


def make_tiles(sizes):
    images = [np.full((h, w, 3), color, np.uint8) for (h, w), color in zip(sizes, COLORS, strict=True)]
    return images, [np.array([[0.0, 0.0, w, h]]) for h, w in sizes]


def test_hand_computed_layout():
    # H = 6, W = 8: the canvas is 12 x 16, the point at x = 5, y = 7.
    images, boxes = make_tiles([(6, 8), (3, 8), (6, 4), (6, 8)])
    canvas, placed = compose_mosaic(images, boxes, (5, 7), (6, 8))
    expected = np.full((12, 16), 114, np.uint8)
    expected[1:7, 0:5] = 200  # 8 wide, but only 5 to the left of the point
    expected[4:7, 5:13] = 210
    expected[7:12, 1:5] = 220  # 6 high, but only 5 below the point
    expected[7:12, 5:13] = 230
    np.testing.assert_array_equal(canvas, np.repeat(expected[..., None], 3, axis=2))
    np.testing.assert_array_equal(np.concatenate(placed), [[0, 1, 5, 7], [5, 4, 13, 7], [1, 7, 5, 12], [5, 7, 13, 12]])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_marked_objects_are_where_their_boxes_say(data):
    size = h, w = data.draw(st.sampled_from([(40, 40), (32, 56), (50, 20)]))
    centre = data.draw(st.integers(w // 2, 3 * w // 2)), data.draw(st.integers(h // 2, 3 * h // 2))
    images, boxes = [], []
    for color in COLORS:
        tile_h, tile_w = data.draw(st.integers(4, h)), data.draw(st.integers(4, w))
        x0, y0 = data.draw(st.integers(0, tile_w - 2)), data.draw(st.integers(0, tile_h - 2))
        x1, y1 = data.draw(st.integers(x0 + 1, tile_w)), data.draw(st.integers(y0 + 1, tile_h))
        image = np.zeros((tile_h, tile_w, 3), np.uint8)
        image[y0:y1, x0:x1] = color
        images.append(image)
        boxes.append(np.array([[x0, y0, x1, y1]], dtype=float))
    canvas, placed = compose_mosaic(images, boxes, centre, size)
    assert (canvas.dtype, canvas.shape) == (np.uint8, (2 * h, 2 * w, 3))
    assert (np.concatenate(placed) >= 0).all()
    assert (np.concatenate(placed) <= [2 * w, 2 * h, 2 * w, 2 * h]).all()
    for color, box in zip(COLORS, np.concatenate(placed), strict=True):
        ys, xs = np.nonzero(canvas[..., 0] == color)
        if len(xs):
            np.testing.assert_array_equal(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        else:
            assert (box[2] - box[0]) * (box[3] - box[1]) == 0


def test_tiles_without_boxes():
    images, boxes = make_tiles([(4, 4)] * 4)
    boxes[1] = np.zeros((0, 4))
    canvas, placed = compose_mosaic(images, boxes, (4, 4), (4, 4))
    assert [len(b) for b in placed] == [1, 0, 1, 1]
    unboxed, placed = compose_mosaic(images, [np.zeros((0, 4))] * 4, (4, 4), (4, 4))
    assert [b.shape for b in placed] == [(0, 4)] * 4
    np.testing.assert_array_equal(unboxed, canvas)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_a_blend_weighs_both_images(ratio, seed):
    first, second = np.random.default_rng(seed).integers(0, 256, (2, 20, 30, 3), dtype=np.uint8)
    blended = blend_images(first, second, ratio)
    assert (blended.dtype, blended.shape) == (np.uint8, (20, 30, 3))
    np.testing.assert_allclose(blended, ratio * first + (1 - ratio) * second, rtol=0, atol=0.501)
