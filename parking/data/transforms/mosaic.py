"""Join several images into one, by pure functions; the caller makes all random decisions.

Shape legend: a training sample has height H and width W; a mosaic's canvas is 2H x 2W, and each of its four tiles has
been resized to fit into H x W. Boxes are XYXY_ABS.
"""

import cv2
import numpy as np

from parking.data.transforms.warp import clip_boxes


def compute_tile_offset(i: int, size: tuple[int, int], centre: tuple[int, int]) -> tuple[int, int]:
    """Return the top-left corner (x, y), perhaps off the canvas, of tile ``i`` (0..3), which has ``size`` (h, w).

    The tiles touch ``centre``: 0 and 1 from above, 2 and 3 from below, 0 and 2 from the left, 1 and 3 from the right.
    """
    (h, w), (x, y) = size, centre
    return (x - w if i in (0, 2) else x), (y - h if i in (0, 1) else y)


def crop_to_canvas(
    image: np.ndarray, offset: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Crop an image at ``offset`` to the canvas; return the crop (a view, may be empty) and its top-left (x, y)."""
    h, w = image.shape[:2]
    x, y = offset
    x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, 2 * size[1]), min(y + h, 2 * size[0])
    return image[y0 - y : max(y1 - y, 0), x0 - x : max(x1 - x, 0)], (x0, y0)


def place_boxes(boxes: np.ndarray, offset: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Move the (N, 4) boxes of an image at ``offset`` to the canvas and clip them to it; some may lose all area."""
    return clip_boxes(boxes + [*offset, *offset], 2 * size[0], 2 * size[1])


def blend_images(first: np.ndarray, second: np.ndarray, ratio: float) -> np.ndarray:
    """Return ``ratio * first + (1 - ratio) * second`` for uint8 images of one shape (mixup, arXiv:1710.09412)."""
    return cv2.addWeighted(first, ratio, second, 1 - ratio, 0)
