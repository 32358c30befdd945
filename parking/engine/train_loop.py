"""One training iteration: mixed precision, gradient accumulation, metrics without waiting for the device."""

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn

from parking.solver import takes_optimizer_step


class AccumulatingTrainer(SimpleTrainer):
    """A ``SimpleTrainer`` whose optimizer steps when enough iterations are summed up.

    In place of detectron2's ``AMPTrainer``, which needs CUDA and steps at every iteration. The model's losses are those
    of this process's images *times* their number, so gradients are sums over images: over iterations and, because
    DistributedDataParallel averages, after scaling by the number of processes, over processes.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader,
        optimizer: torch.optim.Optimizer,
        *,
        max_iter: int,
        accumulation: Callable[[int], int],
        mixed_precision: bool = False,
        metrics_period: int = 20,
    ):
        """
        Args:
            max_iter: iterations in all, after the last of which everything pending is logged.
            accumulation: iterations to sum up before a step, as a function of the iteration.
            mixed_precision: autocast, to float16 with a gradient scaler on CUDA, to bfloat16 on the CPU.
            metrics_period: the losses of so many iterations are fetched from the device and logged at once.
        """
        super().__init__(model, data_loader, optimizer)
        self.max_iter = max_iter
        self._accumulation = accumulation
        self._device_type = next(model.parameters()).device.type
        self._mixed_precision = mixed_precision
        self._scaler = torch.amp.GradScaler(self._device_type, enabled=mixed_precision and self._device_type == "cuda")
        self._metrics_period = metrics_period
        self._pending: list[tuple[int, dict[str, Tensor], float]] = []
        self.last_step_iteration = -1

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        steps = takes_optimizer_step(self.iter, self.last_step_iteration, self._accumulation(self.iter))
        # Processes exchange gradients only when they are about to be used.
        hold_back = hasattr(self.model, "no_sync") and not steps
        with self.model.no_sync() if hold_back else contextlib.nullcontext():
            with self._autocast():
                loss_dict = self.model(data)
                loss = sum(loss_dict.values()) * comm.get_world_size()
            self._scaler.scale(loss).backward()
        self.after_backward()
        if steps:
            self._scaler.step(self.optimizer)
            self._scaler.update()
            self.optimizer.zero_grad()
            self.last_step_iteration = self.iter

        # Per image: readable, and comparable between batch sizes.
        losses = {name: value.detach() / len(data) for name, value in loss_dict.items()}
        self._pending.append((self.iter, losses, data_time))
        if (self.iter + 1) % self._metrics_period == 0 or self.iter == self.max_iter - 1:
            self.flush_metrics()

    def _autocast(self):
        dtype = torch.float16 if self._device_type == "cuda" else torch.bfloat16
        return torch.autocast(self._device_type, dtype=dtype, enabled=self._mixed_precision)

    def flush_metrics(self) -> None:
        """Write all pending losses to the event storage, averaged over the processes; every process must call it.

        Raises:
            FloatingPointError: a loss is not finite; raised in all processes alike, so that none waits for another.
        """
        if not self._pending:
            return
        names = list(self._pending[0][1])
        table = torch.stack([torch.stack([losses[name] for name in names]) for _, losses, _ in self._pending])
        gathered = comm.all_gather((table.float().cpu().numpy(), [seconds for _, _, seconds in self._pending]))
        means = np.mean([values for values, _ in gathered], axis=0)
        data_times = np.max([seconds for _, seconds in gathered], axis=0)
        storage = get_event_storage()
        for (iteration, _, _), row, data_time in zip(self._pending, means, data_times, strict=True):
            values = dict(zip(names, row.tolist(), strict=True))
            if not np.isfinite(row).all():
                raise FloatingPointError(f"The loss became infinite or NaN at iteration {iteration}: {values}")
            storage.put_scalar("total_loss", sum(values.values()), cur_iter=iteration)
            storage.put_scalars(cur_iter=iteration, **values)
            storage.put_scalar("data_time", float(data_time), cur_iter=iteration)
        self._pending.clear()

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        state["grad_scaler"] = self._scaler.state_dict()
        state["last_step_iteration"] = self.last_step_iteration
        state["gradients"] = self._averaged_gradients()
        return state

    def _averaged_gradients(self) -> list[Tensor | None]:
        """What is summed up for the next step, averaged over the processes, which all must call it; else an empty list.

        The exchange before the step is linear, so continuing from the average in every process gives the same step.
        """
        if self.last_step_iteration == self.iter:
            return []
        gradients = [None if p.grad is None else p.grad.clone() for p in self.model.parameters()]
        if comm.get_world_size() > 1:
            for gradient in gradients:
                if gradient is not None:
                    torch.distributed.all_reduce(gradient.div_(comm.get_world_size()))
        return gradients

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        # Empty where the run so far was on the CPU or in full precision: the scaler then starts from its defaults.
        if self._scaler.is_enabled() and state_dict["grad_scaler"]:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
        self.last_step_iteration = state_dict["last_step_iteration"]
        for parameter, gradient in zip(self.model.parameters(), state_dict["gradients"], strict=False):
            parameter.grad = None if gradient is None else gradient.to(parameter)
