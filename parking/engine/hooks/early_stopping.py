"""Ending a training that no longer gets better."""

import logging
import math
from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..scores import find_last_score

logger = logging.getLogger(__name__)


class EarlyStoppingHook(HookBase):
    """End the training after ``patience`` evaluations in a row without a better ``metric``.

    An evaluation in which ``metric`` cannot be computed (nan: no boxes to find) is neither better nor worse, and does
    not count. The ``EvalHook`` calls this hook. One more iteration follows the last evaluation, because only the end of
    a training saves its final weights.
    """

    def __init__(self, metric: str, patience: int, end_at: Callable[..., None]):
        """
        Args:
            end_at: called with the new end and ``next_iteration``.
        """
        self._metric = metric
        self._patience = patience
        self._end_at = end_at
        self._best = -math.inf
        self._num_worse = 0

    def after_evaluation(self, next_iteration: int) -> None:
        """Look at the scores of an evaluation before ``next_iteration``; every process must call it."""
        # The main process alone has the scores.
        value = comm.all_gather(find_last_score(self.trainer.storage, self._metric))[0]
        if not math.isfinite(value):
            return
        if value > self._best:
            self._best, self._num_worse = value, 0
            return
        self._num_worse += 1
        if self._num_worse >= self._patience and next_iteration + 1 < self.trainer.max_iter:
            logger.info(
                f"{self._num_worse} evaluations in a row without a better {self._metric} than {self._best:.3f}: ending "
                f"after iteration {next_iteration} instead of {self.trainer.max_iter - 1}"
            )
            self._end_at(next_iteration + 1, next_iteration=next_iteration)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "num_worse": self._num_worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best, self._num_worse = state["best"], state["num_worse"]
