"""Run several tools one after the other, each in a forked process, which saves the imports of each.

Usage: run_tools.py COMMANDS.json LOGS; the json holds a list of [name, script, argument, ...], and each process prints
into LOGS/name.log. Prints a line "name exit-code" for each.
"""

import json
import os
import runpy
import sys
from pathlib import Path

import parking.inference.command  # noqa: F401  (what takes long to import)

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run(script, args, log):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 70
    try:
        os.setpgrp()
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        os.dup2(1, 2)
        sys.argv = [script, *args]
        runpy.run_path(str(TOOLS / script), run_name="__main__")
        code = 0
    except SystemExit as e:
        code = e.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def main():
    commands, logs = sys.argv[1:]
    for name, script, *args in json.loads(Path(commands).read_text()):
        print(name, run(script, args, Path(logs, f"{name}.log")), flush=True)


if __name__ == "__main__":
    main()
