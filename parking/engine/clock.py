"""The time that a training takes, as its trainer and its hooks share it."""

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

    They are kept in a file, so that a resumed run counts what was lost since its checkpoint as well; also without a
    time limit, for the next run may have one.
    """

    #: Seconds between two writings of the file.
    RECORD_PERIOD = 60.0

    def __init__(self, record: str | os.PathLike | None = None, *, clock: Callable[[], float] = time.monotonic):
        """
        Args:
            record: the file with the time used; None: it is lost with the process.
            clock: seconds from any beginning.
        """
        self._record = Path(record) if record is not None else None
        self._clock = clock
        self._seconds_before = 0.0
        self._start: float | None = None

    def start(self) -> None:
        """Begin to count, once: an evaluation may come before the first iteration."""
        if self._start is not None:
            return
        self._start = self._recorded_at = self._clock()
        if self._record is not None and comm.is_main_process():
            # Later than what the checkpoint says, where the last run was killed some time after it.
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
                # No reason to end a training; on a full disk its next checkpoint says what to do.
                logger.warning(f"The time used could not be written to {self._record}: {e.strerror or e}")
