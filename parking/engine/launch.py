"""Run a function in one process, or in one per GPU; errors of a process become this process's."""

import argparse
import os
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import launch as d2_launch
from detectron2.utils import comm
from torch.multiprocessing import ProcessExitedException

from parking.utils.cli import EXIT_INTERRUPTED, EXIT_USER_ERROR
from parking.utils.errors import UserError


def launch(main: Callable[[argparse.Namespace], Any], args: argparse.Namespace) -> None:
    """Call ``main(args)`` in ``args.num_gpus`` processes on each of ``args.num_machines`` machines.

    Without a GPU the processes run on the CPU and exchange gradients over gloo.

    Raises:
        UserError: there are fewer GPUs than asked for, or a process raised one.
        SystemExit: a process ended otherwise, whose traceback is then on stderr; the code is that of the process.
    """
    if args.num_gpus < 1:
        raise UserError(f"--num-gpus is {args.num_gpus}; it counts processes and is at least 1, also without a GPU.")
    num_found = torch.cuda.device_count()
    if num_found and args.num_gpus > num_found:
        raise UserError(f"--num-gpus is {args.num_gpus}, but this machine has {num_found} GPUs.")
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError("--dist-url auto is for one machine; with several, give tcp://HOST:PORT of machine 0.")
    if args.num_gpus * args.num_machines == 1:
        main(args)
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            d2_launch(
                _run,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=_free_local_url() if args.dist_url == "auto" else args.dist_url,
                args=(main, args, folder),
            )
        except ProcessExitedException as e:
            _raise_as_own(e, folder)


def _free_local_url() -> str:
    # detectron2's "auto" draws a port at random without looking whether it is taken.
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{s.getsockname()[1]}"


def _run(main: Callable, args: argparse.Namespace, error_folder: str) -> None:
    if not torch.cuda.is_available():
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // comm.get_local_size()))
    try:
        main(args)
    except UserError as e:
        Path(error_folder, f"rank{comm.get_rank()}").write_text(str(e), encoding="utf-8")
        sys.exit(EXIT_USER_ERROR)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)


def _raise_as_own(exited: ProcessExitedException, error_folder: str) -> None:
    errors = sorted(Path(error_folder).iterdir())
    if errors:
        raise UserError(errors[0].read_text(encoding="utf-8")) from None
    if exited.exit_code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt from None
    sys.exit(exited.exit_code)
