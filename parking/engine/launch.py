"""Run a function in one process for each GPU, and end this process as those processes have ended."""

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

# Largest number of processes on a machine without GPUs, where more than one is only useful for trials. Each process
# takes half a GB of memory.
_MAX_PROCESSES = 64
# After one process has failed, the others have this long to end by themselves; they then get SIGTERM and, after this
# long again, SIGKILL.
_GRACE_SECONDS = 10.0

# Endings of the files in which processes record why they ended. _LOST means that another process could not be reached.
_KINDS = _USER_ERROR, _LOST, _TRACEBACK, _INTERRUPTED = ".user_error", ".lost", ".traceback", ".interrupted"
_RESULT = "result.json"


def launch(main: Callable[[argparse.Namespace], int | None], args: argparse.Namespace) -> int | None:
    """Call ``main(args)`` in ``args.num_gpus`` processes on each of ``args.num_machines`` machines.

    Without GPUs, the processes run on the CPU and exchange gradients by gloo. Each Ctrl-C reaches every process once,
    whether it was typed in a terminal or sent to this process alone, and this process waits until all others have
    ended. Call this from the main thread.

    Returns:
        What ``main`` returned, an exit code or None, in the first process on this machine.

    Raises:
        UserError: there are fewer GPUs than asked for, or a process raised a UserError or was killed.
        KeyboardInterrupt: a process ended with it.
        SystemExit: a process failed otherwise; the message is the traceback of that process. If nothing catches this
            exception, Python prints the message and exits with code 1.
    """
    num_found = torch.cuda.device_count()
    most = num_found or max(_MAX_PROCESSES, num_available_cpus())
    if not 1 <= args.num_gpus <= most:
        found = f"this machine has {num_found} GPUs" if num_found else "without GPUs it counts processes"
        raise UserError(f"--num-gpus is {args.num_gpus}; {found}, and it must be from 1 to {most}.")
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
            # Unlike detectron2's launch(), give the other processes time to end after the first error.
            context = _start((main, args, record_folder), args.num_gpus)
            codes = _wait_for_first_failure(context)
            while not context.join(grace_period=_GRACE_SECONDS):
                pass
        except ProcessException:
            _end_like(codes, record_folder)
        return json.loads(Path(record_folder, _RESULT).read_text())


@contextmanager
def _interrupts_passed_on() -> Iterator[None]:
    # This handler raises no error, so that Ctrl-C cannot interrupt join() halfway.
    def pass_on(signum, frame) -> None:
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGINT)

    previous = signal.signal(signal.SIGINT, pass_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _start(args: tuple, num_processes: int):
    """Start the processes with SIGINT blocked; a Ctrl-C during their imports waits until `_run` unblocks SIGINT."""
    # Start multiprocessing's resource tracker beforehand. Otherwise, it would start along with the first process, and
    # its start would unblock SIGINT before that process exists.
    resource_tracker.ensure_running()
    with interrupts_held_back():
        return start_processes(_run, args=args, nprocs=num_processes, join=False)


def _run(local_rank: int, main: Callable, args: argparse.Namespace, record_folder: str) -> None:
    # Leave the terminal's process group, or Ctrl-C would come twice: from the terminal and from the parent process.
    os.setpgrp()
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        # torch has asked the kernel to send SIGINT when the parent dies; check whether the parent died before this.
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
    # Begin the name with the time, so that names sort by it; the clock is the same in all processes.
    Path(folder, f"{time.monotonic_ns():020d}-{local_rank}{kind}").write_text(text, encoding="utf-8")


def _wait_for_first_failure(context) -> dict[int, int]:
    """Wait until a process fails or all have ended; return a dict from local rank to exit code, {} if none failed."""
    running = dict(enumerate(context.processes))
    while running:
        wait([process.sentinel for process in running.values()])
        codes = {rank: process.exitcode for rank, process in running.items() if process.exitcode is not None}
        if any(codes.values()):
            return codes
        running = {rank: process for rank, process in running.items() if rank not in codes}
    return {}


def _end_like(codes: Mapping[int, int], record_folder: str | os.PathLike) -> None:
    """Raise the error that lets this process end in the same way as the process that failed first.

    Args:
        codes: from :func:`_wait_for_first_failure`.
        record_folder: folder with the records of why processes ended.
    """
    records = sorted(path for path in Path(record_folder).iterdir() if path.suffix in _KINDS)
    # Ignore the exit code of a process that has left a record: a thread of gloo may have aborted the process while it
    # was ending, and then the exit code tells nothing.
    unexplained = {
        rank: code for rank, code in codes.items() if code and not any(r.stem.endswith(f"-{rank}") for r in records)
    }
    for rank, code in unexplained.items():
        if code < 0:
            if rank == 0:
                complain("")  # end the line in which the progress bar of process 0 may have stopped
            raise UserError(
                f"process {rank} was killed by {name_signal(-code)}; the system sends SIGKILL when memory runs out: "
                "free some, or use smaller batches and fewer data workers."
            ) from None
    # The earliest record states the cause, except that a lost connection is always the consequence of something else.
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
