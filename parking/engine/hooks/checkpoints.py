"""Hooks that save checkpoints and weights."""

import logging
import math
from collections.abc import Callable

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm

from parking.checkpoint import Checkpointer

from ..scores import find_last_score
from ..train_loop import AccumulatingTrainer

logger = logging.getLogger(__name__)


class CheckpointHook(HookBase):
    """Save ``model_{iteration:07d}.pth`` every ``period`` iterations; at the end, save it and ``model_final.pth``.

    If gradients are being accumulated, the checkpoint is saved after the optimizer's next step, so that the checkpoint
    need not contain gradients. At the end of a training, accumulated gradients are dropped.
    """

    def __init__(
        self,
        checkpointer: Checkpointer,
        loop: AccumulatingTrainer,
        period: int,
        release_state_dict: Callable[[], dict[str, torch.Tensor]],
    ):
        """
        Args:
            period: number of iterations; 0: save only at the end.
            release_state_dict: returns the weights for ``model_final.pth``.
        """
        self._checkpointer = checkpointer
        self._loop = loop
        self._period = period
        self._release_state_dict = release_state_dict
        self._is_due = False

    def after_step(self) -> None:
        iteration = self.trainer.iter
        self._is_due = self._is_due or (self._period > 0 and (iteration + 1) % self._period == 0)
        is_last = iteration == self.trainer.max_iter - 1
        if is_last:
            # Save the final weights before the checkpoint: a run that resumes from the last checkpoint has no iteration
            # left, so it would never save the final weights.
            self._loop.skip_unless_finite()
            self._checkpointer.save_release("model_final", self._release_state_dict(), iteration=iteration)
        if is_last or (self._is_due and not self._loop.is_amid_step):
            save_resumable(self._checkpointer, self._loop)
            self._is_due = False


def save_resumable(checkpointer: Checkpointer, loop: AccumulatingTrainer) -> None:
    """Save a checkpoint of the state after the present iteration; all processes must call this."""
    loop.flush_metrics()
    checkpointer.save_resumable(f"model_{loop.iter:07d}")


class BestCheckpointHook(HookBase):
    """Save ``model_best.pth`` after each evaluation whose ``metric`` is better than in all earlier ones.

    A score that cannot be computed (nan, because there are no boxes to find) is never the best; a warning says so once.

    A resumed run reads the best value so far from ``model_best.pth``, because a checkpoint is saved before the
    evaluation of the same iteration and so may lack that value. This hook must stand before ``EvalHook``, so that it
    has read the value when ``EvalHook`` calls :meth:`after_evaluation`.
    """

    FILE = "model_best"

    def __init__(
        self, checkpointer: Checkpointer, metric: str, release_state_dict: Callable[[], dict[str, torch.Tensor]]
    ):
        self._checkpointer = checkpointer
        self._metric = metric
        self._release_state_dict = release_state_dict
        self._best: float | None = None
        self._has_warned = False

    def before_train(self) -> None:
        if self.trainer.start_iter > 0 and comm.is_main_process():
            values = self._checkpointer.read_values(self.FILE)
            if values.get("metric") == self._metric and type(values.get("value")) in (int, float):
                self._best = values["value"]

    def after_evaluation(self, next_iteration: int) -> None:
        """Save the weights if the evaluation before ``next_iteration`` gave the best score so far."""
        value = find_last_score(self.trainer.storage, self._metric)
        if not math.isfinite(value):
            self._warn_once()
        elif self._best is None or value > self._best:
            self._best = value
            self._checkpointer.save_release(
                self.FILE, self._release_state_dict(), iteration=next_iteration - 1, metric=self._metric, value=value
            )
            logger.info(f"Best {self._metric} so far: {self._best:.3f}")

    def _warn_once(self) -> None:
        # In other processes the score is always nan, because only the main process has scores.
        if not self._has_warned and comm.is_main_process():
            logger.warning(
                f"TEST.BEST_METRIC {self._metric} cannot be computed: DATASETS.TEST has no boxes for it. Evaluations "
                f"without it choose no {self.FILE}.pth and do not count for early stopping."
            )
        self._has_warned = True
