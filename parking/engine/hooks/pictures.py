"""Put pictures into TensorBoard."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventStorage

from parking.visualization.contact_sheet import contact_sheet, fit_side
from parking.visualization.drawing import BoxDrawer

_SIDE = 480
_COLUMNS = 4


class PictureHook(HookBase):
    """Draw the augmented training batch in the first iteration of a run and then every ``PERIOD`` iterations.

    This hook must stand before the writers. It draws no random numbers and reads no data, so that a training is the
    same with and without it. Only the main process draws.
    """

    #: Iterations between two pictures, which take some megabytes each; largest number of samples in a picture.
    PERIOD, MAX_SAMPLES = 5000, 16

    def __init__(self, last_batch: Callable[[], Sequence[Mapping[str, Any]]], class_names: Sequence[str]):
        """
        Args:
            last_batch: returns this process's batch of the present iteration: dicts with "file_name", "image"
                (3, H, W) uint8 RGB, and "instances" with gt_boxes in pixels of the image and gt_classes.
        """
        self._last_batch = last_batch
        self._class_names = class_names

    def after_step(self) -> None:
        iteration = self.trainer.iter
        is_due = iteration == self.trainer.start_iter or iteration % self.PERIOD == 0
        if is_due and comm.is_main_process():
            samples = self._last_batch()[: self.MAX_SAMPLES]
            put_pictures(self.trainer.storage, {"train/batch": draw_samples(samples, self._class_names)})


def draw_samples(samples: Sequence[Mapping[str, Any]], class_names: Sequence[str]) -> np.ndarray:
    """Draw training samples (see :class:`PictureHook`) and their boxes in one picture, (H, W, 3) uint8 RGB."""
    drawer = BoxDrawer(class_names)
    tiles = []
    for sample in samples:
        image, instances = sample["image"].permute(1, 2, 0).cpu().numpy(), sample["instances"].to("cpu")
        boxes, classes = instances.gt_boxes.tensor.numpy(), instances.gt_classes.numpy()
        tiles.append(drawer.draw(fit_side(image, _SIDE), boxes, classes, size=image.shape[:2]))
    titles = [os.path.basename(sample["file_name"]) for sample in samples]
    return contact_sheet(tiles, titles, columns=_COLUMNS, tile_width=_SIDE)


def put_pictures(storage: EventStorage, pictures: Mapping[str, np.ndarray]) -> None:
    """Put (H, W, 3) uint8 RGB pictures into ``storage``, from which the main process's writer takes them."""
    for name, picture in pictures.items():
        storage.put_image(name, np.ascontiguousarray(picture.transpose(2, 0, 1)))
