"""Handle Ctrl-C during a training."""

import logging
import os
import signal
import threading
from dataclasses import dataclass
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from parking.checkpoint import Checkpointer

from ..train_loop import AccumulatingTrainer
from .checkpoints import save_resumable

logger = logging.getLogger(__name__)


@dataclass
class StopRequest:
    """Tells whether Ctrl-C has asked this process to stop; evaluations take long, so they must check this regularly."""

    is_made: bool = False


class InterruptHook(HookBase):
    """On Ctrl-C, save a checkpoint after the optimizer's next step and end the training; on a second one, end at once.

    Only the writers may stand after this hook, because all other hooks must have finished the iteration before the
    checkpoint is saved. Data workers are forked after ``before_train`` and inherit the handler, so that Ctrl-C in a
    terminal does not kill them first.
    """

    #: Several processes agree once in this many iterations whether to stop.
    AGREE_PERIOD = 10

    def __init__(self, checkpointer: Checkpointer, loop: AccumulatingTrainer, request: StopRequest):
        self._checkpointer = checkpointer
        self._loop = loop
        self._request = request
        self._is_agreed = False
        self._previous_handler: Any = None
        self._pid = os.getpid()

    def before_train(self) -> None:
        # Python lets only the main thread set a signal handler.
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def after_train(self) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)

    def _on_interrupt(self, signum, frame) -> None:
        if self._request.is_made:
            raise KeyboardInterrupt
        self._request.is_made = True
        if comm.is_main_process() and os.getpid() == self._pid:
            # Write directly, because Ctrl-C may have interrupted the logging in the middle of a line.
            os.write(2, b"\nCtrl-C: saving a checkpoint after the next step; press it again to end at once, without\n")

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if comm.get_world_size() == 1:
            self._is_agreed = self._request.is_made
        elif (iteration + 1) % self.AGREE_PERIOD == 0:
            self._is_agreed = any(comm.all_gather(self._request.is_made))
        if self._is_agreed and not self._loop.is_amid_step and iteration < self.trainer.max_iter - 1:
            save_resumable(self._checkpointer, self._loop)
            logger.info(f"Stopped by Ctrl-C after iteration {iteration}; continue with the same command and --resume.")
            # Wait for the main process, which may still be writing the checkpoint: once a process has ended, the
            # launcher soon ends the others.
            comm.synchronize()
            raise KeyboardInterrupt
