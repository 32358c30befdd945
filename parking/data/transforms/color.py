"""Random colours."""

import cv2
import numpy as np
from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import NoOpTransform, Transform


class HSVTransform(Transform):
    """Multiply hue, saturation and value of a uint8 RGB image by gains, through tables. Coordinates stay.

    Args:
        hue, saturation, value: the gains; hue wraps around, the others are cut off at 255.
    """

    def __init__(self, hue: float, saturation: float, value: float):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        levels = np.arange(256)
        # OpenCV's 8-bit hue is in units of two degrees, 0..179.
        tables = [
            levels * self.hue % 180,
            np.clip(levels * self.saturation, 0, 255),
            np.clip(levels * self.value, 0, 255),
        ]
        # In place but for the first, as new arrays of this size cost more than the arithmetic.
        hsv = cv2.cvtColor(img, cv2.COLOR_RGB2HSV)
        cv2.LUT(hsv, np.stack(tables, axis=1).astype(np.uint8).reshape(1, 256, 3), dst=hsv)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB, dst=hsv)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> Transform:
        return NoOpTransform()


class RandomHSV(Augmentation):
    """Gains of hue, saturation and value, each drawn uniformly from 1 +- its argument."""

    def __init__(self, hue: float, saturation: float, value: float):
        super().__init__()
        self._init(locals())

    def get_transform(self, image, rng) -> Transform:
        ranges = np.array([self.hue, self.saturation, self.value])
        gains = 1 + ranges * rng.uniform(-1, 1, 3)
        return HSVTransform(*gains.tolist()) if ranges.any() else NoOpTransform()
