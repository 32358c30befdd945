"""Shared parts of all command-line tools: output, exit codes, KEY VALUE pairs, flags for several processes."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Mapping

from .errors import UserError, explain
from .logs import make_logs_printable
from .text import printable, printable_lines

EXIT_USER_ERROR = 1
EXIT_UNREADABLE_IMAGES = 3
EXIT_INTERRUPTED = 130

# Environment variables in which launchers state the number of processes that they have started.
_NUM_PROCESSES = {
    "WORLD_SIZE": "torchrun",
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpirun",
}


class ArgumentParser(argparse.ArgumentParser):
    """argparse's parser for a tool; the description is the tool's docstring.

    A flag after a KEY VALUE pair (see :func:`add_opts_argument`) is a usage error; argparse itself would take
    the flag for a key or a value.
    """

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_args(self, args=None, namespace=None):
        parsed = super().parse_args(args, namespace)
        for value in getattr(parsed, "opts", ()):
            if value.startswith("--"):
                self.error(f"{value} stands after a KEY VALUE pair; flags must stand before the pairs")
        return parsed

    def error(self, message: str):
        super().error(printable(message))


def say(*lines: object, end: str = "\n") -> None:
    """Print lines to stdout and flush; tools print only by this function and :func:`complain`."""
    sys.stdout.write(printable_lines("\n".join(map(str, lines))) + end)
    sys.stdout.flush()


def complain(text: object) -> None:
    """Print a line to stderr."""
    sys.stderr.write(printable_lines(text) + "\n")


def _show_bug(*exc_info) -> None:
    complain("".join(traceback.format_exception(*exc_info)).rstrip("\n"))


def run_tool(main: Callable[[], int | None]) -> None:
    """Run ``main`` and exit with its return value or 0; with 1 after a user's mistake; with 130 after Ctrl-C.

    :func:`parking.utils.errors.explain` decides which errors are a user's mistake, and returns the sentence to
    print about each. Other errors are bugs and keep their traceback.
    """
    make_logs_printable()
    sys.excepthook = _show_bug
    try:
        code = main() or 0
    except BrokenPipeError:
        # The reader of our output, such as `head`, has closed it. Redirect stdout, or Python would report a broken pipe
        # again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = EXIT_USER_ERROR
    except KeyboardInterrupt:
        complain("interrupted")
        code = EXIT_INTERRUPTED
    except Exception as e:
        sentence = explain(e)
        if sentence is None:
            raise
        complain(f"error: {sentence}")
        code = EXIT_USER_ERROR
    sys.exit(code)


def check_started_alone(num_machines: int = 1, *, environ: Mapping[str, str] = os.environ) -> None:
    """Raise a UserError if torchrun, srun or mpirun has started more processes than machines.

    Tools start their own processes, one for each GPU. Processes that a launcher starts would not know of each other,
    and all would write to one folder. It is right to start one process on each of ``num_machines``.

    Raises:
        UserError: this is one of several processes.
    """
    for name, launcher in _NUM_PROCESSES.items():
        count = environ.get(name, "")
        if count.isdecimal() and int(count) > max(num_machines, 1):
            raise UserError(
                f"This is one of {count} processes that {launcher} has started, and each would do all of the work; "
                f"start one process, and give --num-gpus {count} to those tools that can share their work."
            )


def at_least(low: int) -> Callable[[str], int]:
    """Return a function to use as an argument's ``type``; it accepts whole numbers of ``low`` or more."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {low} or more")
        return int(text)

    return parse


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags for several GPUs and machines, named as in detectron2's launcher."""
    parser.add_argument("--num-gpus", type=int, default=1, metavar="N", help="processes per machine, one for each GPU")
    parser.add_argument("--num-machines", type=int, default=1, metavar="N", help="machines in all")
    parser.add_argument("--machine-rank", type=int, default=0, metavar="I", help="this machine's number, from 0")
    parser.add_argument(
        "--dist-url", default="auto", metavar="URL", help="tcp://HOST:PORT of machine 0; auto: for one machine only"
    )


def add_opts_argument(parser: argparse.ArgumentParser) -> None:
    """Let ``parser`` accept ``KEY VALUE`` pairs after all flags, and store them as ``args.opts``."""
    parser.add_argument(
        "opts",
        nargs=argparse.REMAINDER,
        metavar="KEY VALUE",
        help="config keys and values, after all flags, e.g. SOLVER.MAX_ITER 1000",
    )
