"""When a training is evaluated."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm


@dataclass
class Evaluations:
    """When a training was evaluated and how long that took; trainer and hooks share it.

    Attributes:
        before: next iteration at the time of the last evaluation; -1 before the first.
        seconds: that the last one took on the main process; 0 before the first.
        total_seconds: that all of this run took together.
    """

    before: int = -1
    seconds: float = 0.0
    total_seconds: float = 0.0

    def add(self, before: int, seconds: float) -> None:
        """Record an evaluation before the iteration ``before`` that took ``seconds``."""
        self.before, self.seconds = before, seconds
        self.total_seconds += seconds


class EvalHook(HookBase):
    """Evaluate every ``period`` iterations and after the last, and store the scores for those who follow them.

    Unlike detectron2's it does not evaluate a training that failed in its last iteration, whose weights may be what
    failed; and where a checkpoint was saved but its evaluation did not come to an end, it makes up for that first.
    """

    def __init__(
        self,
        period: int,
        evaluate: Callable[[int], Mapping[str, Any]],
        evaluations: Evaluations,
        followers: Sequence[Callable[[int], None]],
    ):
        """
        Args:
            period: in iterations; 0: only after the last.
            evaluate: called with the next iteration; returns nested scores.
            followers: called afterwards with the next iteration, in every process, unless the evaluation was left out.
        """
        self._period = period
        self._evaluate = evaluate
        self._evaluations = evaluations
        self._followers = followers

    def _is_due(self, next_iteration: int) -> bool:
        return self._period > 0 and next_iteration % self._period == 0 and next_iteration < self.trainer.max_iter

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if start > 0 and self._is_due(start) and self._evaluations.before != start:
            self._run(start)

    def after_step(self) -> None:
        if self._is_due(self.trainer.iter + 1):
            self._run(self.trainer.iter + 1)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._run(self.trainer.max_iter)

    def _run(self, next_iteration: int) -> None:
        scores = flatten_results_dict(self._evaluate(next_iteration))
        self.trainer.storage.put_scalars(**scores, smoothing_hint=False)
        # A process may take longer than the others, whose next exchange would time out.
        comm.synchronize()
        for follow in self._followers if self._evaluations.before == next_iteration else ():
            follow(next_iteration)
