"""When checkpoints and weights are saved."""

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
    """Save ``model_{iteration:07d}.pth`` every ``period`` iterations and at the end, then also ``model_final.pth``.

    Amid an accumulation it waits for the optimizer's step, so that no gradients need to be saved. What is accumulated
    after the last step of a training changes no weights.
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
            period: 0: only at the end.
            release_state_dict: the weights for ``model_final.pth``.
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
            # Before the checkpoint: a run that resumes from that has no iteration left, and would not save these.
            self._loop.skip_unless_finite()
            self._checkpointer.save_release("model_final", self._release_state_dict(), iteration=iteration)
        if is_last or (self._is_due and not self._loop.is_amid_step):
            save_resumable(self._checkpointer, self._loop)
            self._is_due = False


def save_resumable(checkpointer: Checkpointer, loop: AccumulatingTrainer) -> None:
    """Save the state after the present iteration; every process must call it."""
    loop.flush_metrics()
    checkpointer.save_resumable(f"model_{loop.iter:07d}")


class BestCheckpointHook(HookBase):
    """Save ``model_best.pth`` whenever an evaluation gives a better ``metric`` than ever before.

    A score that cannot be computed (nan: there are no boxes to find) is never the best, and is logged once.

    After a resume, the best value so far is the one that ``model_best.pth`` carries: a checkpoint is saved before the
    evaluation of its iteration and does not know it yet. To read it in time, this hook must stand before the
    ``EvalHook``, which calls it.
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
        """Look at the scores of an evaluation before ``next_iteration``."""
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
        # Only the main process has scores.
        if not self._has_warned and comm.is_main_process():
            logger.warning(
                f"TEST.BEST_METRIC {self._metric} cannot be computed: DATASETS.TEST has no boxes for it. Evaluations "
                f"without it choose no {self.FILE}.pth and do not count for early stopping."
            )
        self._has_warned = True
