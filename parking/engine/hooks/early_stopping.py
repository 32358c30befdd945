"""End a training whose scores no longer improve."""

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

    An evaluation in which ``metric`` cannot be computed (nan, because there are no boxes to find) does not count.
    ``EvalHook`` calls :meth:`after_evaluation`. One more iteration follows the last evaluation, because the final
    weights are saved after the last iteration.
    """

    def __init__(self, metric: str, patience: int, end_at: Callable[..., None]):
        """
        Args:
            end_at: moves the end of the training, see :meth:`.trainer.Trainer.end_at`.
        """
        self._metric = metric
        self._patience = patience
        self._end_at = end_at
        self._best = -math.inf
        self._num_worse = 0

    def after_evaluation(self, next_iteration: int) -> None:
        """Compare the score of the evaluation before ``next_iteration`` with the best; all processes must call this."""
        # Use the main process's value, because only the main process has scores.
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
