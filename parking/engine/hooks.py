"""One hook for each thing that happens around an iteration."""

import logging
import math
import os
import signal
import threading
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.evaluation.testing import flatten_results_dict
from detectron2.utils import comm

from parking.checkpoint import Checkpointer
from parking.solver import ModelEMA, Warmup
from parking.utils.files import open_atomic
from parking.utils.text import printable

from .scores import find_last_score

logger = logging.getLogger(__name__)


class WarmupHook(HookBase):
    """Set learning rates and momentum of each parameter group before the iterations of the warm-up.

    The schedule's own rate is read from the ``LRMultiplier``, which has set it for all groups alike after the previous
    iteration (``hooks.LRScheduler``).
    """

    def __init__(self, warmup: Warmup, optimizer: torch.optim.Optimizer, scheduler):
        self._warmup = warmup
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_step(self) -> None:
        if self._warmup.is_active(self.trainer.iter):
            self._set_rates(self.trainer.iter)
        # detectron2's hook logs one rate for all groups.
        rates = {f"lr_{group['kind']}": group["lr"] for group in self._optimizer.param_groups}
        self.trainer.storage.put_scalars(**rates, smoothing_hint=False)

    def _set_rates(self, iteration: int) -> None:
        momentum = self._warmup.momentum_at(iteration)
        # get_lr, because get_last_lr is the initial rate until the first step after a resume.
        for group, scheduled_lr in zip(self._optimizer.param_groups, self._scheduler.get_lr(), strict=True):
            group["lr"] = self._warmup.lr(iteration, scheduled_lr, is_bias=group["kind"] == "bias")
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


class EMAHook(HookBase):
    """Average the weights after every step of the optimizer; the average's state is a checkpointable of its own."""

    def __init__(self, ema: ModelEMA, model: torch.nn.Module):
        self._ema = ema
        self._model = model

    def after_step(self) -> None:
        if self.trainer.optimizer_has_stepped:
            self._ema.update(self._model)


class CheckpointHook(HookBase):
    """Save ``model_{iteration:07d}.pth`` every ``period`` iterations and at the end, then also ``model_final.pth``."""

    def __init__(self, checkpointer: Checkpointer, period: int):
        self._checkpointer = checkpointer
        self._period = period

    def after_step(self) -> None:
        iteration = self.trainer.iter
        is_last = iteration == self.trainer.max_iter - 1
        if is_last:
            # First: a run that resumes from the last checkpoint has no iteration left after which it would be saved.
            self.trainer.skip_unless_finite()
            self._checkpointer.save_release("model_final", self.trainer.release_state_dict(), iteration=iteration)
        if is_last or (self._period > 0 and (iteration + 1) % self._period == 0):
            save_resumable(self._checkpointer, self.trainer)


def save_resumable(checkpointer: Checkpointer, trainer) -> None:
    """Save the state after the present iteration; every process must call it."""
    trainer.flush_metrics()
    checkpointer.save_resumable(f"model_{trainer.iter:07d}")


class EvalHook(HookBase):
    """Call ``evaluate(next_iteration)`` every ``period`` iterations and after the last, and store the scores.

    Unlike detectron2's it does not evaluate a training that failed in its last iteration, whose weights may be what
    failed; and where a checkpoint was saved but its evaluation did not come to an end, it makes up for that first.
    """

    def __init__(self, period: int, evaluate: Callable[[int], Mapping[str, Any]]):
        self._period = period
        self._evaluate = evaluate

    def _is_due(self, next_iteration: int) -> bool:
        return self._period > 0 and next_iteration % self._period == 0 and next_iteration < self.trainer.max_iter

    def before_train(self) -> None:
        start = self.trainer.start_iter
        if start > 0 and self._is_due(start) and self.trainer.evaluated_before != start:
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


class BestCheckpointHook(HookBase):
    """Save ``model_best.pth`` whenever the evaluation gives a better ``metric`` than ever before.

    One that cannot be computed (nan: there are no boxes to find) is never the best, which is logged once.

    To stand after the ``EvalHook``. The best value so far is the one that ``model_best.pth`` carries: a checkpoint,
    saved before the evaluation of its iteration, does not know it yet.
    """

    FILE = "model_best"

    def __init__(self, checkpointer: Checkpointer, metric: str):
        self._checkpointer = checkpointer
        self._metric = metric
        self._best: float | None = None
        self._seen_before = -1
        self._has_warned = False

    def before_train(self) -> None:
        if self.trainer.start_iter == 0:
            return
        if comm.is_main_process():
            values = self._checkpointer.read_values(self.FILE)
            if values.get("metric") == self._metric and type(values.get("value")) in (int, float):
                self._best = values["value"]
        self._check()  # an evaluation that was made up for

    def after_step(self) -> None:
        self._check()

    def after_train(self) -> None:
        self._check()

    def _check(self) -> None:
        if self.trainer.evaluated_before <= self._seen_before:
            return
        self._seen_before = self.trainer.evaluated_before
        value = find_last_score(self.trainer.storage, self._metric)
        if not math.isfinite(value):
            self._warn_once()
        elif self._best is None or value > self._best:
            self._best = value
            self._checkpointer.save_release(
                self.FILE,
                self.trainer.release_state_dict(),
                iteration=self.trainer.evaluated_before - 1,
                metric=self._metric,
                value=self._best,
            )
            logger.info(f"Best {self._metric} so far: {self._best:.3f}")

    def _warn_once(self) -> None:
        # The other processes have no scores at all.
        if not self._has_warned and comm.is_main_process():
            logger.warning(
                f"TEST.BEST_METRIC {self._metric} cannot be computed: DATASETS.TEST has no boxes for it. Evaluations "
                f"without it choose no {self.FILE}.pth and do not count for early stopping."
            )
        self._has_warned = True


class UnreadableImagesHook(HookBase):
    """Tell of each image that could not be read and was left out, and list them all in a file at the end.

    It reads the key ``unreadable`` of the samples in ``trainer.last_batch``, which they have under DATASETS.POLICY
    repair (see ``TrainDatasetMapper``).
    """

    def __init__(self, list_file: str):
        self._list_file = list_file
        self._names: set[str] = set()

    def after_step(self) -> None:
        for name in [name for sample in self.trainer.last_batch for name in sample.get("unreadable", ())]:
            if name not in self._names:
                self._names.add(name)
                logger.warning(f"The image '{printable(name)}' cannot be read; others take its place")

    def after_train(self) -> None:
        if self.trainer.iter < self.trainer.max_iter:
            return  # it failed, perhaps in this process only
        names = sorted(set().union(*comm.all_gather(self._names)))
        if names and comm.is_main_process():
            with open_atomic(self._list_file) as file:
                file.writelines(os.fsencode(name) + b"\n" for name in names)  # which need not be text
            logger.warning(f"Images that could not be read and were left out: {len(names)}, see {self._list_file}")

    def state_dict(self) -> dict[str, Any]:
        return {"names": sorted(set().union(*comm.all_gather(self._names)))}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._names = set(state["names"])


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
