"""Draw boxes with names and scores that are legible on pictures from 320 pixels to 4K."""

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from parking.utils.errors import UserError
from parking.visualization.colors import class_colors, text_color
from parking.visualization.contact_sheet import limit_side
from parking.visualization.fonts import drawable, fit_font
from parking.visualization.tag_placement import place_tags


class BoxDrawer:
    """Draws detections or annotations of a fixed list of classes.

    Lines and letters grow with the image. The tags, which show class names and scores, stay inside the image and, if
    possible, do not overlap.

    Attributes:
        class_names: the names as they are drawn; characters that no installed font has are written as codes.
        colors: of each class, RGB 0..255.
        font_path: a font that has the characters of these names.
    """

    def __init__(self, class_names: Sequence[str], display_names: Sequence[str] | None = None):
        """
        Args:
            class_names: decide about the colours, see :func:`~parking.visualization.colors.class_colors`.
            display_names: names for the tags, in any script, one for each class; None: the class names.

        Raises:
            ValueError: the numbers of class names and ``display_names`` differ.
        """
        shown = class_names if display_names is None else display_names
        if len(shown) != len(class_names):
            raise ValueError(f"{len(class_names)} class names and {len(shown)} names to draw do not belong together")
        names = [drawable(name) if name.strip() else f"class {i}" for i, name in enumerate(shown)]
        self.class_names, self.font_path = fit_font(names)
        self.colors = class_colors(class_names)

    def draw(self, image: np.ndarray, boxes, classes, scores=None, *, size=None, max_side=None) -> np.ndarray:
        """Return a copy of ``image`` with the boxes, their class names and, if given, their scores.

        Boxes and parts of boxes that lie outside the image are not drawn.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (N, 4) XYXY_ABS.
            classes: (N,) indices into ``class_names``.
            scores: (N,) 0..1, or None for annotations. The best-scoring box is drawn on top.
            size: (height, width) of the picture in whose pixels ``boxes`` are given, if ``image`` was resized from it;
                None: those of ``image``.
            max_side: longest side in pixels; a larger image is reduced to it before drawing. None: no limit.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"an image must be (H, W, 3) uint8, not {image.shape} {image.dtype}")
        height, width = image.shape[:2] if size is None else size
        image = limit_side(image, max_side)
        boxes, classes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4), np.asarray(classes, dtype=np.int64)
        boxes = boxes * ([image.shape[1] / width, image.shape[0] / height] * 2)
        labels = [self.class_names[c] for c in classes]
        if scores is not None:
            scores = np.asarray(scores, dtype=np.float64)
            order = np.argsort(-scores, kind="stable")
            labels = [f"{labels[i]} {scores[i]:.2f}" for i in order]
            boxes, classes = boxes[order], classes[order]
        return _draw_boxes(image, boxes, labels, [self.colors[c] for c in classes], self.font_path)


def _draw_boxes(image, boxes, labels, colors, font_path) -> np.ndarray:
    """Return a copy of ``image`` with the boxes; the first box is drawn on top, and its tag is placed first."""
    height, width = image.shape[:2]
    visible = np.flatnonzero(_is_visible(boxes, height, width)).tolist()
    boxes = np.rint(boxes[visible].clip(0, [width, height, width, height])).astype(np.int64)
    labels, colors = [labels[i] for i in visible], [colors[i] for i in visible]
    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    scale = math.sqrt(height * width)
    line_width = max(2, round(scale / 320))
    for box, color in reversed(list(zip(boxes.tolist(), colors, strict=True))):
        _draw_frame(draw, box, color, line_width)
    if visible:
        font = ImageFont.truetype(str(font_path), max(11, round(scale / 52)))
        _draw_tags(draw, boxes, labels, colors, font, (height, width))
    return np.array(canvas)


def save_image(image: np.ndarray, path: str | os.PathLike) -> None:
    """Write an (H, W, 3) uint8 RGB image in the format that the ending of ``path`` names; make the folder if needed.

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
    """Encode an (H, W, 3) uint8 RGB image as the bytes of an image file in the format that ``ending`` names."""
    # Callers write the bytes themselves, because cv2.imwrite fails silently for some paths that are not ASCII.
    return cv2.imencode(ending, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()


def _is_visible(boxes, height, width):
    finite = np.isfinite(boxes).all(axis=1)
    x1, y1, x2, y2 = np.where(finite[:, None], boxes, 0).T
    return finite & (x1 < x2) & (y1 < y2) & (x1 < width) & (y1 < height) & (x2 > 0) & (y2 > 0)


def _draw_frame(draw, box, color, line_width):
    x1, y1, x2, y2 = box
    # Make the frame of a small box thinner, so that the frame does not fill the box. Subtract 1 from the lower right
    # corner, because Pillow draws that corner, too.
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
