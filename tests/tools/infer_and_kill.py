"""Infer once without and once with interruptions by SIGKILL, in forked processes, which saves the imports of each.

Usage: infer_and_kill.py FOLDER NUM_KILLS WEIGHTS INPUT [KEY VALUE ...]; the results are FOLDER/whole and FOLDER/killed.

As in ``kill_and_resume.py``, the moments are random numbers of Python calls and returns.
"""

import random
import runpy
import signal
import sys
from pathlib import Path

from kill_and_resume import finish, make_counter, run_forked, wait

import parking.engine  # noqa: F401  (before the forks)
from parking.inference import image_pipeline as inference_run

TOOL = Path(__file__).resolve().parents[2] / "tools" / "infer.py"


def start(args, output, *, log, on_event):
    """A process that infers."""
    weights, images, *opts = args
    argv = ["infer.py", "--input", images, "--weights", weights, "--output", str(output), "--visualize", "3", *opts]
    predict_images = inference_run.predict_images

    def predict_and_tell(*args, **kwargs):
        print(f"events before: {on_event()}", flush=True)
        return predict_images(*args, **kwargs)

    def infer():
        sys.argv, inference_run.predict_images = argv, predict_and_tell
        return runpy.run_path(str(TOOL))["run"]()

    return run_forked(infer, log=log, on_event=on_event)


def main():
    folder, num_kills, *args = sys.argv[1:]
    folder, num_kills = Path(folder), int(num_kills)
    finish(start(args, folder / "whole", log=folder / "whole.log", on_event=make_counter()))
    log = (folder / "whole.log").read_text()
    num_before, num_events = (int(log.rpartition(name)[2].split()[0]) for name in ("events before: ", "events: "))

    rng = random.Random(0)
    for _ in range(num_kills):
        # Setting up takes longer than predicting these few images, and a run that goes on has fewer of them.
        counter = make_counter(limit=rng.randrange(num_before, (num_before + num_events) // 2))
        code = wait(start(args, folder / "killed", log=folder / "killed.log", on_event=counter))
        print("killed" if code == -signal.SIGKILL else f"ended with {code}")
    finish(start(args, folder / "killed", log=folder / "killed.log", on_event=make_counter()))


if __name__ == "__main__":
    main()
