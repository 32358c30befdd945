"""Hooks for the optimizer's steps: warm-up before them, averaging of the weights after them."""

import torch
from detectron2.engine import HookBase

from parking.solver import ModelEMA, Warmup

from ..train_loop import AccumulatingTrainer


class WarmupHook(HookBase):
    """Set the learning rate and momentum of each parameter group before each iteration of the warm-up.

    The rate without warm-up is read from the ``LRMultiplier``. ``hooks.LRScheduler`` has set that rate for all groups
    after the previous iteration.
    """

    def __init__(self, warmup: Warmup, optimizer: torch.optim.Optimizer, scheduler):
        self._warmup = warmup
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_step(self) -> None:
        if self._warmup.is_active(self.trainer.iter):
            self._set_rates(self.trainer.iter)
        # Log the learning rate of each group, because detectron2's hook logs that of a single group.
        rates = {f"lr_{group['kind']}": group["lr"] for group in self._optimizer.param_groups}
        self.trainer.storage.put_scalars(**rates, smoothing_hint=False)

    def _set_rates(self, iteration: int) -> None:
        momentum = self._warmup.momentum_at(iteration)
        # Use get_lr, because after a resume get_last_lr returns the initial rate until the next step.
        for group, scheduled_lr in zip(self._optimizer.param_groups, self._scheduler.get_lr(), strict=True):
            group["lr"] = self._warmup.lr(iteration, scheduled_lr, is_bias=group["kind"] == "bias")
            if "betas" in group:
                group["betas"] = (momentum, group["betas"][1])
            else:
                group["momentum"] = momentum


class EMAHook(HookBase):
    """Update the average of the weights after each step of the optimizer."""

    def __init__(self, ema: ModelEMA, model: torch.nn.Module, loop: AccumulatingTrainer):
        self._ema = ema
        self._model = model
        self._loop = loop

    def after_step(self) -> None:
        if self._loop.has_stepped:
            self._ema.update(self._model)
