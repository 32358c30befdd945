"""Run a function in one process, or in one per GPU; this process then ends in the same way as they did."""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from pathlib import Path

import torch
from torch.multiprocessing import start_processes
from torch.multiprocessing.spawn import ProcessException

from parking.utils.cli import EXIT_INTERRUPTED, EXIT_USER_ERROR, complain
from parking.utils.errors import UserError, explain, is_lost_connection
from parking.utils.machine import num_available_cpus
from parking.utils.processes import interrupts_held_back, name_signal

from .process_group import join_process_group, parse_dist_url

# Each process takes half a GB at its start. Without GPUs, a few are useful for trying things out.
_MAX_PROCESSES = 64
# After one process failed, the others have this long to end by themselves, and again this long until SIGKILL.
_GRACE_SECONDS = 10.0

# Kinds of record that a process leaves when it ends. _LOST: it could not reach another process.
_KINDS = _USER_ERROR, _LOST, _TRACEBACK, _INTERRUPTED = ".user_error", ".lost", ".traceback", ".interrupted"
_RESULT = "result.json"


def launch(main: Callable[[argparse.Namespace], int | None], args: argparse.Namespace) -> int | None:
    """Call ``main(args)`` in ``args.num_gpus`` processes on each of ``args.num_machines`` machines.

    Returns what ``main`` does, an exit code or None, of the first of several processes on this machine.

    Without a GPU the processes run on the CPU and exchange gradients over gloo. Each Ctrl-C reaches every process once,
    whether it was typed in a terminal or sent to this process alone, and this process waits until they have ended. To
    be called from the main thread.

    Raises:
        UserError: there are fewer GPUs than asked for, or a process raised one or was killed.
        KeyboardInterrupt: a process ended with one.
        SystemExit: a process ended otherwise; its message has the traceback, and python prints it and exits with 1.
    """
    num_found = torch.cuda.device_count()
    most = num_found or max(_MAX_PROCESSES, num_available_cpus())
    if not 1 <= args.num_gpus <= most:
        found = f"this machine has {num_found} GPUs" if num_found else "without GPUs it counts processes"
        raise UserError(f"--num-gpus is {args.num_gpus}; {found}, and it is from 1 to {most}.")
    if not 0 <= args.machine_rank < args.num_machines:
        raise UserError(
            f"--machine-rank is {args.machine_rank}, and --num-machines {args.num_machines}; machines are numbered "
            "from 0 to one less than their number."
        )
    if args.num_machines > 1 and args.dist_url == "auto":
        raise UserError("--dist-url auto is for one machine; with several, give tcp://HOST:PORT of machine 0.")
    if args.num_gpus * args.num_machines == 1:
        return main(args)
    if args.dist_url != "auto":
        parse_dist_url(args.dist_url)
    with tempfile.TemporaryDirectory() as record_folder, _interrupts_passed_on():
        try:
            # detectron2's launch() does the same, but sends SIGTERM to all right after the first error.
            context = _start((main, args, record_folder), args.num_gpus)
            codes = _wait_for_first_failure(context)
            while not context.join(grace_period=_GRACE_SECONDS):
                pass
        except ProcessException:
            _end_like(codes, record_folder)
        return json.loads(Path(record_folder, _RESULT).read_text())


@contextmanager
def _interrupts_passed_on() -> Iterator[None]:
    # A handler that does not raise, so that an interrupt never breaks off the bookkeeping of join().
    def pass_on(signum, frame) -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _start(args: tuple, num_processes: int):
    """Start the processes with SIGINT blocked: a signal during their imports stays pending until `_run` unblocks it."""
    # If the tracker started with the first process, it would unblock SIGINT before that process inherits the mask.
    resource_tracker.ensure_running()
    with interrupts_held_back():
        return start_processes(_run, args=args, nprocs=num_processes, join=False)


def _run(local_rank: int, main: Callable, args: argparse.Namespace, record_folder: str) -> None:
    # Leave the terminal's process group: Ctrl-C would come twice, from the terminal and from the parent process.
    os.setpgrp()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # torch has made the kernel send SIGINT when the parent dies from now on; it may have died before.
        if not multiprocessing.parent_process().is_alive():
            raise KeyboardInterrupt
        _share_cpus(args.num_gpus)
        join_process_group(local_rank, args, record_folder)
        result = main(args)
        if local_rank == 0:
            Path(record_folder, _RESULT).write_text(json.dumps(result))
    except KeyboardInterrupt:
        _record(record_folder, local_rank, _INTERRUPTED, "")
        sys.exit(EXIT_INTERRUPTED)
    except Exception as e:
        sentence = explain(e)
        if sentence is not None:
            _record(record_folder, local_rank, _LOST if is_lost_connection(e) else _USER_ERROR, sentence)
            sys.exit(EXIT_USER_ERROR)
        _record(record_folder, local_rank, _TRACEBACK, f"Process {local_rank} failed:\n{traceback.format_exc()}")
        sys.exit(1)


def _share_cpus(num_processes: int) -> None:
    if torch.cuda.is_available() or "OMP_NUM_THREADS" in os.environ:
        return
    torch.set_num_threads(max(1, num_available_cpus() // num_processes))


def _record(folder: str, local_rank: int, kind: str, text: str) -> None:
    # The clock is the same for all processes, so that names sort by time.
    Path(folder, f"{time.monotonic_ns():020d}-{local_rank}{kind}").write_text(text, encoding="utf-8")


def _wait_for_first_failure(context) -> dict[int, int]:
    """When the first process fails, the exit codes, by local rank, of all that have ended; {} if all succeed."""
    running = dict(enumerate(context.processes))
    while running:
        wait([process.sentinel for process in running.values()])
        codes = {rank: process.exitcode for rank, process in running.items() if process.exitcode is not None}
        if any(codes.values()):
            return codes
        running = {rank: process for rank, process in running.items() if rank not in codes}
    return {}


def _end_like(codes: Mapping[int, int], record_folder: str | os.PathLike) -> None:
    """End this process in the way of the process that failed first.

    Args:
        codes: from :func:`_wait_for_first_failure`.
        record_folder: with what the processes have recorded before they ended.
    """
    records = sorted(path for path in Path(record_folder).iterdir() if path.suffix in _KINDS)
    # If a process left a record and was aborted afterwards, the record says why it ended: now and then a thread of gloo
    # aborts because Python ends before it.
    unexplained = {
        rank: code for rank, code in codes.items() if code and not any(r.stem.endswith(f"-{rank}") for r in records)
    }
    for rank, code in unexplained.items():
        if code < 0:
            if rank == 0:
                complain("")  # its progress bar may have been left in the middle of a line
            raise UserError(
                f"process {rank} was killed by {name_signal(-code)}; the system sends SIGKILL when memory runs out: "
                "free some, or use smaller batches and fewer data workers."
            ) from None
    # The earliest record is the cause, but a lost connection to another process is only ever a consequence.
    causes = [path for path in records if path.suffix != _LOST]
    if not causes and unexplained:
        rank, code = next(iter(unexplained.items()))
        sys.exit(f"process {rank} ended with exit code {code}")
    first = (causes or records)[0]
    text = first.read_text(encoding="utf-8").strip()
    if first.suffix in (_USER_ERROR, _LOST):
        raise UserError(text) from None
    if first.suffix == _INTERRUPTED:
        raise KeyboardInterrupt from None
    sys.exit(text)
