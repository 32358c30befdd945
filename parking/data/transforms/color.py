"""Change the colours of an image at random."""

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation, ColorTransform
from fvcore.transforms.transform import NoOpTransform, Transform


class HSVTransform(ColorTransform):
    """Multiply hue, saturation and value of a uint8 RGB image by gains.

    Args:
        hue, saturation, value: the gains; hue wraps around, saturation and value are cut off at 255.
    """

    def __init__(self, hue: float, saturation: float, value: float):
        super().__init__(self._multiply)
        self._set_attributes(locals())

    def _multiply(self, img: np.ndarray) -> np.ndarray:
        levels = np.arange(256)
        # OpenCV's 8-bit hue is in units of two degrees, 0..179.
        tables = [
            levels * self.hue % 180,
            np.clip(levels * self.saturation, 0, 255),
            np.clip(levels * self.value, 0, 255),
        ]
        # The steps after the first work in place, because new arrays of this size cost more than the arithmetic.
        hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
        cv2.LUT(hsv, np.stack(tables, axis=1).astype(np.uint8).reshape(1, 256, 3), dst=hsv)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)


class RandomHSV(Augmentation):
    """Multiply hue, saturation and value by random gains, each drawn uniformly from 1 +- its argument."""

    def __init__(self, hue: float, saturation: float, value: float):
        super().__init__()
        self._init(locals())

    def get_transform(self, image, rng) -> Transform:
        ranges = np.array([self.hue, self.saturation, self.value])
        gains = 1 + ranges * rng.uniform(-1, 1, 3)
        return HSVTransform(*gains.tolist()) if ranges.any() else NoOpTransform()
