"""Draw boxes and the number of objects of each class on the frames of a video."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from parking.visualization.drawing import BoxDrawer


class FramePainter:
    """Draws the detections in a frame: boxes and, in the upper left corner, the number of boxes of each class."""

    def __init__(
        self, class_names: Sequence[str], display_names: Sequence[str] | None = None, *, max_side: int | None = None
    ):
        """
        Args:
            class_names: the model's classes, which determine the colours.
            display_names: names to draw instead, one for each class.
            max_side: longest side of a picture in pixels; larger pictures are reduced to it. None: no limit.
        """
        self._drawer = BoxDrawer(class_names, display_names)
        self._max_side = max_side

    def draw(self, image: np.ndarray, boxes: np.ndarray, class_ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Return a new picture with boxes and counts.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) XYXY_ABS in pixels of ``image``.
            class_ids: (N,) indices into the class names.
            scores: (N,) 0..1.
        """
        picture = self._drawer.draw(image, boxes, class_ids, scores, max_side=self._max_side)
        self._draw_counts(picture, Counter(class_ids.tolist()))
        return picture

    def _draw_counts(self, picture: np.ndarray, counts: Mapping[int, int]) -> None:
        """Draw a dark panel into ``picture``: one row for each class in ``counts``, except for rows that do not fit."""
        if not counts:
            return
        height, width = picture.shape[:2]
        size = max(12, round(math.sqrt(height * width) / 44))
        font = ImageFont.truetype(str(self._drawer.font_path), size)
        row, margin = round(size * 1.35), size // 2
        rows = [(c, str(counts[c]), self._drawer.class_names[c]) for c in sorted(counts)]
        number_width = max(math.ceil(font.getlength(number)) for _, number, _ in rows)
        name_x = margin + size + number_width + margin
        panel_width = name_x + max(math.ceil(font.getlength(name)) for _, _, name in rows) + margin
        panel = picture[: row * len(rows) + margin, :panel_width]
        canvas = Image.fromarray(panel // 4)
        draw = ImageDraw.Draw(canvas)
        for i, (c, number, name) in enumerate(rows):
            top, middle = margin // 2 + row * i, margin // 2 + row * i + row // 2
            side = round(size * 0.6)
            swatch_y = top + (row - side) // 2
            draw.rectangle((margin, swatch_y, margin + side - 1, swatch_y + side - 1), fill=self._drawer.colors[c])
            draw.text((name_x - margin, middle), number, fill=(255, 255, 255), font=font, anchor="rm")
            draw.text((name_x, middle), name, fill=(255, 255, 255), font=font, anchor="lm")
        panel[:] = np.asarray(canvas)
