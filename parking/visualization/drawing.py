"""Boxes with names and scores on pictures, readable at a glance from 320 pixels to 4K."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from parking.utils.errors import UserError
from parking.visualization.colors import Color, class_colors, text_color
from parking.visualization.fonts import drawable, fit_font
from parking.visualization.tag_placement import place_tags


class BoxDrawer:
    """Draws detections, or annotations, of a fixed list of classes."""

    def __init__(
        self,
        class_names: Sequence[str],
        colors: Sequence[Color] | None = None,
        *,
        font_path: str | os.PathLike | None = None,
    ):
        """
        Args:
            class_names: names for the tags, in any script.
            colors: RGB 0..255 for each class; by default those of
                :func:`~parking.visualization.colors.class_colors`.
            font_path: font file with all the characters; by default one is looked for, and characters that no font
                has are drawn as codes.

        Raises:
            ValueError: there are not as many ``colors`` as names.
        """
        colors = class_colors(class_names) if colors is None else colors
        if len(colors) != len(class_names):
            raise ValueError(f"{len(class_names)} class names and {len(colors)} colors do not belong together")
        self._font_path = font_path
        self._class_names = [drawable(name) if name.strip() else f"class {i}" for i, name in enumerate(class_names)]
        self._colors = [tuple(map(int, color)) for color in colors]
        if font_path is None:
            self._class_names, self._font_path = fit_font(self._class_names)

    def draw(self, image: np.ndarray, boxes, classes, scores=None) -> np.ndarray:
        """Return a copy of ``image`` with the boxes, their class names and, if given, their scores.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) XYXY_ABS in pixels of ``image``.
            classes: (N,) contiguous class ids.
            scores: (N,) 0..1, or None for annotations. The best-scoring box is drawn on top.
        """
        boxes, classes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(classes, dtype=np.int64)
        labels = [self._class_names[c] for c in classes]
        if scores is not None:
            scores = np.asarray(scores, dtype=np.float64)
            order = np.argsort(-scores, kind="stable")
            labels = [f"{labels[i]} {scores[i]:.2f}" for i in order]
            boxes, classes = boxes[order], classes[order]
        return draw_boxes(image, boxes, labels, [self._colors[c] for c in classes], font_path=self._font_path)


def draw_boxes(
    image: np.ndarray,
    boxes,
    labels: Sequence[str],
    colors: Sequence[Color],
    *,
    font_path: str | os.PathLike | None = None,
) -> np.ndarray:
    """Return a copy of ``image`` with a frame and a filled name tag for every box.

    Lines and letters are sized by the image. Tags stay inside the image and, if possible, clear of each other.
    The first box has the best choice of places and is drawn on top. What lies outside the image is not drawn.

    Args:
        image: (H, W, 3) uint8 RGB.
        boxes: (N, 4) XYXY_ABS in pixels of ``image``.
        labels: N texts; an empty one means no tag.
        colors: N RGB colours, 0..255.
        font_path: font file with all the characters; by default one is looked for.

    Raises:
        UserError: no installed font can draw the labels.
    """
    _check_image(image)
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    if not len(boxes) == len(labels) == len(colors):
        raise ValueError(f"{len(boxes)} boxes, {len(labels)} labels and {len(colors)} colors do not belong together")
    height, width = image.shape[:2]
    visible = _is_visible(boxes, height, width)
    boxes = np.rint(boxes[visible].clip(0, [width, height, width, height])).astype(np.int64)
    labels = [drawable(label) for label, keep in zip(labels, visible, strict=True) if keep]
    colors = [tuple(map(int, color)) for color, keep in zip(colors, visible, strict=True) if keep]

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    line_width = _line_width(height, width)
    for box, color in reversed(list(zip(boxes.tolist(), colors, strict=True))):
        _draw_frame(draw, box, color, line_width)
    tagged = [i for i, label in enumerate(labels) if label]
    if tagged:
        if font_path is None:
            labels, font_path = fit_font(labels)
        font = ImageFont.truetype(str(font_path), _font_size(height, width))
        _draw_tags(draw, boxes[tagged], [labels[i] for i in tagged], [colors[i] for i in tagged], font, (height, width))
    return np.array(canvas)


def save_image(image: np.ndarray, path: str | os.PathLike) -> None:
    """Write an (H, W, 3) uint8 RGB image; the ending of ``path`` names the format; the folder is made if needed.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    content = encode_image(image, path.suffix)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as e:
        raise UserError(f"The picture '{path}' cannot be written: {e.strerror or e}.") from e


def encode_image(image: np.ndarray, ending: str = ".png") -> bytes:
    """The bytes of an image file with an (H, W, 3) uint8 RGB image; ``ending`` names the format."""
    _check_image(image)
    # cv2.imwrite fails silently for some paths that are not ASCII.
    return cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def _check_image(image):
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")


def _is_visible(boxes, height, width):
    finite = np.isfinite(boxes).all(axis=1)
    x1, y1, x2, y2 = np.where(finite[:, None], boxes, 0).T
    return finite & (x1 < x2) & (y1 < y2) & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)


def _line_width(height, width):
    return max(2, round(math.sqrt(height * width) / 320))


def _font_size(height, width):
    return max(11, round(math.sqrt(height * width) / 52))


def _draw_frame(draw, box, color, line_width):
    x1, y1, x2, y2 = box
    # The frame lies inside the box, so it must not fill a small one. Pillow's corners are inclusive.
    line_width = max(1, min(line_width, min(x2 - x1, y2 - y1) // 4))
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=color, width=line_width)


def _draw_tags(draw, boxes, labels, colors, font, image_size):
    ascent, descent = font.getmetrics()
    padding = max(1, font.size // 6)
    tag_height = ascent + descent
    sizes = np.array([(math.ceil(font.getlength(label)) + 2 * padding, tag_height) for label in labels])
    tags = place_tags(boxes, sizes, image_size)
    for (x1, y1, x2, y2), label, color in reversed(list(zip(tags.tolist(), labels, colors, strict=True))):
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=color)
        draw.text((x1 + padding, y1 + ascent), label, fill=text_color(color), font=font, anchor="ls")
