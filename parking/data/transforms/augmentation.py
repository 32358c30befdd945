"""Give random augmentations a generator of random numbers for each sample."""

import numpy as np
from detectron2.data.transforms import AugInput


class RandomAugInput(AugInput):
    """An ``AugInput`` that carries the sample's own generator.

    A random augmentation declares ``get_transform(self, image, rng)``; detectron2 passes attributes of the input by the
    names of the arguments. Our augmentations do not use numpy's global state, as detectron2's do, because a sample
    would then depend on what its worker did before.
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
    """Return the generator for the sample at a position of the training stream."""
    # The third number makes these generators differ from the sampler's, whose seeds are two numbers.
    return np.random.default_rng([seed, position, 1])
