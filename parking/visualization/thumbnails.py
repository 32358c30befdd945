"""Small pictures with boxes, for sheets of many."""

from collections.abc import Sequence

import numpy as np

from parking.visualization.contact_sheet import fit_side
from parking.visualization.drawing import BoxDrawer


class ThumbnailDrawer:
    """Draws boxes into pictures after resizing them, so that lines and letters can be read in the small picture.

    A name that no installed font can draw causes a warning.
    """

    def __init__(self, class_names: Sequence[str], *, side: int):
        """
        Args:
            side: longer side of a thumbnail in pixels.
        """
        self.side = side
        self._drawer = BoxDrawer(class_names)

    def draw(self, image: np.ndarray, boxes, classes, scores=None, *, size: tuple[int, int]) -> np.ndarray:
        """Return a thumbnail with the boxes, their class names and, if given, their scores.

        Args:
            image: (H, W, 3) uint8 RGB, of any size.
            boxes: (N, 4) XYXY_ABS in pixels of an image of ``size``.
            classes: (N,) contiguous class ids.
            scores: (N,) 0..1, or None for annotations.
            size: height and width that the boxes belong to.
        """
        thumbnail = fit_side(image, self.side)
        scale = [thumbnail.shape[1] / size[1], thumbnail.shape[0] / size[0]]
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * (scale * 2)
        return self._drawer.draw(thumbnail, boxes, classes, scores)
