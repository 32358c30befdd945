"""Training iterations with mixed precision and gradient accumulation, and metrics that do not wait for the GPU."""

import contextlib
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.engine import SimpleTrainer
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from parking.layers import upload
from parking.solver import takes_optimizer_step
from parking.utils.errors import UserError
from parking.utils.text import printable

from .training_state import arrange_by_names

logger = logging.getLogger(__name__)

# Number of skipped steps in a row that ends a training: one may be an accident, but this many mean that the weights
# have diverged.
_MAX_SKIPPED_IN_A_ROW = 3
# Smallest scale of gradients in half precision; it is reached only if about thirty steps in a row overflow.
_MIN_SCALE = 2.0**-14


@dataclass(frozen=True)
class _Batch:
    """Names of the images that this process had in one iteration, and the losses of these images."""

    iteration: int
    images: list[str]
    losses: dict[str, Tensor]

    def is_finite(self) -> bool:
        return all(math.isfinite(value.item()) for value in self.losses.values())

    def describe(self) -> str:
        terms = ", ".join(f"{name} {value.item():g}" for name, value in self.losses.items())
        return f"The loss of iteration {self.iteration} is not finite ({terms}) on {', '.join(self.images)}"


def _name_image(inputs: Any) -> str:
    return printable(inputs["file_name"]) if isinstance(inputs, dict) and "file_name" in inputs else "a nameless image"


class AccumulatingTrainer(SimpleTrainer):
    """A ``SimpleTrainer`` that sums gradients over several iterations before the optimizer steps.

    It replaces detectron2's ``AMPTrainer``, which needs CUDA and steps in every iteration. The model's losses must be
    means over this process's images *times* their number, so that gradients are sums over the images of all these
    iterations. The gradients are also sums over all processes: DistributedDataParallel averages over the processes, and
    therefore the loss is multiplied by their number.

    Only steps wait for the GPU. A step is left out if a loss or gradient since the last step is not finite.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader,
        optimizer: torch.optim.Optimizer,
        *,
        max_iter: int,
        accumulation: Callable[[int], int],
        autocast_dtype: torch.dtype | None = None,
        metrics_period: int = 20,
    ):
        """
        Args:
            max_iter: number of iterations; after the last one, all pending losses are logged.
            accumulation: returns for an iteration how many iterations to sum before a step.
            autocast_dtype: type for mixed precision, torch.float16 (with a gradient scaler) or torch.bfloat16; None:
                float32 throughout.
            metrics_period: losses are fetched from the GPU and logged once in this many iterations.
        """
        super().__init__(model, data_loader, optimizer)
        self.max_iter = max_iter
        self._accumulation = accumulation
        self._device = next(model.parameters()).device
        self._autocast_dtype = autocast_dtype
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=autocast_dtype == torch.float16)
        self._metrics_period = metrics_period
        self._pending: list[tuple[int, dict[str, Tensor], float]] = []
        self._since_step: list[_Batch] = []
        self._buffers = [b for b in model.buffers() if b.is_floating_point()]
        # Norm statistics from before the batches that wait for the next step, to be restored if that step is skipped;
        # None if no batch waits.
        self._sound_buffers: list[Tensor] | None = None
        self.last_step_iteration = -1
        self.num_skipped_in_a_row = 0
        self._took_step = False
        #: The batch of the latest iteration.
        self.last_batch: list[dict[str, Any]] = []

    @property
    def has_stepped(self) -> bool:
        """Whether the optimizer stepped at the end of the present iteration; False if the step was left out."""
        return self.last_step_iteration == self.iter and self._took_step

    @property
    def is_amid_step(self) -> bool:
        """Whether there are gradients that wait for the optimizer's next step; the same in all processes."""
        return bool(self._since_step)

    def run_step(self) -> None:
        start = time.perf_counter()
        data = self.last_batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start

        steps = takes_optimizer_step(self.iter, self.last_step_iteration, self._accumulation(self.iter))
        # Let processes exchange gradients only in iterations that end with a step.
        hold_back = hasattr(self.model, "no_sync") and not steps
        if self._sound_buffers is None:
            self._sound_buffers = [buffer.clone() for buffer in self._buffers]
        with self.model.no_sync() if hold_back else contextlib.nullcontext():
            with torch.autocast(
                self._device.type, dtype=self._autocast_dtype, enabled=self._autocast_dtype is not None
            ):
                loss_dict = self.model(upload_targets(data, self._device))
                loss = sum(loss_dict.values()) * comm.get_world_size()
            self._scaler.scale(loss).backward()
        self.after_backward()
        # Log losses per image, so that they can be compared between batch sizes.
        losses = {name: value.detach() / len(data) for name, value in loss_dict.items()}
        self._since_step.append(_Batch(self.iter, [_name_image(inputs) for inputs in data], losses))
        if steps:
            self._step()

        self._pending.append((self.iter, losses, data_time))
        if (self.iter + 1) % self._metrics_period == 0 or self.iter == self.max_iter - 1:
            self.flush_metrics()

    def _step(self) -> None:
        self.skip_unless_finite()
        if not self._since_step:
            return
        scale = self._scaler.get_scale()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        # If the scale is now lower, a gradient overflowed and the scaler has left the step out.
        self._took_step = self._scaler.get_scale() >= scale
        self.num_skipped_in_a_row = 0
        self._end_step()
        if scale < _MIN_SCALE:
            raise UserError(
                f"The gradients of iteration {self.iter} are not finite in half precision, whatever they are scaled by "
                f"(now {scale:g}). The last checkpoint is intact; set SOLVER.AMP.DTYPE bfloat16 or SOLVER.AMP.ENABLED "
                f"False, or lower SOLVER.BASE_LR."
            )

    def _end_step(self) -> None:
        self.last_step_iteration = self.iter
        self.optimizer.zero_grad()
        self._since_step.clear()
        self._sound_buffers = None

    def skip_unless_finite(self) -> None:
        """Drop the batches since the last step, and log why, if one of their losses or gradients is not finite.

        Training then continues as if these batches had never come. All processes must call this, before a step and
        after the last iteration.

        Raises:
            UserError: this happens for the third time in a row.
        """
        if self._sound_buffers is None or self._is_finite():
            return
        self.num_skipped_in_a_row += 1
        self._took_step = False
        self._report_skipped()
        # Restore the norm statistics, which the forward passes of these batches have changed.
        for buffer, sound in zip(self._buffers, self._sound_buffers, strict=True):
            buffer.copy_(sound)
        self._end_step()

    def _is_finite(self) -> bool:
        """Whether all losses and gradients since the last step are finite, in all processes; waits for the GPU."""
        values = [value.float() for batch in self._since_step for value in batch.losses.values()]
        # Leave the gradients to the scaler, if there is one: it checks them itself, and because it scales them up, some
        # may be infinite even if all is well.
        if not self._scaler.is_enabled():
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            values += torch._foreach_norm(gradients) if gradients else []
        are_finite = torch.stack(values).isfinite().all().to(torch.int32)
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(are_finite, torch.distributed.ReduceOp.MIN)
        return bool(are_finite.item())

    def _report_skipped(self) -> None:
        """Log each batch with a loss that is not finite; raise a UserError the third time in a row."""
        bad = [batch for batch in self._since_step if not batch.is_finite()]
        lines = [line for lines in comm.all_gather([b.describe() for b in bad]) for line in lines]
        if not lines:
            lines = [f"The gradient up to iteration {self.iter} is not finite, though the losses are"]
        for line in lines:
            logger.error(f"{line}; this step is left out")
        if self.num_skipped_in_a_row == _MAX_SKIPPED_IN_A_ROW:
            raise UserError(
                f"The loss was not finite in {_MAX_SKIPPED_IN_A_ROW} steps in a row: {lines[-1]}. The last checkpoint "
                f"is intact; lower SOLVER.BASE_LR (the rate is {self.optimizer.param_groups[-1]['lr']:g} now), or set "
                f"SOLVER.AMP.ENABLED False."
            )

    def flush_metrics(self) -> None:
        """Write all pending losses to the event storage, averaged over the processes; all processes must call this.

        Losses that are not finite are left out; :meth:`skip_unless_finite` has logged them.
        """
        if not self._pending:
            return
        # Collect all names, because some losses may be missing in some of these iterations.
        names = list(dict.fromkeys(name for _, losses, _ in self._pending for name in losses))
        absent = torch.zeros_like(next(iter(self._pending[0][1].values())))
        table = torch.stack([torch.stack([losses.get(n, absent) for n in names]) for _, losses, _ in self._pending])
        gathered = comm.all_gather((table.float().cpu().numpy(), [seconds for _, _, seconds in self._pending]))
        means = np.mean([values for values, _ in gathered], axis=0)
        data_times = np.max([seconds for _, seconds in gathered], axis=0)
        storage = get_event_storage()
        for (iteration, losses, _), row, data_time in zip(self._pending, means, data_times, strict=True):
            values = {name: value for name, value in zip(names, row.tolist(), strict=True) if name in losses}
            if np.isfinite(row).all():
                storage.put_scalar("total_loss", sum(values.values()), cur_iter=iteration)
                storage.put_scalars(cur_iter=iteration, **values)
            storage.put_scalar("data_time", float(data_time), cur_iter=iteration)
        self._pending.clear()

    def state_dict(self) -> dict[str, Any]:
        """Return the state without gradients; call this only right after a step, or after the last iteration."""
        state = super().state_dict()
        state["grad_scaler"] = self._scaler.state_dict()
        state["last_step_iteration"] = self.last_step_iteration
        state["num_skipped_in_a_row"] = self.num_skipped_in_a_row
        state["names"] = self.list_names()
        return state

    def list_names(self) -> dict[str, list]:
        """Return the names of parameters and buffers in the order in which the state dict stores their values.

        Returns:
            "parameters": names of the model's parameters; "buffers": names of its floating-point buffers; "optimizer":
            for each parameter group of the optimizer the names of its parameters.
        """
        model = self.model.module if isinstance(self.model, DistributedDataParallel) else self.model
        names = {parameter: name for name, parameter in model.named_parameters()}
        return {
            "parameters": list(names.values()),
            "buffers": [name for name, buffer in model.named_buffers() if buffer.is_floating_point()],
            "optimizer": [[names[p] for p in group["params"]] for group in self.optimizer.param_groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict = arrange_by_names(state_dict, self.list_names())
        super().load_state_dict(state_dict)
        # The scaler's state is empty if the run so far used no scaler, for example on a CPU; then keep the defaults.
        if self._scaler.is_enabled() and state_dict["grad_scaler"]:
            self._scaler.load_state_dict(state_dict["grad_scaler"])
        self.last_step_iteration = state_dict["last_step_iteration"]
        self.num_skipped_in_a_row = state_dict["num_skipped_in_a_row"]


def upload_targets(batch: list[dict[str, Any]], device: torch.device) -> list[dict[str, Any]]:
    """Copy boxes and classes of a batch to ``device`` asynchronously; detectron2's models would wait for each copy."""
    if device.type == "cpu":
        return batch
    uploaded = []
    for inputs in batch:
        instances = inputs["instances"]
        boxes = Boxes(upload(instances.gt_boxes.tensor, device))
        targets = Instances(instances.image_size, gt_boxes=boxes, gt_classes=upload(instances.gt_classes, device))
        uploaded.append({**inputs, "instances": targets})
    return uploaded


def autocast_dtype(cfg, on_gpu: bool) -> torch.dtype | None:
    """Return the type for mixed precision that SOLVER.AMP asks for; None for full precision."""
    dtypes = {"float16": torch.float16, "bfloat16": torch.bfloat16}
    dtypes["auto"] = torch.float16 if on_gpu else torch.bfloat16
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.SOLVER.AMP.DTYPE == "auto" and not on_gpu and not _has_bfloat16_cpu():
        logger.info("SOLVER.AMP.DTYPE auto: this CPU has no instructions for bfloat16, so float32 is used")
        return None
    return dtypes[cfg.SOLVER.AMP.DTYPE]


def _has_bfloat16_cpu() -> bool:
    # On a CPU without instructions for bfloat16, PyTorch converts to float32 and back, which is slower than float32
    # alone. On ARM, both functions return False.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
