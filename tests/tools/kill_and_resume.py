"""Train once without and once with interruption by SIGKILL, in forked processes, which saves the imports of each.

Usage: kill_and_resume.py FOLDER NUM_KILLS CONFIG_FILE [KEY VALUE ...]; the results are FOLDER/whole and FOLDER/killed.

The moments are random numbers of Python calls and returns rather than times: so they do not depend on the machine.
"""

import argparse
import os
import random
import signal
import sys
import traceback
from pathlib import Path

from parking.engine import run_training


def run_forked(function, *, log, on_event):
    """Call ``function``, whose result is the exit code, in a process that is profiled by ``on_event``."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgrp()  # to be killed with its data workers
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    code = 1
    try:
        sys.setprofile(lambda frame, event, arg: on_event())
        code = function() or 0
        sys.setprofile(None)
        print(f"events: {on_event()}", flush=True)
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def start(config_file, opts, output_dir, **how):
    """A process that trains, or goes on where the training in ``output_dir`` has begun."""
    args = argparse.Namespace(
        config_file=config_file,
        opts=[*opts, "OUTPUT_DIR", str(output_dir)],
        stage=None,
        eval_only=False,
        overwrite=False,
        resume=any(output_dir.rglob("config.yaml")),
    )
    return run_forked(lambda: run_training(args) and None, **how)


def make_counter(limit=None):
    """A function that counts its calls, kills this process group at the ``limit``, and returns the count."""
    count = 0

    def on_event():
        nonlocal count
        count += 1
        if count == limit:
            os.killpg(0, signal.SIGKILL)
        return count

    return on_event


def wait(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def finish(pid):
    code = wait(pid)
    if code:
        sys.exit(f"a training ended with {code}")


def main():
    folder, num_kills, config_file, *opts = sys.argv[1:]
    folder, num_kills = Path(folder), int(num_kills)
    whole, killed = folder / "whole", folder / "killed"
    finish(start(config_file, opts, whole, log=folder / "whole.log", on_event=make_counter()))
    num_events = int((folder / "whole.log").read_text().rpartition("events: ")[2])

    rng = random.Random(0)
    for _ in range(num_kills):
        # A run mostly starts up and evaluates: with a lower limit, most would be killed before their first checkpoint.
        counter = make_counter(limit=rng.randrange(1, num_events * 2 // 5))
        code = wait(start(config_file, opts, killed, log=folder / "killed.log", on_event=counter))
        checkpoints = sorted(str(path.relative_to(killed)) for path in killed.rglob("model_0*"))
        print("killed" if code == -signal.SIGKILL else f"ended with {code}", *checkpoints)
    finish(start(config_file, opts, killed, log=folder / "killed.log", on_event=make_counter()))


if __name__ == "__main__":
    main()
