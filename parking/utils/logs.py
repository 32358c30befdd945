"""Where logs go; and log records without control characters, for all loggers and handlers."""

import logging
import re
import traceback

from .text import printable_lines

# Escape codes that colour text; detectron2 logs its config with them.
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_COLORING_LOGGERS = ("detectron2", "fvcore")


class PrintableRecord(logging.LogRecord):
    """A record whose message and traceback a terminal does not obey: names from files may be in them."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.exc_info and self.exc_info[0] is not None:
            self.exc_text = printable_lines("".join(traceback.format_exception(*self.exc_info)).rstrip("\n"))

    def getMessage(self) -> str:
        text = super().getMessage()
        if self.name.partition(".")[0] in _COLORING_LOGGERS:
            text = _COLORS.sub("", text)
        return printable_lines(text)


def make_logs_printable() -> None:
    """Have all log records of this process made as :class:`PrintableRecord`; more than once is fine."""
    logging.setLogRecordFactory(PrintableRecord)


def setup_logging(output_dir: str | None = None) -> None:
    """Log to stdout on the main process and, given a folder, to ``log.txt`` (``log.txt.rankN``) there."""
    # Imported here, because tools without torch use the rest of this module.
    from detectron2.utils import comm
    from detectron2.utils.logger import setup_logger

    make_logs_printable()
    rank = comm.get_rank()
    # Handlers of an earlier stage would go on writing to its file.
    setup_logger.cache_clear()
    for name in ("fvcore", "detectron2", "parking"):
        logging.getLogger(name).handlers.clear()
    # The calls must be spelled as in detectron2's default_setup: they are cached by their arguments, and another
    # spelling adds handlers that print every line twice.
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    setup_logger(output_dir, distributed_rank=rank, name="parking")
