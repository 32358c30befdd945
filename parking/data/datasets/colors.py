"""Colours for classes that have none of their own."""

import colorsys


def distinct_colors(num_classes: int) -> list[tuple[int, int, int]]:
    """RGB 0..255, one for each class; a class's colour depends on its index only."""
    # Steps of the golden ratio around the colour circle keep any number of hues apart.
    hues = (0.618034 * index % 1.0 for index in range(num_classes))
    return [tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.85, 0.95)) for hue in hues]
