"""Yield endless streams of training images."""

from collections.abc import Iterator

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler


class PositionedSampler(Sampler):
    """Yields this process's part of an endless stream of image indices, which can start at any position.

    The stream is a sequence of epochs. An epoch depends on the seed, its number and the arguments of the subclass only,
    so the stream can be continued from any position, even by a sampler with other arguments (such as new image
    weights). Position ``p`` goes to rank ``p % world_size``, so a global batch of B images holds the positions
    ``i * B ... i * B + B - 1`` for any number of processes. The stream yields position and index as one integer (see
    :func:`encode_position`): a sample's randomness depends on its position, and samplers can yield integers only.

    As with detectron2's samplers, ``ToIterableDataset`` divides the stream among data loader workers. A subclass
    defines :meth:`_get_order`, and :meth:`_find_epoch` if its epochs differ in length.

    Args:
        size: number of images, above 0.
        epoch_size: number of images in an epoch, above 0.
        seed: not negative, the same in all processes.
        start: first position, 0 or more, equal to the number of images that all processes together have used so far.
    """

    def __init__(self, size: int, *, epoch_size: int, seed: int, start: int):
        self._size = size
        self._epoch_size = epoch_size
        self._seed = seed
        self._start = start
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        position = self._start + self._rank
        epoch, epoch_start = self._find_epoch(position)
        while True:
            order = self._get_order(epoch)
            while position < epoch_start + len(order):
                yield encode_position(position, int(order[position - epoch_start]), self._size)
                position += self._world_size
            epoch_start += len(order)
            epoch += 1

    def _find_epoch(self, position: int) -> tuple[int, int]:
        """Return the number of the epoch that holds a position, and that epoch's first position."""
        epoch = position // self._epoch_size
        return epoch, epoch * self._epoch_size

    def _get_order(self, epoch: int) -> np.ndarray:
        """Return the image indices of an epoch, int (length of the epoch,)."""
        raise NotImplementedError

    def _get_rng(self, epoch: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, epoch])


class PositionedTrainingSampler(PositionedSampler):
    """Yields shuffled passes over the images without end; each pass holds every index of ``range(size)`` once."""

    def __init__(self, size: int, *, seed: int, start: int = 0):
        super().__init__(size, epoch_size=size, seed=seed, start=start)

    def _get_order(self, epoch: int) -> np.ndarray:
        return self._get_rng(epoch).permutation(self._size)


def encode_position(position: int, index: int, size: int) -> int:
    """Return one integer for a position in the stream (0..) and the index (0..size - 1) of the image there."""
    return position * size + index


def decode_position(code: int, size: int) -> tuple[int, int]:
    """Return position and index from a code of :func:`encode_position`."""
    return divmod(code, size)
