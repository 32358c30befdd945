"""Random mirroring."""

from detectron2.data.transforms import Augmentation
from fvcore.transforms.transform import HFlipTransform, NoOpTransform, Transform, VFlipTransform


class RandomFlip(Augmentation):
    """Mirror left-right, or up-down, with a probability; detectron2's draws from numpy's global state."""

    def __init__(self, prob: float, *, vertical: bool = False):
        super().__init__()
        self._init(locals())

    def get_transform(self, image, rng) -> Transform:
        h, w = image.shape[:2]
        # Drawn even if it cannot matter, so that a probability changes nothing about what is drawn after it.
        if rng.random() >= self.prob:
            return NoOpTransform()
        return VFlipTransform(h) if self.vertical else HFlipTransform(w)
