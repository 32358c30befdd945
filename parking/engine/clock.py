"""The clock of a training, which its trainer and its hooks share."""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from detectron2.utils import comm

from parking.utils.files import open_atomic, read_number

logger = logging.getLogger(__name__)


class TrainingClock:
    """Counts the seconds that a training has taken, including interrupted runs.

    It writes them to a file, so that a resumed run also counts the time between its checkpoint and the interruption.
    The file is written even if there is no time limit, because a later run may have one.
    """

    #: Seconds between two writes of the file ``record`` during a training.
    RECORD_PERIOD = 60.0

    def __init__(self, record: str | os.PathLike | None = None, *, clock: Callable[[], float] = time.monotonic):
        """
        Args:
            record: the file with the time used; None: the time is not written.
            clock: returns the seconds since an arbitrary moment.
        """
        self._record = Path(record) if record is not None else None
        self._clock = clock
        self._seconds_before = 0.0
        self._start: float | None = None

    def start(self) -> None:
        """Begin to count, unless an evaluation before the first iteration has already started the clock."""
        if self._start is not None:
            return
        self._start = self._recorded_at = self._clock()
        if self._record is not None and comm.is_main_process():
            # The file states more time than the checkpoint if the last run was killed some time after that checkpoint.
            self._seconds_before = max(self._seconds_before, read_number(self._record))

    @property
    def seconds(self) -> float:
        """Seconds used so far, including earlier runs."""
        self.start()
        return self._seconds_before + self._clock() - self._start

    def restore(self, seconds: float) -> None:
        """Set how many seconds earlier runs have used, as stated in a checkpoint."""
        self._seconds_before = seconds

    def write_record(self, *, if_older_than: float = 0.0) -> None:
        """Write the seconds used so far into the file, unless it was written in the last ``if_older_than`` seconds."""
        self.start()
        if self._clock() - self._recorded_at < if_older_than:
            return
        self._recorded_at = self._clock()
        if self._record is not None and comm.is_main_process():
            try:
                with open_atomic(self._record, makes_folder=False) as file:
                    file.write(f"{self.seconds:.0f}\n".encode())
            except OSError as e:
                # Do not end the training because of this error. If the disk is full, saving the next checkpoint will
                # say what to do.
                logger.warning(f"The time used could not be written to {self._record}: {e.strerror or e}")
