"""Draw images with rare and badly detected classes more often."""

from collections.abc import Sequence

import numpy as np

from parking.data.annotations import get_training_annotations
from parking.data.samplers.training_sampler import PositionedSampler

# The least weight of an image with boxes, as a fraction of the mean weight of all images with boxes.
_MIN_RELATIVE_WEIGHT = 0.01


class ClassBalancedTrainingSampler(PositionedSampler):
    """Yields epochs of ``epoch_size`` images, drawn with replacement in proportion to their weights.

    The stream is a function of (seed, epoch, weights); see :class:`PositionedSampler`. If a sampler is started with new
    weights in the middle of an epoch, it yields the rest of the epoch that the new weights alone would have drawn.

    Args:
        weights: float (number of images,), positive; see :func:`class_balanced_weights`.
        epoch_size, seed, start: see :class:`PositionedSampler`.
    """

    def __init__(self, weights: Sequence[float] | np.ndarray, *, epoch_size: int, seed: int, start: int = 0):
        super().__init__(len(weights), epoch_size=epoch_size, seed=seed, start=start)
        self._probabilities = np.asarray(weights, dtype=np.float64) / np.sum(weights)

    def _get_order(self, epoch: int) -> np.ndarray:
        return self._get_rng(epoch).choice(self._size, self._epoch_size, p=self._probabilities)


def class_balanced_weights(
    dataset_dicts: Sequence[dict], num_classes: int, class_ap: Sequence[float | None] | None = None
) -> np.ndarray:
    """Compute a weight above 0 for each image; images with rare or badly detected classes weigh more.

    As in an entry to the parking challenge of 2022, a class weighs 1 / its number of boxes, normalised to mean 1 over
    the classes that have boxes, times ``(1 - AP)^2 / num_classes``. An image weighs the sum of its boxes' class
    weights, with two exceptions:

    - An image without boxes weighs the mean of the images with boxes, so it is drawn as often as without weights.
    - An image with boxes weighs at least a hundredth of that mean, even if all its classes are at AP 1.

    If every class is at AP 1, or no image has boxes, all weights are 1.

    Args:
        dataset_dicts: detectron2's standard dicts; crowd boxes do not count, as in training.
        num_classes: above every ``category_id``.
        class_ap: AP of each class, 0..1, where None or NaN (the class has no score) counts as 0; None before the first
            evaluation, when all count as 0.

    Returns:
        float (number of images,), positive. Only the ratios matter to the sampler.
    """
    num_images = len(dataset_dicts)
    annotations = [get_training_annotations(d) for d in dataset_dicts]
    boxes_per_image = np.array([len(a) for a in annotations], dtype=np.int64)
    box_classes = np.array([a["category_id"] for image in annotations for a in image], dtype=np.int64)
    ap = np.zeros(num_classes) if class_ap is None else np.nan_to_num(np.array(class_ap, dtype=np.float64))
    class_weights = _compute_class_weights(box_classes, num_classes) * (1 - ap) ** 2
    box_images = np.repeat(np.arange(num_images), boxes_per_image)
    weights = np.bincount(box_images, class_weights[box_classes] / num_classes, minlength=num_images)
    has_boxes = boxes_per_image > 0
    mean = weights[has_boxes].mean() if has_boxes.any() else 0.0
    if mean == 0:
        return np.ones(num_images)
    return np.where(has_boxes, np.maximum(weights, _MIN_RELATIVE_WEIGHT * mean), mean)


def _compute_class_weights(box_classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the weight of each class: 1 / its number of boxes, scaled to mean 1; 0 for a class without boxes."""
    counts = np.bincount(box_classes, minlength=num_classes)
    present = counts > 0
    weights = np.where(present, 1 / np.maximum(counts, 1), 0.0)
    return weights * present.sum() / weights.sum() if present.any() else weights
