"""Choose example boxes of each class and cut them out of their images."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from parking.data.decoding.orientation import IGNORE
from parking.data.image_io import UnreadableImageError, read_image
from parking.utils.constants import PAD_VALUE

# Boxes with a side below this many pixels show little; they are chosen only if a class has too few other boxes.
_SMALLEST_SIDE = 16
# A crop is a square whose side is the longer side of the box times this factor.
_CONTEXT = 1.25


class Example(NamedTuple):
    """A box to show, XYWH_ABS, with its class index and the path of its image."""

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
    """Choose boxes of each class, from different sequences if possible; the same input gives the same choice.

    Args:
        classes: (A,) class indices.
        boxes: (A, 4) XYWH_ABS.
        file_names: (A,) path of each box's image.
        sequence_of: maps the path of an image to the key of its sequence.
    """
    examples = []
    rng = np.random.default_rng(0)
    for c in range(num_classes):
        rows = rng.permutation(np.flatnonzero(classes == c))
        large = boxes[rows, 2:].min(axis=1) >= _SMALLEST_SIDE
        # Take a box of each sequence before a second box of any sequence, because frames of a sequence look alike. The
        # sort leaves boxes with equal keys in their random order.
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
    """Read the images of the examples and cut out their boxes, with some surroundings.

    Args:
        exif_orientations: the attribute of :class:`~parking.data.checking.overview.Overview`.

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
    """Return the square around a box (XYWH_ABS) as a (side, side, 3) picture; outside the image it is gray."""
    x, y, width, height = box
    extent = max(math.ceil(_CONTEXT * max(width, height)), 1)
    origin = np.round([x + (width - extent) / 2, y + (height - extent) / 2]).astype(int)
    scale = side / extent
    start, end = origin.clip(0), np.minimum(origin + extent, image.shape[1::-1])
    (left, top), (right, bottom) = (np.round((corner - origin) * scale).astype(int) for corner in (start, end))
    right, bottom = max(right, left + 1), max(bottom, top + 1)
    part = image[start[1] : end[1], start[0] : end[0]]
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = np.full((side, side, 3), PAD_VALUE, dtype=np.uint8)
    picture[top:bottom, left:right] = cv2.resize(part, (right - left, bottom - top), interpolation=method)
    corners = np.round((np.array([[x, y], [x + width, y + height]]) - origin) * scale).astype(int) - [[0], [1]]
    return cv2.rectangle(picture, *corners.tolist(), (255, 255, 255), 1)
