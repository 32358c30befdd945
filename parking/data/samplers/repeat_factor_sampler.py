"""Repeat images with rare classes (Gupta et al., "LVIS", arXiv:1908.03195, appendix B.2)."""

from collections.abc import Sequence

import numpy as np
from detectron2.data.samplers import RepeatFactorTrainingSampler as _RepeatFactorTrainingSampler

from parking.data.annotations import get_training_annotations
from parking.data.samplers.training_sampler import PositionedSampler


class RepeatFactorTrainingSampler(PositionedSampler):
    """Yields shuffled passes in which image i occurs ``repeat_factors[i]`` times on average.

    In each pass a factor is rounded up with a probability equal to its fractional part, and else down, so passes differ
    in length. The stream is a function of (seed, epoch, repeat_factors); see :class:`PositionedSampler`.

    Args:
        repeat_factors: float (number of images,), at least 1; see :func:`compute_repeat_factors`.
        seed, start: see :class:`PositionedSampler`.
    """

    def __init__(self, repeat_factors: Sequence[float] | np.ndarray, *, seed: int, start: int = 0):
        super().__init__(len(repeat_factors), epoch_size=len(repeat_factors), seed=seed, start=start)
        self._fractions, self._whole = np.modf(np.asarray(repeat_factors, dtype=np.float64))

    def _find_epoch(self, position: int) -> tuple[int, int]:
        # An epoch's first position is the sum of the lengths of all earlier epochs, which are cheap to draw again.
        epoch, epoch_start = 0, 0
        while position >= (epoch_end := epoch_start + int(self._draw_repeats(self._get_rng(epoch)).sum())):
            epoch, epoch_start = epoch + 1, epoch_end
        return epoch, epoch_start

    def _get_order(self, epoch: int) -> np.ndarray:
        rng = self._get_rng(epoch)
        repeats = self._draw_repeats(rng)
        return rng.permutation(np.repeat(np.arange(self._size), repeats))

    def _draw_repeats(self, rng) -> np.ndarray:
        return (self._whole + (rng.random(self._size) < self._fractions)).astype(np.int64)


def compute_repeat_factors(dataset_dicts: Sequence[dict], threshold: float, *, sqrt: bool = True) -> np.ndarray:
    """Return (N,) float: for each of N images, the largest repeat factor of its classes, or 1 if it has no boxes.

    The factor of a class that occurs in the part f of the images is ``max(1, sqrt(threshold / f))``, or
    ``max(1, threshold / f)`` if ``sqrt`` is False. Crowd boxes do not count, as in training.
    """
    dicts = [{"annotations": get_training_annotations(d)} for d in dataset_dicts]
    factors = _RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(dicts, threshold, sqrt=sqrt)
    return factors.numpy().astype(np.float64)
