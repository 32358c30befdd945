"""Small pictures with boxes, for sheets of many."""

from collections.abc import Sequence

import cv2
import numpy as np

from parking.visualization.drawing import BoxDrawer


class ThumbnailDrawer:
    """Draws boxes into a picture that is resized before, so that lines and letters are as wide as in a large one.

    Names that no installed font can draw cost a warning.
    """

    def __init__(self, class_names: Sequence[str], *, side: int):
        """
        Args:
            side: longer side in pixels of a thumbnail.
        """
        self.side = side
        self._drawer = BoxDrawer(class_names)

    def resize(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to a new array whose longer side is :attr:`side`."""
        ratio = self.side / max(image.shape[:2])
        size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
        return cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)

    def draw(self, image: np.ndarray, boxes, classes, scores=None, *, size: tuple[int, int]) -> np.ndarray:
        """Return a thumbnail with the boxes, their class names and, if given, their scores.

        Args:
            image: (H, W, 3) uint8 RGB, of any size.
            boxes: (N, 4) XYXY_ABS in pixels of an image of ``size``.
            classes: (N,) contiguous class ids.
            scores: (N,) 0..1, or None for annotations.
            size: height and width that the boxes belong to.
        """
        thumbnail = self.resize(image)
        scale = [thumbnail.shape[1] / size[1], thumbnail.shape[0] / size[0]]
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * (scale * 2)
        return self._drawer.draw(thumbnail, boxes, classes, scores)
