"""Colours of classes."""

from collections.abc import Sequence

from parking.challenge.classes import CLASS_COLORS, CLASS_NAMES
from parking.data.datasets.colors import distinct_colors

Color = tuple[int, int, int]


def class_colors(class_names: Sequence[str]) -> list[Color]:
    """Return an RGB colour (0..255) for each class: fixed ones for the challenge's classes, else by the class index."""
    if tuple(class_names) == CLASS_NAMES:
        return list(CLASS_COLORS)
    return distinct_colors(len(class_names))


def text_color(background: Color) -> Color:
    """Return black or white, whichever contrasts more with ``background`` (relative luminance of WCAG 2.2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in background)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast is (brighter + 0.05) / (darker + 0.05); white has luminance 1 and black 0. Both contrast equally where
    # luminance + 0.05 = sqrt(1.05 * 0.05), which is at a luminance of 0.179.
    return (0, 0, 0) if luminance > 0.179 else (255, 255, 255)
