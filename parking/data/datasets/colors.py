"""Choose colours for classes without colours of their own."""

import colorsys


def distinct_colors(num_classes: int) -> list[tuple[int, int, int]]:
    """Return an RGB colour, 0..255, for each class; it depends on the class's index only."""
    # Steps of the golden ratio around the colour circle keep any number of hues apart.
    hues = (0.618034 * index % 1.0 for index in range(num_classes))
    return [tuple(round(255 * value) for value in colorsys.hsv_to_rgb(hue, 0.85, 0.95)) for hue in hues]
