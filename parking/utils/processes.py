"""Run work in several processes, and control the signals that interrupt them."""

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import TypeVar

import cv2

T, R = TypeVar("T"), TypeVar("R")


def run_in_processes(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    num_workers: int,
    chunk_size: int = 1,
    done: Callable[[T], object] = lambda item: None,
) -> list[R]:
    """Return ``function(item)`` for each item, in order; each process uses one thread of OpenCV.

    If the work fails or is interrupted, the processes are ended.

    Args:
        num_workers: number of processes; with 1, the current process does the work.
        chunk_size: number of items that a process takes at once.
        done: called with each item, in order, when its result has arrived.
    """
    results: list[R] = []

    def collect(found: Iterable[R]) -> None:
        for item, result in zip(items, found, strict=True):
            results.append(result)
            done(item)

    if num_workers <= 1 or len(items) <= chunk_size:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            collect(map(function, items))
        finally:
            cv2.setNumThreads(threads)
        return results
    # Use spawn instead of fork, because a forked copy of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    others, other_threads = set(multiprocessing.active_children()), set(threading.enumerate())
    # Start multiprocessing's resource tracker now, because its start unblocks SIGINT. It would otherwise start just
    # before the first worker, which must start with SIGINT blocked.
    resource_tracker.ensure_running()
    with ProcessPoolExecutor(min(num_workers, len(items)), context, _start_worker) as pool:
        try:
            # Start workers with SIGINT blocked; otherwise Ctrl-C during their imports would make them print tracebacks.
            with interrupts_held_back():
                found = pool.map(function, items, chunksize=chunk_size)
            collect(found)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            # Wait for the pool's thread: if it were still closing its pipe when Python ends, Python would print a
            # traceback. Daemons, such as the thread of a progress bar, go on.
            for thread in set(threading.enumerate()) - other_threads:
                if not thread.daemon:
                    thread.join(timeout=10)
            raise
    return results


def _start_worker() -> None:
    # Ignore Ctrl-C, which reaches every process of the terminal, because the parent reacts to it and ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    cv2.setNumThreads(1)


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Delay SIGINT until the ``with`` block ends; the block starts processes and threads with SIGINT blocked."""
    came: list[int] = []
    # New processes and threads inherit this thread's mask. Older threads, such as those of a progress bar or of OpenMP,
    # still receive SIGINT, and Python then calls the handler in the main thread; so replace the handler, too.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    handler = signal.getsignal(signal.SIGINT)
    notes = threading.current_thread() is threading.main_thread() and handler is not None
    if notes:
        signal.signal(signal.SIGINT, lambda signum, frame: came.append(signum))
    try:
        yield
    finally:
        if notes:
            signal.signal(signal.SIGINT, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if came:
            signal.raise_signal(signal.SIGINT)


def name_signal(number: int) -> str:
    """Return the name of a signal, such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
