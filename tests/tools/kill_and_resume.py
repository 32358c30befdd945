"""Train once without and once with interruption by SIGKILL, in forked processes, which saves the imports of each.

Usage: kill_and_resume.py FOLDER NUM_KILLS CONFIG_FILE [KEY VALUE ...]; the results are FOLDER/whole and FOLDER/killed.
"""

import argparse
import os
import random
import signal
import sys
import time
from pathlib import Path

from parking.engine import run_training


def start(config_file, opts, output_dir, *, log):
    """A process that trains, or goes on where the training in ``output_dir`` has begun."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgrp()  # to be killed with its data workers
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
    os.dup2(1, 2)
    args = argparse.Namespace(
        config_file=config_file,
        opts=[*opts, "OUTPUT_DIR", str(output_dir)],
        stage=None,
        eval_only=False,
        overwrite=False,
        resume=any(output_dir.rglob("config.yaml")),
    )
    code = 1
    try:
        run_training(args)
        code = 0
    finally:
        os._exit(code)


def finish(pid):
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        sys.exit(f"a training ended with {code}")


def main():
    folder, num_kills, config_file, *opts = sys.argv[1:]
    folder = Path(folder)
    whole, killed = folder / "whole", folder / "killed"
    began = time.monotonic()
    finish(start(config_file, opts, whole, log=folder / "whole.log"))
    duration = time.monotonic() - began

    rng = random.Random(int(os.environ.get("KILL_SEED", "0")))
    for _ in range(int(num_kills)):
        pid = start(config_file, opts, killed, log=folder / "killed.log")
        time.sleep(rng.uniform(0, duration / 5))
        os.killpg(pid, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        checkpoints = sorted(str(path.relative_to(killed)) for path in killed.rglob("model_0*"))
        print("killed" if ended == -signal.SIGKILL else f"had ended with {ended}", *checkpoints)
    finish(start(config_file, opts, killed, log=folder / "killed.log"))


if __name__ == "__main__":
    main()
