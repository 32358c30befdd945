"""Mirror an image at random."""

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform


class _FastHFlip(HFlipTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        # fvcore returns a view with negative strides, which slows down later steps.
        return cv2.flip(img, 1)


class _FastVFlip(VFlipTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return cv2.flip(img, 0)


class RandomFlip(Augmentation):
    """Mirror an image left-right or up-down with a given probability, drawn from the sample's own generator."""

    def __init__(self, prob: float, *, vertical: bool = False):
        super().__init__()
        self._init(locals())

    def get_transform(self, image, rng) -> Transform:
        h, w = image.shape[:2]
        # Draw even if the probability is 0 or 1, so that the probability does not change what is drawn later.
        if rng.random() >= self.prob:
            return NoOpTransform()
        return _FastVFlip(h) if self.vertical else _FastHFlip(w)
