"""Ending a training within a time limit, and the record of the time that it took."""

import logging
import math
import os
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from parking.utils.files import open_atomic, read_number

logger = logging.getLogger(__name__)

# Part of a time budget that is kept for what is not measured: reading the data, the last checkpoint.
_MARGIN = 0.02


class TimeBudgetHook(HookBase):
    """Leave iterations out when the time that they took so far says that not all fit into ``max_seconds``.

    The time counts from the first iteration, with evaluations and checkpoints. It is written to a file every minute, so
    that a resumed run goes on counting from there, with what was lost since the checkpoint; also without a budget, for
    the next run may have one. What was left out comes back when iterations turn out to be faster. To stand last but
    the writers.
    """

    #: Iterations between two looks at the clock.
    PERIOD = 20
    #: Looks whose iterations tell the speed; before so many there is no plan.
    NUM_LOOKS = 10
    #: Seconds between two writings of the time used.
    RECORD_PERIOD = 60.0

    def __init__(
        self,
        max_seconds: float | None,
        eval_period: int,
        *,
        record: str | os.PathLike | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
            max_seconds: None: no limit.
            eval_period: iterations between two evaluations, 0: only one at the end.
            record: the file with the time used; None: it is lost with the process.
            clock: seconds from any beginning.
        """
        self._max_seconds = max_seconds
        self._eval_period = eval_period
        self._record = Path(record) if record is not None else None
        self._clock = clock
        self._seconds_before = 0.0
        self._start: float | None = None

    def start(self) -> None:
        """Begin to count, once: an evaluation may come before ``before_train``."""
        if self._start is not None:
            return
        self._start = self._recorded_at = self._clock()
        if self._record is not None and comm.is_main_process():
            # Later than what the checkpoint says, where the last run was killed some time after it.
            self._seconds_before = max(self._seconds_before, read_number(self._record))

    def before_train(self) -> None:
        self.start()
        self._longest = self.trainer.cfg.SOLVER.MAX_ITER
        # (iterations done, seconds without evaluations) of the last looks.
        self._looks: deque[tuple[int, float]] = deque(maxlen=self.NUM_LOOKS + 1)

    @property
    def seconds(self) -> float:
        """Time used so far, earlier runs included."""
        self.start()
        return self._seconds_before + self._clock() - self._start

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._clock() - self._recorded_at > self.RECORD_PERIOD:
            self.write_record()
        # Early stopping leaves one more iteration, which must not become many again.
        if self._max_seconds is None or done % self.PERIOD or done + 1 >= self.trainer.max_iter:
            return
        self._looks.append((done, self.seconds - self.trainer.total_eval_seconds))
        if len(self._looks) <= self.NUM_LOOKS:
            return
        (first, start), (_, now) = self._looks[0], self._looks[-1]
        # One process's clock for all, which must agree on the end.
        used, per_iter = comm.all_gather((self.seconds, (now - start) / (done - first)))[0]
        fitting = min(self._count_fitting(done, used, per_iter), self._longest)
        # Back up only for what is worth a line in the log.
        if fitting < self.trainer.max_iter or fitting > 1.02 * self.trainer.max_iter:
            logger.warning(
                f"{used / 3600:.2f} of {self._max_seconds / 3600:.2f} hours are used after {done} iterations, at "
                f"{per_iter:.3f} s each and {self.trainer.eval_seconds:.0f} s an evaluation: the training ends after "
                f"{fitting} iterations instead of {self.trainer.max_iter}, its learning rate decayed"
            )
            self.trainer.end_at(fitting, next_iteration=done)

    def after_train(self) -> None:
        self.write_record()

    def write_record(self) -> None:
        """Write down the time used; to be called before what takes long, too."""
        self.start()
        self._recorded_at = self._clock()
        if self._record is not None and comm.is_main_process():
            try:
                with open_atomic(self._record, makes_folder=False) as file:
                    file.write(f"{self.seconds:.0f}\n".encode())
            except OSError as e:
                # No reason to end a training; on a full disk its next checkpoint says what to do.
                logger.warning(f"The time used could not be written to {self._record}: {e.strerror or e}")

    def _count_fitting(self, done: int, used: float, per_iter: float) -> int:
        per_iter += self.trainer.eval_seconds / self._eval_period if self._eval_period > 0 else 0
        # The evaluation at the end comes on top of those between the iterations.
        left = (1 - _MARGIN) * self._max_seconds - used - self.trainer.eval_seconds
        return done + max(math.floor(left / per_iter), 1) if per_iter > 0 else self._longest

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "eval_seconds": self.trainer.eval_seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seconds_before = state["seconds"]
        self.trainer.eval_seconds = state["eval_seconds"]
