"""Divides the training images into a training and a validation part; pure functions that read no files."""

import random
from collections.abc import Sequence

import numpy as np

from parking.data.datasets.columns import Columns
from parking.utils.errors import UserError

from .conditions import get_sequence_key, parse_conditions

#: Values of DATASETS.SPLIT.
SPLITS = ("sequence", "entry", "all")

_ENTRY_SEED = 100
_ENTRY_NUM_VAL = 3000
# Validation may hold up to this many times the wanted number of images, so that it can have a box of every class.
_MAX_OVERSIZE = 1.5
# Round a split's distance from the wanted shares (_compute_error) to this many decimals, because machines compute the
# later decimals differently.
_DECIMALS = 10


def split_images(split: str, columns: Columns, num_classes: int, *, val_fraction: float, seed: int) -> np.ndarray:
    """Choose the validation images by ``split``, one of ``SPLITS``; only "sequence" uses ``val_fraction`` and ``seed``.

    Returns:
        (N,) bool: which images are for validation.

    Raises:
        UserError: there are too few images or sequences.
    """
    if split == "sequence":
        return split_by_sequence(columns.names, columns.class_counts(num_classes), val_fraction, seed)
    # Draw from all images that the json lists, even faulty ones, so that leaving these out does not change the draw.
    val_ids = split_entry(columns.listed_ids or columns.image_ids) if split == "entry" else set()
    return np.array([image_id in val_ids for image_id in columns.image_ids], dtype=bool)


def split_entry(image_ids: Sequence[int]) -> set[int]:
    """The validation ids of this project's entry to the 2022 challenge: 3,000 of ``image_ids``, drawn with seed 100.

    Raises:
        UserError: nothing would be left for training.
    """
    if len(image_ids) <= _ENTRY_NUM_VAL:
        raise UserError(
            f"DATASETS.SPLIT 'entry' takes {_ENTRY_NUM_VAL} images for validation, but there are only "
            f"{len(image_ids)} in all; set DATASETS.SPLIT to 'sequence'."
        )
    return set(random.Random(_ENTRY_SEED).sample(tuple(image_ids), _ENTRY_NUM_VAL))


def split_by_sequence(names: Sequence[str], class_counts: np.ndarray, val_fraction: float, seed: int = 0) -> np.ndarray:
    """Choose whole sequences for validation, about ``val_fraction`` of the images.

    The choice is greedy: among the sequences that bring the split closer to its goals, the best of a random half is
    added, until no sequence does.
    The first goal is that each class has boxes on both sides (in training, if only one sequence has it). The second is
    that ``val_fraction`` of the images, of each class's boxes and of each condition's images is in validation. The
    result depends on names, counts and seed, not on the order of the images.

    Args:
        names: N file names.
        class_counts: (N, C) boxes of each image and class.
        val_fraction: 0..1, exclusive.
        seed: another seed chooses other sequences.

    Returns:
        (N,) bool: which images are for validation; neither side is empty.

    Raises:
        UserError: all images belong to one sequence.
    """
    keys, firsts, sequences = np.unique(
        np.array([get_sequence_key(name) for name in names], dtype=object), return_index=True, return_inverse=True
    )
    if len(keys) < 2:
        raise UserError(
            f"The {len(names)} training images are all of one sequence, which cannot be divided into training and "
            "validation; train on 'parking_trainval', or add another sequence."
        )
    num_images = np.bincount(sequences)
    occurring = class_counts[:, class_counts.any(axis=0)]
    num_boxes = np.zeros((len(keys), occurring.shape[1]), dtype=np.int64)
    np.add.at(num_boxes, sequences, occurring)
    # A sequence shows one place at one time, so the conditions of its first image are those of all its images.
    conditions = [set(parse_conditions(names[first]).items()) for first in firsts]
    values = sorted(set().union(*conditions))
    num_conditions = np.array([[value in own for value in values] for own in conditions]) * num_images[:, None]
    chosen = _choose_sequences(num_images, num_boxes, num_conditions, val_fraction, random.Random(seed))
    return np.isin(sequences, chosen)


def _choose_sequences(
    num_images: np.ndarray,
    num_boxes: np.ndarray,
    num_conditions: np.ndarray,
    val_fraction: float,
    generator: random.Random,
) -> list[int]:
    """Choose the sequences for validation; return their indices.

    Args:
        num_images: (S,) images of each sequence.
        num_boxes: (S, C) boxes of each sequence and class; no class is without boxes.
        num_conditions: (S, K) images of each sequence under each condition.
    """
    max_images = _MAX_OVERSIZE * val_fraction * num_images.sum()
    shares, weights = _get_shares(num_images, num_boxes, num_conditions)
    fits = num_images <= max_images
    available = fits if fits.any() else np.ones(len(num_images), dtype=bool)
    images, boxes, share = 0, np.zeros(num_boxes.shape[1], dtype=np.int64), np.zeros(shares.shape[1])
    best = (np.inf, np.inf)
    chosen: list[int] = []
    while len(chosen) < len(num_images) - 1 and available.any():
        lacking = _count_lacking(boxes, num_boxes)
        error = np.round(_compute_error(share, shares, weights, val_fraction), _DECIMALS)
        least = lacking[available].min()
        improves = available & (lacking == least) & ((lacking < best[0]) | (error < best[1]))
        candidates = np.flatnonzero(improves)
        if least > best[0] or not len(candidates):
            break
        half = [i for i in candidates.tolist() if generator.random() < 0.5] or candidates.tolist()
        new = min(half, key=lambda i: (error[i], i))
        best = (lacking[new], error[new])
        chosen.append(new)
        images, boxes, share = images + num_images[new], boxes + num_boxes[new], share + shares[new]
        available[new] = False
        available &= images + num_images <= max_images
    return chosen


def _get_shares(num_images, num_boxes, num_conditions) -> tuple[np.ndarray, np.ndarray]:
    """Compute each sequence's share of all images, of each class's boxes and of each condition's images.

    Returns:
        shares: (S, 1 + C + K).
        weights: (1 + C + K,); images, all classes together and all conditions together weigh the same.
    """
    groups = [num_images[:, None], num_boxes, num_conditions]
    shares = [group / np.maximum(group.sum(axis=0), 1) for group in groups]
    weights = [np.full(group.shape[1], 1 / max(group.shape[1], 1)) for group in groups]
    return np.concatenate(shares, axis=1), np.concatenate(weights)


def _compute_error(share, shares, weights, val_fraction) -> np.ndarray:
    """For each of S sequences, compute validation's distance (S,) from the wanted shares if the sequence joined it.

    ``share`` is what validation has now. The distance is the weighted sum of squared differences from ``val_fraction``.
    """
    # Multiply out the square of (share + shares - val_fraction): a matrix product is faster than several passes.
    distance = share - val_fraction
    return (weights * distance**2).sum() + shares @ (2 * weights * distance) + shares**2 @ weights


def _count_lacking(boxes: np.ndarray, num_boxes: np.ndarray) -> np.ndarray:
    """For each sequence, count the classes that training or validation would lack if the sequence joined validation."""
    new_boxes = boxes + num_boxes
    divisible = (num_boxes > 0).sum(axis=0) >= 2
    return ((new_boxes == 0) & divisible).sum(axis=1) + (new_boxes == num_boxes.sum(axis=0)).sum(axis=1)
