"""Run tools in worlds of one or more processes, forked from this one, which saves the imports of each.

Usage: worlds.py FOLDER, with a list of runs as JSON on stdin: {"name": ..., "size": processes, "tool": ...,
"args": [...]}. Each process writes what it prints to FOLDER/NAME-RANK.log and its exit code to FOLDER/NAME-RANK.code.
"""

import json
import os
import runpy
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist
from detectron2.utils import comm

import parking.engine
import parking.inference.command  # noqa: F401  (before the forks)

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def start(folder: Path, name: str, size: int, rank: int, tool: str, args: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setpgrp()  # a tool may end its process group
    os.dup2(os.open(folder / f"{name}-{rank}.log", os.O_WRONLY | os.O_CREAT), 1)
    os.dup2(1, 2)
    code = 1
    try:
        if size > 1:
            where = f"file://{folder / name}.meeting"
            dist.init_process_group("gloo", where, timedelta(seconds=120), world_size=size, rank=rank)
            comm.create_local_process_group(size)
        sys.argv = [tool, *args]
        runpy.run_path(str(TOOLS / tool), run_name="__main__")
    except SystemExit as e:
        code = e.code or 0
    finally:
        Path(folder, f"{name}-{rank}.code").write_text(str(code))
        sys.stdout.flush()
        os._exit(0)


def main() -> None:
    folder = Path(sys.argv[1])
    for run in json.load(sys.stdin):
        pids = [start(folder, run["name"], run["size"], rank, run["tool"], run["args"]) for rank in range(run["size"])]
        for pid in pids:
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
