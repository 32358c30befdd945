"""Waiting for processes that take much longer than others."""

import datetime
import time

import torch.distributed as dist
from detectron2.utils import comm

# How often to look whether all processes are there: Python handles Ctrl-C between two looks, but not in a barrier.
_SECONDS_BETWEEN_LOOKS = 0.05


class PatientBarrier:
    """A barrier for processes whose work may end hours apart: detectron2's gives up after 30 minutes.

    A process that dies is noticed by its connection, however long the others would wait. All processes must make one
    while they are still at about the same point.
    """

    def __init__(self, timeout: datetime.timedelta = datetime.timedelta(days=2)):
        self._group = dist.new_group(backend="gloo", timeout=timeout) if comm.get_world_size() > 1 else None

    def wait(self) -> None:
        """Wait until all processes are here, or Ctrl-C is pressed."""
        if self._group is None:
            return
        work = dist.barrier(self._group, async_op=True)
        while not work.is_completed():
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        work.wait()  # raises what went wrong
