"""How random augmentations get their random numbers."""

import numpy as np
from detectron2.data.transforms import AugInput


class RandomAugInput(AugInput):
    """An ``AugInput`` that carries the sample's own generator.

    An augmentation that draws declares ``get_transform(self, image, rng)``; detectron2 passes attributes of the input
    by the names of the arguments. Nothing draws from numpy's global state (as detectron2's own augmentations do): that
    belongs to the worker, and the sample would depend on what its worker did before.
    """

    def __init__(self, image: np.ndarray, *, boxes: np.ndarray | None = None, rng: np.random.Generator):
        """
        Args:
            image: uint8 (H, W, 3), RGB.
            boxes: float (N, 4), XYXY_ABS.
            rng: source of every random decision about this sample.
        """
        super().__init__(image, boxes=boxes)
        self.rng = rng


def get_sample_rng(seed: int, position: int) -> np.random.Generator:
    """The generator for the sample at a position of the training stream."""
    # The third number keeps these apart from the sampler's generators, made of two numbers.
    return np.random.default_rng([seed, position, 1])
