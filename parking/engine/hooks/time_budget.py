"""End a training within a time limit."""

import logging
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..clock import TrainingClock
from .evaluation import Evaluations

logger = logging.getLogger(__name__)

# Share of the time limit that is kept for what is not measured: reading the data and saving the last checkpoint.
_MARGIN = 0.02


class TimeBudgetHook(HookBase):
    """Shorten a training if its speed shows that not all iterations fit into ``max_seconds``.

    The time counts from the first iteration, includes evaluations and checkpoints, and is written to a file every
    minute. If iterations turn out to be faster than expected, the training is lengthened again, up to ``max_iter``.
    Hooks that take time must stand before this one.
    """

    #: The time is measured once in this many iterations.
    PERIOD = 20
    #: The speed is computed over this many measurements; until they are made, the end of the training is not moved.
    NUM_LOOKS = 10

    def __init__(
        self,
        max_seconds: float | None,
        *,
        max_iter: int,
        eval_period: int,
        clock: TrainingClock,
        evaluations: Evaluations,
        end_at: Callable[..., None],
    ):
        """
        Args:
            max_seconds: time limit; None: no limit.
            max_iter: number of iterations of a training that has enough time.
            eval_period: iterations between two evaluations; 0: only one at the end.
            end_at: moves the end of the training, see :meth:`.trainer.Trainer.end_at`.
        """
        self._max_seconds = max_seconds
        self._longest = max_iter
        self._eval_period = eval_period
        self._clock = clock
        self._evaluations = evaluations
        self._end_at = end_at

    def before_train(self) -> None:
        self._clock.start()
        # The last measurements: (number of finished iterations, seconds used so far without evaluations).
        self._looks: deque[tuple[int, float]] = deque(maxlen=self.NUM_LOOKS + 1)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        self._clock.write_record(if_older_than=self._clock.RECORD_PERIOD)
        # If only one iteration is left, early stopping may have shortened the training; do not lengthen it again.
        if self._max_seconds is None or done % self.PERIOD or done + 1 >= self.trainer.max_iter:
            return
        self._looks.append((done, self._clock.seconds - self._evaluations.total_seconds))
        if len(self._looks) <= self.NUM_LOOKS:
            return
        (first, start), (_, now) = self._looks[0], self._looks[-1]
        # Use the main process's clock in all processes, because they must agree on the end.
        used, per_iter = comm.all_gather((self._clock.seconds, (now - start) / (done - first)))[0]
        fitting = min(self._count_fitting(done, used, per_iter), self._longest)
        # Lengthen the training again only by more than 2 %, so that the log does not fill with small changes.
        if fitting < self.trainer.max_iter or fitting > 1.02 * self.trainer.max_iter:
            logger.warning(
                f"{used / 3600:.2f} of {self._max_seconds / 3600:.2f} hours are used after {done} iterations, at "
                f"{per_iter:.3f} s each and {self._evaluations.seconds:.0f} s an evaluation: the training ends after "
                f"{fitting} iterations instead of {self.trainer.max_iter}, its learning rate decayed"
            )
            self._end_at(fitting, next_iteration=done)

    def after_train(self) -> None:
        self._clock.write_record()

    def _count_fitting(self, done: int, used: float, per_iter: float) -> int:
        per_eval = self._evaluations.seconds
        per_iter += per_eval / self._eval_period if self._eval_period > 0 else 0
        # Subtract the evaluation at the end, because per_iter covers only the evaluations between iterations.
        left = (1 - _MARGIN) * self._max_seconds - used - per_eval
        return done + max(math.floor(left / per_iter), 1) if per_iter > 0 else self._longest

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._clock.seconds, "eval_seconds": self._evaluations.seconds}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._clock.restore(state["seconds"])
        self._evaluations.seconds = state["eval_seconds"]
