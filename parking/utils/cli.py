"""What all command-line tools do alike: exit codes and KEY VALUE pairs."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable

from .errors import UserError
from .logs import make_logs_printable
from .text import printable, printable_lines

EXIT_USER_ERROR = 1
EXIT_UNREADABLE_IMAGES = 3
EXIT_INTERRUPTED = 130


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, with a tool's docstring as its description, and usage errors without control characters."""

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str):
        super().error(printable(message))


def say(*lines: object, end: str = "\n") -> None:
    """Print to stdout, at once; all that a tool prints goes through here, and through :func:`complain`."""
    sys.stdout.write(printable_lines("\n".join(map(str, lines))) + end)
    sys.stdout.flush()


def complain(text: object) -> None:
    """Print a line to stderr."""
    sys.stderr.write(printable_lines(text) + "\n")


def _show_bug(*exc_info) -> None:
    complain("".join(traceback.format_exception(*exc_info)).rstrip("\n"))


def run_tool(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit: 0 or what it returns, 1 and one sentence for a user's mistake, 130 for Ctrl-C."""
    make_logs_printable()
    sys.excepthook = _show_bug
    try:
        code = main() or 0
    except UserError as e:
        complain(f"error: {e}")
        code = EXIT_USER_ERROR
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; Python would complain once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_USER_ERROR
    except OSError as e:
        sentence = explain_full_disk(e)
        if sentence is None:
            raise
        complain(f"error: {printable(sentence)}")
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        complain("interrupted")
        code = EXIT_INTERRUPTED
    sys.exit(code)


def explain_full_disk(error: OSError) -> str | None:
    """A sentence for the user where that is what the error is about."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    return f"no room is left to write {error.filename or 'the results'}; make some and try again."


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of detectron2's launcher, by the same names."""
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="processes per machine, one for each GPU")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines in all")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="I", help="this machine's number, from 0")
    parser.add_argument(
        "--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0; auto: a free port, one machine"
    )


def add_opts_argument(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` take ``KEY VALUE`` pairs after all flags, as ``args.opts``; see :func:`check_opts`."""
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys and values, after all flags, e.g. SOLVER.MAX_ITER 1000",
    )


def check_opts(parser: argparse.ArgumentParser, opts: list[str]) -> None:
    """End with a usage error when a flag stands among the ``KEY VALUE`` pairs, where argparse would swallow it."""
    for value in opts:
        if value.startswith("--"):
            parser.error(f"{value} stands after a KEY VALUE pair; flags must stand before the pairs")
