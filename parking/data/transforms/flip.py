"""Random mirroring."""

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform


class _FastHFlip(HFlipTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        # A view with negative strides, as fvcore returns it, is slow to go on with.
        return cv2.flip(img, 1)

    def inverse(self) -> Transform:
        return self


class _FastVFlip(VFlipTransform):
    def apply_image(self, img: np.ndarray) -> np.ndarray:
        return cv2.flip(img, 0)

    def inverse(self) -> Transform:
        return self


class RandomFlip(Augmentation):
    """Mirror left-right, or up-down, with a probability; detectron2's draws from numpy's global state."""

    def __init__(self, prob: float, *, vertical: bool = False):
        super().__init__()
        self._init(locals())

    def get_transform(self, image, rng) -> Transform:
        h, w = image.shape[:2]
        # Drawn even if it cannot matter, so that a probability changes nothing about what is drawn after it.
        if rng.random() >= self.prob:
            return NoOpTransform()
        return _FastVFlip(h) if self.vertical else _FastHFlip(w)
