"""Exponential moving average of a model's weights."""

import math
from typing import Any

import torch
from torch import nn


class ModelEMA:
    """Moving average of a model's parameters and floating-point buffers over the optimizer's steps.

    After ``n`` updates the decay is ``decay * (1 - exp(-n / warmup))``, so that the bad weights at the start are soon
    forgotten. The average is on the model's device and in the model's precision.
    """

    def __init__(self, model: nn.Module, *, decay: float, warmup: float):
        """
        Args:
            model: the bare module, not its DistributedDataParallel wrapper.
            decay: in [0, 1).
            warmup: number of updates, above 0; see the formula above.
        """
        self._decay = decay
        self._warmup = warmup
        self.num_updates = 0
        self._average = {name: tensor.detach().clone() for name, tensor in _averaged_tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the present weights of ``model``; call this after each optimizer step."""
        self.num_updates += 1
        decay = self._decay * (1 - math.exp(-self.num_updates / self._warmup))
        current = _averaged_tensors(model)
        torch._foreach_lerp_(list(self._average.values()), [current[name] for name in self._average], 1 - decay)

    def model_state_dict(self, model: nn.Module) -> dict[str, torch.Tensor]:
        """Return ``model.state_dict()`` with averaged weights; integer buffers keep the values of ``model``."""
        return {name: self._average.get(name, tensor) for name, tensor in model.state_dict().items()}

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates, "average": dict(self._average)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state; raise a ValueError if it was saved for a model with other tensors."""
        if state["average"].keys() != self._average.keys():
            raise ValueError("holds averaged weights of another model")
        self.num_updates = state["num_updates"]
        _copy(state["average"], self._average)

    def restart_from(self, model: nn.Module) -> None:
        """Restart the average from the present weights of ``model``; call this after loading other weights into it."""
        self.num_updates = 0
        _copy(_averaged_tensors(model), self._average)


def _averaged_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    # The state dict copies no memory, and lacks only buffers that are not saved, which need no average.
    return {name: tensor for name, tensor in model.state_dict().items() if tensor.dtype.is_floating_point}


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])
