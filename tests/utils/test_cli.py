import errno
import re

import pytest

from parking.utils.cli import (
    ArgumentParser,
    add_opts_argument,
    check_started_alone,
    run_tool,
    say,
)
from parking.utils.errors import UserError


def exit_code_of(main):
    with pytest.raises(SystemExit) as info:
        run_tool(main)
    return info.value.code


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3)])
def test_what_main_returns_is_the_exit_code(returned, code, capsys):
    assert exit_code_of(lambda: returned) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UserError("file a.yaml is missing; give one."), 1, r"error: file a\.yaml is missing; give one\.\n"),
        (OSError(errno.ENOSPC, "No space left on device", "out/a.json"), 1, "error: no room .*write out/a.json.*\n"),
        (PermissionError(errno.EACCES, "no permission", "out/a\n.json"), 1, r"error: out/a\\n.json .*permission.*\n"),
        (MemoryError(), 1, "error: .*memory.*\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_is_no_bug_is_told_in_a_line(capsys, error, code, line):
    assert exit_code_of(raising(error)) == code
    assert re.fullmatch(line, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("environ", "count", "launcher"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, 2, "torchrun"),
        ({"SLURM_STEP_NUM_TASKS": "3", "SLURM_NTASKS": "8"}, 3, "srun"),
        ({"OMPI_COMM_WORLD_SIZE": "8"}, 8, "mpirun"),
    ],
)
def test_one_of_several_processes_is_refused(environ, count, launcher):
    with pytest.raises(UserError, match=f"{count} processes that {launcher} has started"):
        check_started_alone(environ=environ)
    with pytest.raises(UserError, match=launcher):
        check_started_alone(count - 1, environ=environ)
    # As many as there are machines: one process on each.
    check_started_alone(count, environ=environ)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WORLD_SIZE": "1", "OMPI_COMM_WORLD_SIZE": "x"},
        {"SLURM_NTASKS": "8"},  # in a batch script or beside salloc: nothing is started 8 times
        {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "8"},  # an interactive shell in a larger allocation
    ],
)
def test_a_process_that_is_alone_is_not_refused(environ):
    check_started_alone(environ=environ)


def test_names_do_not_reach_the_terminal_raw(capsys):
    name = "a\x1b[2J\r\n\u202e.json"
    assert exit_code_of(raising(UserError(f"'{name}' is missing."))) == 1
    assert exit_code_of(lambda: say(f"1 {name!s}", "2")) == 0
    assert exit_code_of(lambda: ArgumentParser(None).parse_args([name])) == 2
    printed = capsys.readouterr()
    assert not set("\x1b\r\u202e") & set(printed.out + printed.err)
    assert printed.err.startswith("error: 'a\\x1b[2J\\r\\n\\u202e.json' is missing.\n")
    assert printed.out == "1 a\\x1b[2J\\r\n\\u202e.json\n2\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 // 0)


def make_opts_parser():
    parser = ArgumentParser(None)
    parser.add_argument("--resume", action="store_true")
    add_opts_argument(parser)
    return parser


def test_pairs_after_flags():
    parser = make_opts_parser()
    args = parser.parse_args(["--resume", "SOLVER.MAX_ITER", "10", "SOLVER.BASE_LR", "-1"])
    assert args.resume
    assert args.opts == ["SOLVER.MAX_ITER", "10", "SOLVER.BASE_LR", "-1"]
    assert parser.parse_args([]).opts == []


def test_a_flag_among_the_pairs_is_an_error(capsys):
    with pytest.raises(SystemExit) as info:
        make_opts_parser().parse_args(["SOLVER.MAX_ITER", "10", "--resume"])
    assert info.value.code == 2
    assert "--resume stands after a KEY VALUE pair" in capsys.readouterr().err
