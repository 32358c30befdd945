"""Dividing the training images into a training and a validation part: pure functions, no files."""

import hashlib
import random
import re
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np

from parking.utils.errors import UserError

_ENTRY_SEED = 100
_ENTRY_NUM_VAL = 3000
_NAME_PATTERN = re.compile(r"((?:.*/)?\d{8}_.+_\d+)_\d+\.[^./]+")
# Validation may outgrow its share by this factor to hold a box of every class.
_MAX_OVERSIZE = 1.5


def get_sequence_key(file_name: str) -> str:
    """The sequence an image belongs to: its name ``DATE_..._SEQUENCE_FRAME.EXT`` without frame and extension.

    A name of another form is a sequence of its own.
    """
    name = unicodedata.normalize("NFC", file_name)
    match = _NAME_PATTERN.fullmatch(name)
    return match[1] if match else name


def split_entry(image_ids: Sequence[int]) -> set[int]:
    """The validation ids that the 2022 entry drew: 3,000 of the ids in file order, ``random.seed(100)``.

    Raises:
        UserError: nothing would be left for training.
    """
    if len(image_ids) <= _ENTRY_NUM_VAL:
        raise UserError(
            f"DATASETS.SPLIT 'entry' takes {_ENTRY_NUM_VAL} images for validation, but there are only "
            f"{len(image_ids)} in all; set DATASETS.SPLIT to 'sequence'."
        )
    return set(random.Random(_ENTRY_SEED).sample(tuple(image_ids), _ENTRY_NUM_VAL))


def split_by_sequence(
    file_names: Mapping[int, str], class_counts: Mapping[int, Mapping[int, int]], val_fraction: float
) -> set[int]:
    """Choose whole sequences for validation, about ``val_fraction`` of the images.

    Greedy: the sequence that helps most is added until none helps. First, every class should have boxes on both sides
    (a class of a single sequence: in training); then, images and the boxes of each class should be divided alike. The
    result depends on the names and counts only, not on the order of the images.

    Args:
        file_names: image id -> file name.
        class_counts: image id -> {class: number of boxes}; images without boxes may be absent.
        val_fraction: 0..1, exclusive.

    Returns:
        The validation image ids; neither they nor the rest are empty.

    Raises:
        UserError: all images belong to one sequence.
    """
    sequences: dict[str, list[int]] = {}
    for image_id, name in file_names.items():
        sequences.setdefault(get_sequence_key(name), []).append(image_id)
    if len(sequences) < 2:
        raise UserError(
            f"The {len(file_names)} training images are all of one sequence, which cannot be divided into training and "
            "validation; train on 'parking_trainval', or add another sequence."
        )
    # A fixed pseudo-random order decides between equals: in alphabetical order those would all be of the same days.
    keys = sorted(sequences, key=lambda key: (hashlib.sha256(key.encode()).digest(), key))
    classes = sorted({c for counts in class_counts.values() for c in counts})
    num_images = np.array([len(sequences[key]) for key in keys])
    num_boxes = np.array(
        [[sum(class_counts.get(i, {}).get(c, 0) for i in sequences[key]) for c in classes] for key in keys]
    ).reshape(len(keys), len(classes))
    chosen = _choose_sequences(num_images, num_boxes, val_fraction)
    return {image_id for i in chosen for image_id in sequences[keys[i]]}


def _choose_sequences(num_images: np.ndarray, num_boxes: np.ndarray, val_fraction: float) -> list[int]:
    """Indices of the validation sequences, given images (S,) and boxes of each class (S, C) per sequence."""
    max_images = _MAX_OVERSIZE * val_fraction * num_images.sum()
    images, boxes = 0, np.zeros(num_boxes.shape[1], dtype=np.int64)
    chosen: list[int] = []
    best_cost = np.inf
    while len(chosen) < len(num_images) - 1:
        new_images, new_boxes = images + num_images, boxes + num_boxes
        cost = _compute_cost(new_images, new_boxes, num_images, num_boxes, val_fraction)
        if chosen:
            cost[new_images > max_images] = np.inf
            cost[chosen] = np.inf
        elif new_images.min() <= max_images:
            cost[new_images > max_images] = np.inf
        best = int(cost.argmin())
        if cost[best] >= best_cost:
            break
        best_cost = cost[best]
        chosen.append(best)
        images, boxes = new_images[best], new_boxes[best]
    return chosen


def _compute_cost(val_images, val_boxes, num_images, num_boxes, val_fraction):
    """Cost (K,) of K validation parts with ``val_images`` (K,) and ``val_boxes`` (K, C)."""
    total_boxes = np.maximum(num_boxes.sum(axis=0), 1)
    divisible = (num_boxes > 0).sum(axis=0) >= 2
    lacking = ((val_boxes == 0) & divisible).sum(axis=1) + (val_boxes == num_boxes.sum(axis=0)).sum(axis=1)
    image_error = (val_images / num_images.sum() - val_fraction) ** 2
    class_error = ((val_boxes / total_boxes - val_fraction) ** 2).mean(axis=1) if num_boxes.shape[1] else 0.0
    # Both errors are at most 1 each: a class that is lacking outweighs them.
    return 2.0 * lacking + image_error + class_error
