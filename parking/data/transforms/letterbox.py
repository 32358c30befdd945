"""Resize images to fit, keeping the aspect ratio, and pad them with gray below and to the right.

The top-left corner stays in place, because detectron2's ``detector_postprocess`` and ``ImageList`` support no offset.
"""

import cv2
import numpy as np
from fvcore.transforms.transform import Transform

from parking.data.image_io import compute_resized_sides
from parking.utils.constants import PAD_VALUE


class LetterboxTransform(Transform):
    """Resize an image from (h, w) to (new_h, new_w) pixels, smaller or larger.

    The interpolation is bilinear without antialiasing (OpenCV's ``INTER_LINEAR``), as in training and scoring of the
    published weights; resizing by Pillow, as in detectron2, gives other scores. The factors of the two axes differ
    slightly, because the sides are rounded.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        if img.shape[:2] != (self.h, self.w):
            raise ValueError(f"expected an image of height and width {(self.h, self.w)}, got {img.shape[:2]}")
        if (self.h, self.w) == (self.new_h, self.new_w):
            return img
        return cv2.resize(img, (self.new_w, self.new_h), interpolation=cv2.INTER_LINEAR)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map (N, 2) points (x, y) in absolute pixels; returns a new array."""
        return coords * np.array([self.new_w / self.w, self.new_h / self.h])


def resize_to_fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink or enlarge an image to the largest size that fits into ``size`` (H, W)."""
    h, w = image.shape[:2]
    return LetterboxTransform(h, w, *compute_resized_sides(h, w, *size)).apply_image(image)


def pad_to_size(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pad an image that fits into ``size`` (H, W) to that size with gray."""
    padded = np.full((*size, 3), PAD_VALUE, dtype=np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    return padded
