"""A barrier that waits for processes which take hours longer than others."""

import datetime
import time

import torch.distributed as dist
from detectron2.utils import comm

# Time between two checks whether all processes have arrived; Python can handle Ctrl-C only between two checks.
_SECONDS_BETWEEN_LOOKS = 0.05


class PatientBarrier:
    """A barrier for processes whose work may end hours apart; ``comm.synchronize`` would give up after 30 minutes.

    If a process dies, its connection breaks and the others stop waiting at once. All processes must create the barrier
    together.
    """

    def __init__(self, timeout: datetime.timedelta = datetime.timedelta(days=2)):
        self._group = dist.new_group(backend="gloo", timeout=timeout) if comm.get_world_size() > 1 else None

    def wait(self) -> None:
        """Wait until all processes have called this, or Ctrl-C is pressed."""
        if self._group is None:
            return
        work = dist.barrier(self._group, async_op=True)
        while not work.is_completed():
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        work.wait()  # raises an error if another process has died
