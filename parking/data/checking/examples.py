"""Cutting examples of each class out of the images."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from parking.data.decoding.orientation import IGNORE
from parking.data.image_io import UnreadableImageError, read_image

# Of smaller boxes nothing is to be seen; they are shown where there are no others.
_SMALLEST_SIDE = 16
# A crop is a square that is larger than the box by this factor.
_CONTEXT = 1.25
_PADDING = 114


class Example(NamedTuple):
    """A box to be shown: class index, path of the image, XYWH_ABS."""

    class_index: int
    file_name: str
    box: tuple[float, float, float, float]


def choose_examples(
    classes: np.ndarray,
    boxes: np.ndarray,
    file_names: Sequence[str],
    *,
    sequence_of: Callable[[str], str],
    num_classes: int,
    per_class: int,
) -> list[Example]:
    """Choose boxes of each class, of different sequences where that can be; the same ones each time.

    Args:
        classes: (A,) class indices.
        boxes: (A, 4) XYWH_ABS.
        file_names: (A,) path of each box's image.
        sequence_of: the key of the sequence that an image of this path belongs to.
    """
    examples = []
    rng = np.random.default_rng(0)
    for c in range(num_classes):
        rows = rng.permutation(np.flatnonzero(classes == c))
        large = boxes[rows, 2:].min(axis=1) >= _SMALLEST_SIDE
        # One box a sequence first, whose frames are much alike; a stable sort keeps the random order among equals.
        seen: Counter = Counter()
        turns = np.zeros(len(rows), dtype=int)
        for k, row in enumerate(rows):
            key = sequence_of(file_names[row])
            turns[k] = seen[key]
            seen[key] += 1
        chosen = rows[np.lexsort((turns, ~large))][:per_class]
        largest_first = chosen[np.argsort(-boxes[chosen, 2:].prod(axis=1), kind="stable")]
        examples += [Example(c, file_names[row], tuple(boxes[row].tolist())) for row in largest_first]
    return examples


def cut_examples(
    examples: Sequence[Example], exif_orientations: Mapping[str, str], *, side: int, num_workers: int
) -> dict[int, list[np.ndarray]]:
    """Read the images and cut the boxes out, with a little of what is around them.

    Args:
        exif_orientations: of :class:`.sides.Overview`.

    Returns:
        class index -> (side, side, 3) uint8 RGB pictures, the box framed in white. Unreadable images are left out.
    """

    def cut(example: Example) -> np.ndarray | None:
        try:
            orientation = exif_orientations.get(example.file_name, IGNORE)
            return cut_box(read_image(example.file_name, orientation=orientation), example.box, side)
        except UnreadableImageError:
            return None

    pictures: dict[int, list[np.ndarray]] = {}
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        for example, picture in zip(examples, pool.map(cut, examples), strict=True):
            if picture is not None:
                pictures.setdefault(example.class_index, []).append(picture)
    return pictures


def cut_box(image: np.ndarray, box: Sequence[float], side: int) -> np.ndarray:
    """The square around a box (XYWH_ABS) as a (side, side, 3) picture; what lies outside the image is gray."""
    x, y, width, height = box
    extent = _CONTEXT * max(width, height)
    scale = side / extent
    left, top = x + width / 2 - extent / 2, y + height / 2 - extent / 2
    # Pixel (0, 0) covers 0..1: the centres of the pixels are half a pixel further.
    matrix = np.array([[scale, 0, -left * scale + (scale - 1) / 2], [0, scale, -top * scale + (scale - 1) / 2]])
    if scale < 1:
        image, matrix = _shrink(image, matrix, scale)
    picture = cv2.warpAffine(
        image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(_PADDING,) * 3
    )
    corners = [round((x - left) * scale), round((y - top) * scale)]
    opposite = [round((x + width - left) * scale) - 1, round((y + height - top) * scale) - 1]
    return cv2.rectangle(picture, corners, opposite, (255, 255, 255), 1)


def _shrink(image, matrix, scale):
    """Make the image smaller by averaging first: a warp alone would skip most of its pixels."""
    height, width = image.shape[:2]
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    ratio_x, ratio_y = small[0] / width, small[1] / height
    to_large = np.array([[1 / ratio_x, 0, (1 / ratio_x - 1) / 2], [0, 1 / ratio_y, (1 / ratio_y - 1) / 2], [0, 0, 1]])
    return cv2.resize(image, small, interpolation=cv2.INTER_AREA), matrix @ to_large
