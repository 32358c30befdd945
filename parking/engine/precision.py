"""What the network computes in while it is trained."""

import logging

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


def _has_bfloat16_cpu() -> bool:
    # Without them PyTorch converts to float32 and back, which takes longer than float32 alone. Always no on ARM.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
