"""Schedules as functions of the iteration: learning-rate decay, warm-up, gradient accumulation."""

import math
from dataclasses import dataclass

from fvcore.common.param_scheduler import ParamScheduler


class PerEpochParamScheduler(ParamScheduler):
    """Wraps a schedule and holds its value constant within each epoch, as the YOLOv5 recipe does.

    During epoch ``e`` of ``num_epochs``, counted from 0, the value is that of the wrapped schedule at progress
    ``e / num_epochs``.
    """

    def __init__(self, scheduler: ParamScheduler, num_epochs: float):
        """
        Args:
            num_epochs: may be fractional, if the training ends within an epoch.
        """
        if num_epochs <= 0:
            raise ValueError(f"num_epochs must be positive, not {num_epochs}")
        self._scheduler = scheduler
        self._num_epochs = num_epochs

    def __call__(self, where: float) -> float:
        # Add 1e-6, because rounding may bring the product of progress and epochs slightly below a whole number.
        epoch = math.floor(where * self._num_epochs + 1e-6)
        return self._scheduler(min(epoch / self._num_epochs, 1.0))


@dataclass(frozen=True)
class Warmup:
    """Linear warm-up over the iterations from 0 to ``num_iters``, both included; 0 means no warm-up.

    The learning rate of biases changes from ``bias_lr`` to the scheduled rate, and that of all other weights rises from
    0 to it. Momentum goes from ``start_momentum`` to ``momentum``, and accumulation from 1 to its target.
    """

    num_iters: int
    bias_lr: float
    start_momentum: float
    momentum: float

    def is_active(self, iteration: int) -> bool:
        return iteration <= self.num_iters and self.num_iters > 0

    def _blend(self, iteration: int, start: float, end: float) -> float:
        if not self.is_active(iteration):
            return end
        return start + (end - start) * iteration / self.num_iters

    def lr(self, iteration: int, scheduled_lr: float, *, is_bias: bool) -> float:
        """Return the learning rate of a parameter group; without warm-up, it would be ``scheduled_lr``."""
        return self._blend(iteration, self.bias_lr if is_bias else 0.0, scheduled_lr)

    def momentum_at(self, iteration: int) -> float:
        return self._blend(iteration, self.start_momentum, self.momentum)

    def accumulation(self, iteration: int, nominal_batch_size: int, batch_size: int) -> int:
        """Return the number of iterations whose gradients are summed for one step of the optimizer."""
        if not self.is_active(iteration) or nominal_batch_size <= 0:
            return accumulation_target(nominal_batch_size, batch_size)
        return max(round(self._blend(iteration, 1.0, nominal_batch_size / batch_size)), 1)


def accumulation_target(nominal_batch_size: int, batch_size: int) -> int:
    """Return how many iterations make up the nominal batch; 1 if ``nominal_batch_size`` is 0 (no accumulation)."""
    return max(round(nominal_batch_size / batch_size), 1)


def takes_optimizer_step(iteration: int, last_step_iteration: int, accumulation: int) -> bool:
    """Whether the optimizer steps at ``iteration``, if its last step was at ``last_step_iteration`` (-1: none yet)."""
    return iteration - last_step_iteration >= accumulation
