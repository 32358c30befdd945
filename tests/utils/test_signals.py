import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from parking.utils.signals import interrupts_held_back


@pytest.mark.parametrize("num_threads", [0, 3])
def test_an_interrupt_waits_for_the_end_of_the_block(num_threads):
    """Other threads do not block it, so it comes by way of one of them."""
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
