"""Hooks that end a training before its last iteration."""

import logging
import math
import time
from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)

# Part of a time budget that is kept for what is not measured: reading the data, the last checkpoint.
_MARGIN = 0.02


class EarlyStoppingHook(HookBase):
    """End the training after ``patience`` evaluations in a row without a better ``metric``.

    To stand after the ``EvalHook``. One more iteration follows: the end of a training saves what must be saved.
    """

    def __init__(self, metric: str, patience: int):
        self._metric = metric
        self._patience = patience
        self._best = -math.inf
        self._num_worse = 0
        self._seen_iteration = -1

    def before_train(self) -> None:
        self._check(self.trainer.start_iter)  # an evaluation that was made up for

    def after_step(self) -> None:
        self._check(self.trainer.iter + 1)

    def _check(self, next_iteration: int) -> None:
        if self.trainer.evaluated_before <= self._seen_iteration:
            return
        self._seen_iteration = self.trainer.evaluated_before
        # The main process alone has the scores.
        value = comm.all_gather(self.trainer.storage.latest().get(self._metric, (math.nan, -1))[0])[0]
        if value > self._best:
            self._best, self._num_worse = float(value), 0
            return
        self._num_worse += 1
        if self._num_worse >= self._patience and next_iteration + 1 < self.trainer.max_iter:
            logger.info(
                f"{self._num_worse} evaluations in a row without a better {self._metric} than {self._best:.3f}: ending "
                f"after iteration {next_iteration} instead of {self.trainer.max_iter - 1}"
            )
            self.trainer.end_at(next_iteration + 1)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "num_worse": self._num_worse, "seen_iteration": self._seen_iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._num_worse = state["best"], state["num_worse"]
        self._seen_iteration = state["seen_iteration"]


class TimeBudgetHook(HookBase):
    """Leave iterations out when the time that they took so far says that not all fit into ``max_seconds``.

    The time counts from the first iteration, with evaluations and checkpoints, and goes on in a resumed run where the
    checkpoint was. To stand last but the writers.
    """

    #: Iterations between two looks at the clock; the first are slower than the others.
    PERIOD = 20

    def __init__(self, max_seconds: float, clock: Callable[[], float] = time.monotonic):
        """
        Args:
            clock: seconds from any beginning.
        """
        self._max_seconds = max_seconds
        self._clock = clock
        self._seconds_before = 0.0

    def before_train(self) -> None:
        self._start = self._clock()
        self._measured_from: tuple[int, float] | None = None

    @property
    def seconds(self) -> float:
        """Time used so far, earlier runs included."""
        return self._seconds_before + self._clock() - self._start

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self.PERIOD or done >= self.trainer.max_iter:
            return
        if self._measured_from is None:
            self._measured_from = (done, self.seconds)
            return
        first, seconds = self._measured_from
        # One process's clock for all, which must agree on the end.
        used, per_iter = comm.all_gather((self.seconds, (self.seconds - seconds) / (done - first)))[0]
        # The evaluation at the end comes on top of those between the iterations.
        left = (1 - _MARGIN) * self._max_seconds - used - self.trainer.eval_seconds
        fitting = done + max(math.floor(left / per_iter), 1) if per_iter > 0 else math.inf
        if fitting < self.trainer.max_iter:
            logger.warning(
                f"{used / 3600:.2f} of {self._max_seconds / 3600:.2f} hours are used after {done} iterations, at "
                f"{per_iter:.3f} s each with evaluations: the training ends after {fitting} iterations instead of "
                f"{self.trainer.max_iter}, its learning rate decayed"
            )
            self.trainer.end_at(fitting)

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._seconds_before = state["seconds"]
