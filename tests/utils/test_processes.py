import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from parking.utils.processes import interrupts_held_back, run_in_processes


def invert(number):
    return 1 / number


@pytest.mark.parametrize(("num_workers", "chunk_size"), [(1, 1), (2, 1), (2, 3)])
def test_results_are_in_order_and_errors_come_through(num_workers, chunk_size):
    done = []
    how = {"num_workers": num_workers, "chunk_size": chunk_size}
    assert run_in_processes(invert, [1, 2, 4, 8], **how, done=done.append) == [1, 0.5, 0.25, 0.125]
    assert done == [1, 2, 4, 8]
    assert run_in_processes(invert, [], **how) == []
    threads = set(threading.enumerate())
    with pytest.raises(ZeroDivisionError):
        run_in_processes(invert, [1, 2, 0, 4], **how)
    # A thread of the pool that is still there when Python ends may fail with a traceback.
    assert not [thread for thread in set(threading.enumerate()) - threads if not thread.daemon]


@pytest.mark.parametrize("num_threads", [0, 3])
def test_an_interrupt_waits_for_the_end_of_the_block(num_threads):
    """Also where other threads do not block SIGINT, so that one of them receives it."""
    done, stop = [], threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_held_back():
            os.kill(os.getpid(), signal.SIGINT)
            for _ in range(1000):
                time.sleep(0)  # Python looks for signals
            done.append("all of it")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, previous)
        stop.set()
        for thread in threads:
            thread.join()
    assert done == ["all of it"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_in_another_thread_there_is_nothing_to_hold_back():
    errors = []

    def use():
        try:
            with interrupts_held_back():
                pass
        except BaseException as e:
            errors.append(e)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert not errors


def test_processes_that_are_started_in_it_are_left_alone():
    with interrupts_held_back():
        child = subprocess.Popen(
            [sys.executable, "-c", "print('here', flush=True); input(); print('still')"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert child.stdout.readline() == "here\n"
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate("\n", timeout=60)
    assert (child.returncode, out) == (0, "still\n")
