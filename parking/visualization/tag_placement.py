"""Choose where the name tags of boxes go."""

import numpy as np

# Largest number of tags that are kept clear of each other. The time grows with the square of this number, and more tags
# are illegible anyway.
_MAX_PLACED = 400


def place_tags(boxes: np.ndarray, tag_sizes: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Place the tag of each box next to or in the box, inside the image and, if possible, clear of earlier tags.

    The candidates for a tag are the corners of its box, outside and inside, then places along the edges. The tag gets
    the first candidate that covers no earlier tag, else the one that covers the least area of earlier tags; so tags of
    the first boxes are placed best. Tags after the first 400 go above their boxes without a search.

    Args:
        boxes: (N, 4) XYXY_ABS integers, clipped to the image.
        tag_sizes: (N, 2) width and height in pixels.
        image_size: (height, width).

    Returns:
        (N, 4) XYXY_ABS integers; a tag larger than the image starts at its left or top edge.
    """
    height, width = image_size
    tags = np.zeros((len(boxes), 4), dtype=np.int64)
    for i, (box, size) in enumerate(zip(boxes, tag_sizes, strict=True)):
        is_late = i >= _MAX_PLACED
        places = box[None, :2] - [[0, size[1]]] if is_late else _candidates(*box.tolist(), *size.tolist())
        places = np.maximum(np.minimum(places, np.array([width, height]) - size), 0)
        places = np.concatenate([places, places + size], axis=1)
        covered = np.zeros(1) if is_late else _intersection(places, tags[:i]).sum(axis=1)
        tags[i] = places[np.argmin(covered)]
    return tags


def _candidates(x1, y1, x2, y2, w, h):
    """Return (K, 2) candidates for the upper left corner of a tag of w x h pixels, the preferred ones first."""
    right, bottom = x2 - w, y2 - h
    corners = [(x, y) for x in (x1, right) for y in (y1 - h, y2, y1)] + [(x1, bottom), (right, bottom)]
    beside = [(x2, y1), (x1 - w, y1), (x2, bottom), (x1 - w, bottom)]
    along_x = [(x, y) for x in range(x1 + w // 2, right, max(w // 2, 1)) for y in (y1 - h, y2, y1, bottom)]
    along_y = [(x, y) for y in range(y1 + h, bottom, max(h, 1)) for x in (x1, right, x2, x1 - w)]
    return np.array(corners + beside + along_x + along_y, dtype=np.int64)


def _intersection(a, b):
    """Return the (K, M) areas of the intersections of boxes a, (K, 4), and b, (M, 4)."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return np.maximum(sides, 0).prod(axis=2)
