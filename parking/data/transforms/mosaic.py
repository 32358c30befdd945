"""Joining several images into one: pure functions, all random decisions are made by the caller.

Shape legend: a training sample has height H and width W; a mosaic's canvas is 2H x 2W, and each of its four tiles has
been resized to fit into H x W. Boxes are XYXY_ABS.
"""

import cv2
import numpy as np

from parking.data.transforms.warp import clip_boxes
from parking.utils.constants import PAD_VALUE


def compose_mosaic(
    images: list[np.ndarray], boxes: list[np.ndarray], centre: tuple[int, int], size: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Place four images against a point of a gray canvas: top-left, top-right, bottom-left, bottom-right of it.

    Args:
        images: four uint8 (h_i, w_i, 3).
        boxes: four float (N_i, 4), in the images' coordinates.
        centre: (x, y) of the point on the canvas.
        size: (H, W).

    Returns:
        The canvas, uint8 (2H, 2W, 3); and the four arrays of boxes on it, (N_i, 4), clipped to the canvas (a box that
        is outside has no area then).
    """
    canvas_h, canvas_w = 2 * size[0], 2 * size[1]
    canvas = np.full((canvas_h, canvas_w, 3), PAD_VALUE, dtype=np.uint8)
    placed = []
    for image, image_boxes, (x, y) in zip(images, boxes, compute_mosaic_offsets(images, centre), strict=True):
        h, w = image.shape[:2]
        x0, y0, x1, y1 = max(x, 0), max(y, 0), min(x + w, canvas_w), min(y + h, canvas_h)
        canvas[y0:y1, x0:x1] = image[y0 - y : y1 - y, x0 - x : x1 - x]
        placed.append(clip_boxes(image_boxes + [x, y, x, y], canvas_h, canvas_w))
    return canvas, placed


def compute_mosaic_offsets(images: list[np.ndarray], centre: tuple[int, int]) -> list[tuple[int, int]]:
    """Where on the canvas the top-left corners of the four images come to lie, (x, y); possibly outside."""
    x, y = centre
    (h0, w0), (h1, _), (_, w2) = (image.shape[:2] for image in images[:3])
    return [(x - w0, y - h0), (x, y - h1), (x - w2, y), (x, y)]


def blend_images(first: np.ndarray, second: np.ndarray, ratio: float) -> np.ndarray:
    """``ratio * first + (1 - ratio) * second`` of two uint8 images of one shape (mixup, arXiv:1710.09412)."""
    return cv2.addWeighted(first, ratio, second, 1 - ratio, 0)
