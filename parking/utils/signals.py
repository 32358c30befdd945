"""Ctrl-C where it must not come in between, and the names of signals."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """SIGINT waits until the block ends; processes and threads started in it leave SIGINT to this one."""
    came: list[int] = []
    # The mask is what processes and threads inherit. It is this thread's alone: SIGINT comes by way of any other one,
    # of a progress bar or of OpenMP, and Python calls the handler in the main thread.
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
    """Such as SIGKILL."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
