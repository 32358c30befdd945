"""Build the optimizer and the learning-rate schedule that a configuration describes."""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import CosineParamScheduler, LinearParamScheduler, ParamScheduler
from torch import nn

from .schedule import PerEpochParamScheduler, accumulation_target

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)


def group_parameters(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Divide the trainable parameters into ``bias``, ``norm`` (weights of normalisation layers) and ``weight``.

    Only the group ``weight`` gets weight decay. A parameter that several modules share is listed once.
    """
    groups: dict[str, list[nn.Parameter]] = {"bias": [], "norm": [], "weight": []}
    seen = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            kind = "bias" if name == "bias" else "norm" if isinstance(module, _NORMS) else "weight"
            groups[kind].append(parameter)
    return groups


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build SGD or AdamW over the groups of :func:`group_parameters`; the key ``kind`` of each group holds its name.

    WEIGHT_DECAY is scaled by IMS_PER_BATCH * accumulation / NOMINAL_BATCH_SIZE, so that weights decay equally fast per
    image even if the batch size does not divide the nominal one.
    """
    solver = cfg.SOLVER
    weight_decay = solver.WEIGHT_DECAY
    if solver.NOMINAL_BATCH_SIZE > 0:
        accumulation = accumulation_target(solver.NOMINAL_BATCH_SIZE, solver.IMS_PER_BATCH)
        weight_decay *= solver.IMS_PER_BATCH * accumulation / solver.NOMINAL_BATCH_SIZE
    groups = [
        {"params": parameters, "kind": kind, "weight_decay": weight_decay if kind == "weight" else 0.0}
        for kind, parameters in group_parameters(model).items()
        if parameters
    ]
    if solver.OPTIMIZER == "SGD":
        return torch.optim.SGD(groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV)
    if solver.OPTIMIZER == "AdamW":
        return torch.optim.AdamW(groups, lr=solver.BASE_LR, betas=(solver.MOMENTUM, 0.999))
    raise ValueError(f"there is no optimizer {solver.OPTIMIZER!r}")


class ShortenableLRMultiplier(LRMultiplier):
    """A ``LRMultiplier`` whose end can be moved; from then on its rates are those of a run with the new length."""

    def __init__(self, optimizer: torch.optim.Optimizer, make_schedule: Callable[[int], ParamScheduler], max_iter: int):
        """
        Args:
            make_schedule: called with the number of iterations of a run; returns the factor on the learning rates as a
                function of the progress, 0..1.
        """
        self._make_schedule = make_schedule
        super().__init__(optimizer, make_schedule(max_iter), max_iter=max_iter)

    def set_max_iter(self, max_iter: int) -> None:
        self._multiplier, self._max_iter = self._make_schedule(max_iter), max_iter

    def state_dict(self) -> dict[str, Any]:
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer, iters_per_epoch: int) -> ShortenableLRMultiplier:
    """Build the decay of all groups from BASE_LR to BASE_LR * LR_FINAL_FACTOR over MAX_ITER, without warm-up.

    A hook adds the warm-up, see :class:`.schedule.Warmup`.
    """
    solver = cfg.SOLVER
    shapes = {"linear": LinearParamScheduler, "cosine": CosineParamScheduler}

    def make_schedule(max_iter: int) -> ParamScheduler:
        schedule = shapes[solver.LR_SCHEDULER_NAME](1.0, solver.LR_FINAL_FACTOR)
        return PerEpochParamScheduler(schedule, max_iter / iters_per_epoch) if by_epoch else schedule

    by_epoch = solver.LR_DECAY_PER == "epoch"
    return ShortenableLRMultiplier(optimizer, make_schedule, solver.MAX_ITER)
