"""The time that a training takes; its trainer and its hooks share one clock."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from detectron2.utils import comm

from parking.utils.files import open_atomic, read_number

logger = logging.getLogger(__name__)


class TrainingClock:
    """Counts the seconds of a training, interrupted runs included.

    A file keeps them, so that a resumed run also counts the time lost since its checkpoint. It is written without a
    time limit, too, because the next run may have one.
    """

    #: Seconds between two writings of the file.
    RECORD_PERIOD = 60.0

    def __init__(self, record: str | os.PathLike | None = None, *, clock: Callable[[], float] = time.monotonic):
        """
        Args:
            record: the file with the time used; None: it is lost with the process.
            clock: gives seconds since an arbitrary moment.
        """
        self._record = Path(record) if record is not None else None
        self._clock = clock
        self._seconds_before = 0.0
        self._start: float | None = None

    def start(self) -> None:
        """Begin to count, unless already begun: an evaluation may come before the first iteration."""
        if self._start is not None:
            return
        self._start = self._recorded_at = self._clock()
        if self._record is not None and comm.is_main_process():
            # The file is ahead of the checkpoint if the last run was killed some time after saving it.
            self._seconds_before = max(self._seconds_before, read_number(self._record))

    @property
    def seconds(self) -> float:
        """Time used so far, earlier runs included."""
        self.start()
        return self._seconds_before + self._clock() - self._start

    def restore(self, seconds: float) -> None:
        """Count on from what a checkpoint says."""
        self._seconds_before = seconds

    def write_record(self, *, if_older_than: float = 0.0) -> None:
        """Write the time used to the file, unless that was done in the last ``if_older_than`` seconds."""
        self.start()
        if self._clock() - self._recorded_at < if_older_than:
            return
        self._recorded_at = self._clock()
        if self._record is not None and comm.is_main_process():
            try:
                with open_atomic(self._record, makes_folder=False) as file:
                    file.write(f"{self.seconds:.0f}\n".encode())
            except OSError as e:
                # This must not end a training; if the disk is full, saving the next checkpoint says what to do.
                logger.warning(f"The time used could not be written to {self._record}: {e.strerror or e}")
