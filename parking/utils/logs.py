"""Set up where logs go, and keep control characters out of the records of all loggers."""

import logging
import re
import traceback

from .text import printable_lines

# Matches escape codes that colour text, which some messages of detectron2 contain.
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_COLORING_LOGGERS = ("detectron2", "fvcore")


class PrintableRecord(logging.LogRecord):
    """A log record with control characters escaped, because its message may contain names from files."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Look at the name now, because detectron2's formatter shortens the name before getMessage() is called.
        self._has_colors = self.name.partition(".")[0] in _COLORING_LOGGERS
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = printable_lines("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))

    def getMessage(self) -> str:
        text = super().getMessage()
        if self._has_colors:
            text = _COLORS.sub("", text)
        return printable_lines(text)


def make_logs_printable() -> None:
    """Let ``logging`` use :class:`PrintableRecord` for all later records of this process; may be called again."""
    logging.setLogRecordFactory(PrintableRecord)


def setup_logging(output_dir: str | None = None) -> None:
    """Log to stdout in the main process; each process also logs to a file in ``output_dir`` if that is given.

    The main process writes ``log.txt``, process N ``log.txt.rankN``.
    """
    # Import these here, because tools that work without torch use the rest of this module.
    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    make_logs_printable()
    rank = comm.get_rank()
    # Remove the handlers of an earlier stage of the training, which would keep writing to that stage's file.
    setup_logger.cache_clear()
    for name in ("fvcore", "detectron2", "parking"):
        logging.getLogger(name).handlers.clear()
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    setup_logger(output_dir, distributed_rank=rank, name="parking")
