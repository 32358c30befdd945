import os
import signal
import subprocess
import sys

import pytest

from parking.utils.signals import interrupts_held_back


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_held_back():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("all of it")
    finally:
        signal.signal(signal.SIGINT, previous)
    assert done == ["all of it"]


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
