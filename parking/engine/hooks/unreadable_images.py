"""Report the images that a training left out because they could not be read."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from parking.utils.files import open_atomic
from parking.utils.text import printable

logger = logging.getLogger(__name__)


class UnreadableImagesHook(HookBase):
    """Log each image that could not be read and was left out, and list all of them in a file at the end.

    With DATASETS.POLICY repair, samples name such images under the key ``unreadable`` (see ``TrainDatasetMapper``).
    """

    def __init__(self, list_file: str, last_batch: Callable[[], Sequence[Mapping[str, Any]]]):
        """
        Args:
            last_batch: returns this process's samples of the present iteration.
        """
        self._list_file = list_file
        self._last_batch = last_batch
        self._names: set[str] = set()

    def after_step(self) -> None:
        for name in [name for sample in self._last_batch() for name in sample.get("unreadable", ())]:
            if name not in self._names:
                self._names.add(name)
                logger.warning(f"The image '{printable(name)}' cannot be read; other images take its place")

    def after_train(self) -> None:
        if self.trainer.iter < self.trainer.max_iter:
            return  # the training failed, perhaps only in this process, so do not wait for others
        names = sorted(set().union(*comm.all_gather(self._names)))
        if names and comm.is_main_process():
            with open_atomic(self._list_file) as file:
                file.writelines(os.fsencode(name) + b"\n" for name in names)  # names need not be UTF-8
            logger.warning(f"Images that could not be read and were left out: {len(names)}, see {self._list_file}")

    def state_dict(self) -> dict[str, Any]:
        return {"names": sorted(set().union(*comm.all_gather(self._names)))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._names = set(state["names"])
