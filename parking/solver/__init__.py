"""Optimizers, schedules of the learning rate and of gradient accumulation, averaged weights."""

from .build import build_lr_scheduler, build_optimizer
from .ema import ModelEMA
from .schedule import PerEpochParamScheduler, Warmup, accumulation_target, takes_optimizer_step

__all__ = [
    "ModelEMA",
    "PerEpochParamScheduler",
    "Warmup",
    "accumulation_target",
    "build_lr_scheduler",
    "build_optimizer",
    "takes_optimizer_step",
]
