"""The endless stream of training images."""

import itertools
from collections.abc import Iterator

import numpy as np
from detectron2.utils import comm
from torch.utils.data import Sampler


class PositionedTrainingSampler(Sampler):
    """An infinite stream of image indices that every process takes its share of, and that can start anywhere.

    The stream is ``shuffle(range(size)) + shuffle(range(size)) + ...``, the order of each pass being a function of the
    seed and the number of the pass alone. Position ``p`` goes to rank ``p % world_size``, so that a global batch of B
    images holds the positions ``i * B ... i * B + B - 1``, for any number of processes. What is yielded is one integer
    for position and index together, see :func:`encode_position`: the randomness of a sample must depend on its
    position, and a sampler can hand on no more than an integer.

    Like detectron2's samplers it knows nothing of data loader workers; ``ToIterableDataset`` divides it among them.

    Args:
        size: number of images.
        seed: the same in all processes.
        start: position to begin with: the number of images that all processes together have used so far.
    """

    def __init__(self, size: int, *, seed: int, start: int = 0):
        if size <= 0 or start < 0 or seed < 0:
            raise ValueError(f"size must be positive, start and seed not negative; got {size}, {start}, {seed}.")
        self._size = size
        self._seed = seed
        self._start = start
        self._rank = comm.get_rank()
        self._world_size = comm.get_world_size()

    def __iter__(self) -> Iterator[int]:
        order, order_epoch = None, None
        for position in itertools.count(self._start + self._rank, self._world_size):
            epoch, offset = divmod(position, self._size)
            if epoch != order_epoch:
                order, order_epoch = self._get_order(epoch), epoch
            yield encode_position(position, int(order[offset]), self._size)

    def _get_order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng([self._seed, epoch]).permutation(self._size)


def encode_position(position: int, index: int, size: int) -> int:
    """One integer for a position in the stream (0..) and the index (0..size - 1) of the image there."""
    return position * size + index


def decode_position(code: int, size: int) -> tuple[int, int]:
    """Position and index from :func:`encode_position`."""
    return divmod(code, size)
