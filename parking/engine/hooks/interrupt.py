"""What Ctrl-C does while training."""

import logging
import os
import signal
import threading
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from parking.checkpoint import Checkpointer

from .checkpoints import save_resumable

logger = logging.getLogger(__name__)


class InterruptHook(HookBase):
    """Turn Ctrl-C into a checkpoint after the present iteration; a second Ctrl-C ends at once.

    To stand last but the writers, so that all other state is that of the finished iteration. Data workers are forked
    after ``before_train`` and inherit the handler, so that Ctrl-C in a terminal does not kill them first.
    """

    #: Several processes agree on stopping so often, which costs an exchange of one number.
    AGREE_PERIOD = 10

    def __init__(self, checkpointer: Checkpointer):
        self._checkpointer = checkpointer
        self._previous_handler: Any = None
        self._pid = os.getpid()
        self.requested = False

    def before_train(self) -> None:
        # Python allows handlers in the main thread only, where Ctrl-C arrives.
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._on_interrupt)

    def after_train(self) -> None:
        if self._previous_handler is not None:
            signal.signal(signal.SIGINT, self._previous_handler)

    def _on_interrupt(self, signum, frame) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if comm.is_main_process() and os.getpid() == self._pid:
            # Not through logging, which may be in the middle of a line.
            os.write(2, b"\nCtrl-C: saving a checkpoint after this iteration; once more ends at once, without\n")

    def after_step(self) -> None:
        iteration = self.trainer.iter
        if comm.get_world_size() > 1:
            if (iteration + 1) % self.AGREE_PERIOD:
                return
            self.requested = any(comm.all_gather(self.requested))
        if self.requested and iteration < self.trainer.max_iter - 1:
            save_resumable(self._checkpointer, self.trainer)
            logger.info(f"Stopped by Ctrl-C after iteration {iteration}; continue with the same command and --resume.")
            # A process that ended first would have the launcher end the one that still writes.
            comm.synchronize()
            raise KeyboardInterrupt
