"""Telling the user what to do when memory runs out."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from parking.utils.errors import UserError

# What else than OutOfMemoryError says so: PyTorch's allocator on the CPU, and what allocates on a GPU by itself.
_REASONS = {
    "can't allocate memory": "the CPU's memory is full",
    "CUDA error: out of memory": "the GPU's memory is full",
    "STATUS_ALLOC_FAILED": "the GPU's memory is full",
}


@contextmanager
def explaining_out_of_memory(when: str, remedy: str) -> Iterator[None]:
    """Turn PyTorch's errors about a lack of memory, on a GPU or the CPU, into a UserError; others pass.

    Args:
        when: such as "in iteration 7".
        remedy: the keys to lower, with their present values.
    """
    try:
        yield
    except torch.OutOfMemoryError as e:
        raise UserError(f"Out of memory {when} ({str(e).split('. ')[0]}): {remedy}.") from e
    except MemoryError as e:
        raise UserError(f"Out of memory {when} (the CPU's memory is full): {remedy}.") from e
    except RuntimeError as e:
        reason = next((reason for text, reason in _REASONS.items() if text in str(e)), None)
        if reason is None:
            raise
        raise UserError(f"Out of memory {when} ({reason}): {remedy}.") from e
