"""Infer once without and once with interruptions by SIGKILL, in forked processes, which saves the imports of each.

Usage: infer_and_kill.py FOLDER NUM_KILLS WEIGHTS INPUT [KEY VALUE ...]; the results are FOLDER/whole and FOLDER/killed.

As in ``kill_and_resume.py``, the moments are random numbers of Python calls and returns.
"""

import os
import random
import runpy
import signal
import sys
from pathlib import Path

from kill_and_resume import finish, make_counter, wait

import parking.engine  # noqa: F401  (before the forks)

TOOL = Path(__file__).resolve().parents[2] / "tools" / "infer.py"


def start(args, output, *, log, on_event):
    """A process that infers, profiled by ``on_event``."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgrp()  # to be killed with its data workers
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    weights, images, *opts = args
    sys.argv = ["infer.py", "--input", images, "--weights", weights, "--output", str(output), "--visualize", "3", *opts]
    code = 1
    try:
        run = runpy.run_path(str(TOOL))["run"]
        sys.setprofile(lambda frame, event, arg: on_event())
        code = run()
        sys.setprofile(None)
        print(f"events: {on_event()}", flush=True)
    finally:
        os._exit(code)


def main():
    folder, num_kills, *args = sys.argv[1:]
    folder, num_kills = Path(folder), int(num_kills)
    finish(start(args, folder / "whole", log=folder / "whole.log", on_event=make_counter()))
    num_events = int((folder / "whole.log").read_text().rpartition("events: ")[2])

    rng = random.Random(0)
    for _ in range(num_kills):
        # A run that goes on has less to do than the first one.
        counter = make_counter(limit=rng.randrange(num_events // 8, num_events))
        code = wait(start(args, folder / "killed", log=folder / "killed.log", on_event=counter))
        print("killed" if code == -signal.SIGKILL else f"ended with {code}")
    finish(start(args, folder / "killed", log=folder / "killed.log", on_event=make_counter()))


if __name__ == "__main__":
    main()
