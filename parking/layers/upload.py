"""Copy values to a GPU without waiting for the GPU."""

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(values: float | Sequence | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Return ``values`` as a tensor on ``device``, without waiting for the device.

    ``torch.tensor(values, device=device)`` would wait until a GPU has finished all earlier work.
    """
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)
