"""Values to a device without waiting for it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def upload(values: float | Sequence | Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """``values`` as a tensor on ``device``; ``torch.tensor(values, device=device)`` waits until a GPU is idle."""
    return torch.as_tensor(values, dtype=dtype).to(device, non_blocking=True)
