"""What the network computes in: which type a config asks for on which device, and how exactly."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

logger = logging.getLogger(__name__)


def autocast_dtype(cfg, on_gpu: bool) -> torch.dtype | None:
    """What SOLVER.AMP says of mixed precision; None: none."""
    dtypes = {"float16": torch.float16, "bfloat16": torch.bfloat16}
    dtypes["auto"] = torch.float16 if on_gpu else torch.bfloat16
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    if cfg.SOLVER.AMP.DTYPE == "auto" and not on_gpu and not _has_bfloat16_cpu():
        logger.info("SOLVER.AMP.DTYPE auto: this CPU has no instructions for bfloat16, so float32 is used")
        return None
    return dtypes[cfg.SOLVER.AMP.DTYPE]


def inference_dtype(cfg) -> torch.dtype:
    """What TEST.DTYPE says, on MODEL.DEVICE."""
    dtypes = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    dtypes["auto"] = torch.float16 if cfg.MODEL.DEVICE.startswith("cuda") else torch.float32
    return dtypes[cfg.TEST.DTYPE]


@contextmanager
def repeatable_kernels() -> Iterator[None]:
    """For inference on a GPU: the same kernels each time, whatever is fastest now, and all the digits of float32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _has_bfloat16_cpu() -> bool:
    # Without them PyTorch converts to float32 and back, which takes longer than float32 alone. Always no on ARM.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
