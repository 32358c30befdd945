"""Functions of the iteration: learning-rate decay, warm-up, gradient accumulation."""

import math
from dataclasses import dataclass

from fvcore.common.param_scheduler import ParamScheduler


class PerEpochParamScheduler(ParamScheduler):
    """Hold another schedule constant within each epoch, as the original recipe does.

    During epoch ``e`` of ``num_epochs`` (0-based) the value is the wrapped schedule's at progress ``e / num_epochs``.
    """

    def __init__(self, scheduler: ParamScheduler, num_epochs: float):
        """``num_epochs`` may be fractional: the last epoch is then a part of one."""
        if num_epochs <= 0:
            raise ValueError(f"num_epochs must be positive, not {num_epochs}")
        self._scheduler = scheduler
        self._num_epochs = num_epochs

    def __call__(self, where: float) -> float:
        # Progress is iteration / max_iter: the product may come out a hair below the whole number it stands for.
        epoch = math.floor(where * self._num_epochs + 1e-6)
        return self._scheduler(min(epoch / self._num_epochs, 1.0))


@dataclass(frozen=True)
class Warmup:
    """Linear warm-up over the iterations 0 ... ``num_iters``, both included.

    The learning rate of the biases falls (or rises) from ``bias_lr``, that of all other weights rises from 0, momentum
    goes from ``start_momentum`` to ``momentum``, accumulation from 1 to its target.
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
        """The rate of a parameter group whose schedule says ``scheduled_lr`` at this iteration."""
        return self._blend(iteration, self.bias_lr if is_bias else 0.0, scheduled_lr)

    def momentum_at(self, iteration: int) -> float:
        return self._blend(iteration, self.start_momentum, self.momentum)

    def accumulation(self, iteration: int, nominal_batch_size: int, batch_size: int) -> int:
        """Iterations whose gradients are summed before the optimizer steps."""
        if not self.is_active(iteration) or nominal_batch_size <= 0:
            return accumulation_target(nominal_batch_size, batch_size)
        return max(round(self._blend(iteration, 1.0, nominal_batch_size / batch_size)), 1)


def accumulation_target(nominal_batch_size: int, batch_size: int) -> int:
    """Iterations that make up the nominal batch; 1 when ``nominal_batch_size`` is 0 (no accumulation)."""
    return max(round(nominal_batch_size / batch_size), 1)


def takes_optimizer_step(iteration: int, last_step_iteration: int, accumulation: int) -> bool:
    """Whether the optimizer steps at ``iteration``, having last stepped at ``last_step_iteration`` (-1: never)."""
    return iteration - last_step_iteration >= accumulation
