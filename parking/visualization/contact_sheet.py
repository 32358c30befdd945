"""Put several pictures on one sheet, and resize pictures."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from parking.visualization.fonts import drawable, fit_font

_BACKGROUND, _TITLE_COLOR = (255, 255, 255), (40, 40, 40)


def contact_sheet(
    images: Sequence[np.ndarray], titles: Sequence[str], *, columns: int = 3, tile_width: int = 480
) -> np.ndarray:
    """Put pictures side by side, row by row, each under its title.

    Args:
        images: at least one (H, W, 3) uint8 RGB picture; sizes may differ.
        titles: one line for each image, shortened in the middle if too long.
        columns: pictures in a row; if there are fewer images, the sheet is narrower.
        tile_width: pixels to which the longer side of each picture is resized.

    Returns:
        The sheet, (H, W, 3) uint8 RGB.
    """
    columns = min(columns, len(images))
    gap = max(4, tile_width // 60)
    (*titles, _), font_path = fit_font([*map(drawable, titles), "…"])
    font = ImageFont.truetype(str(font_path), max(11, tile_width // 30))
    title_height = sum(font.getmetrics()) + gap // 2

    tiles = [fit_side(image, tile_width) for image in images]
    row_heights = [max(t.shape[0] for t in tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    height = gap + sum(title_height + row_height + gap for row_height in row_heights)
    sheet = Image.new("RGB", (gap + columns * (tile_width + gap), height), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for i, tile in enumerate(tiles):
        row, column = divmod(i, columns)
        x = gap + column * (tile_width + gap)
        y = gap + sum(title_height + row_height + gap for row_height in row_heights[:row])
        draw.text((x, y), _shorten(titles[i], font, tile_width - gap), fill=_TITLE_COLOR, font=font)
        sheet.paste(Image.fromarray(tile), (x, y + title_height))
    return np.array(sheet)


def fit_side(image: np.ndarray, side: int) -> np.ndarray:
    """Resize an (H, W, 3) uint8 picture to a new array whose longer side is ``side`` pixels."""
    ratio = side / max(image.shape[:2])
    size = max(1, round(image.shape[1] * ratio)), max(1, round(image.shape[0] * ratio))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR)


def limit_side(image: np.ndarray, side: int | None) -> np.ndarray:
    """Reduce an (H, W, 3) uint8 picture if its longer side is above ``side`` pixels; None sets no limit."""
    return image if side is None or max(image.shape[:2]) <= side else fit_side(image, side)


def _shorten(text, font, width):
    """Cut out the middle of ``text`` so that it fits ``width`` pixels: a file name's beginning and end tell most."""
    keep = len(text)
    shortened = text
    while font.getlength(shortened) > width and keep > 0:
        keep -= 1
        shortened = text[: (keep + 1) // 2] + "…" + text[len(text) - keep // 2 :]
    return shortened
