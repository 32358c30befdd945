"""Resize images to fit, keeping the aspect ratio, and pad them with gray below and to the right.

All is anchored at the top-left corner, because ``detector_postprocess`` and ``ImageList`` support no offset.
"""

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import PadTransform, Transform

from parking.data.image_io import compute_resized_sides
from parking.utils.constants import PAD_VALUE


class LetterboxTransform(Transform):
    """Resize an image from (h, w) to (new_h, new_w) pixels, smaller or larger.

    It is bilinear without antialiasing (OpenCV's ``INTER_LINEAR``), as in training and scoring of the published
    weights; detectron2's Pillow resize gives other scores. The axes have factors of their own, as sides are rounded.
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


class ResizeToFit(Augmentation):
    """Shrink or enlarge an image to the largest size that fits into ``size`` (H, W)."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self._init(locals())

    def get_transform(self, image) -> Transform:
        h, w = image.shape[:2]
        return LetterboxTransform(h, w, *compute_resized_sides(h, w, *self.size))


class PadToSize(Augmentation):
    """Pad an image that fits into ``size`` (H, W) to that size with gray."""

    def __init__(self, size: tuple[int, int]):
        super().__init__()
        self._init(locals())

    def get_transform(self, image) -> Transform:
        h, w = image.shape[:2]
        pad_h, pad_w = self.size[0] - h, self.size[1] - w
        return PadTransform(0, 0, pad_w, pad_h, orig_w=w, orig_h=h, pad_value=PAD_VALUE)
