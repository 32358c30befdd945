"""The hook that evaluates a training, and the record of its evaluations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm


@dataclass
class Evaluations:
    """Records when a training was last evaluated and how long evaluations take; trainer and hooks share it.

    Attributes:
        before: number of the iteration that followed the last evaluation; -1 before the first evaluation.
        seconds: how long the last evaluation took in the main process; 0 before the first.
        total_seconds: how long all evaluations of this run took together.
    """

    before: int = -1
    seconds: float = 0.0
    total_seconds: float = 0.0

    def add(self, before: int, seconds: float) -> None:
        """Record that an evaluation has ended.

        Args:
            before: number of the iteration that follows the evaluation.
            seconds: how long the evaluation took.
        """
        self.before, self.seconds = before, seconds
        self.total_seconds += seconds


class EvalHook(HookBase):
    """Evaluate every ``period`` iterations and after the last one; store the scores, then call ``followers``.

    Unlike detectron2's hook, this one does not evaluate a training that failed in its last iteration, because the
    weights may be the reason for the failure. If the evaluation at the checkpoint from which a run resumes was
    interrupted, the hook repeats that evaluation first.
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
            period: number of iterations between evaluations; 0: evaluate only after the last iteration.
            evaluate: called with the number of the next iteration; returns nested scores.
            evaluations: the record to which ``evaluate`` adds each evaluation.
            followers: called with the number of the next iteration after each evaluation that was not interrupted, in
                every process.
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
        # Wait for all processes: if one takes much longer, the next collective operation would time out in the others.
        comm.synchronize()
        for follow in self._followers if self._evaluations.before == next_iteration else ():
            follow(next_iteration)
