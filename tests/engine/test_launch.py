import argparse
import datetime
import importlib
import ipaddress
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from parking.engine import launch
from parking.engine.launch import _end_like, _share_cpus
from parking.engine.process_group import open_store
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

# ``parking.engine.launch`` is the function; this is the module of the same name.
launch_module = sys.modules[launch.__module__]


MALFORMED = [
    *("", "auto2", "tcp://", "tcp://host", "tcp://host:0", "tcp://host:65536", "tcp://host:x", "tcp://:29500"),
    *("udp://host:29500", "file:///tmp/x", "tcp://host:29500/x", "host:29500", "tcp://[::1:29500"),
]


def make_args(**kwargs):
    defaults = {"num_gpus": 2, "num_machines": 1, "machine_rank": 0, "dist_url": "auto"}
    return argparse.Namespace(**{**defaults, **kwargs})


@pytest.fixture
def launched(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    return importlib.import_module("launched")


def test_one_process_is_this_one():
    called_with = []
    args = make_args(num_gpus=1)
    launch(called_with.append, args)
    assert called_with == [args]


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"num_gpus": 0}, "--num-gpus is 0"),
        ({"num_gpus": 3}, "--num-gpus is 3; this machine has 2 GPUs"),
        ({"num_machines": 2}, "give tcp://HOST:PORT of machine 0"),
        ({"num_machines": 2, "machine_rank": 2}, "--machine-rank is 2, and --num-machines 2;"),
        ({"machine_rank": -1}, "--machine-rank is -1"),
        ({"num_machines": 0}, "--num-machines 0"),
        *[({"dist_url": url}, f"--dist-url {re.escape(url)} is not tcp://HOST:PORT") for url in MALFORMED],
        ({"dist_url": "tcp://no-such-host.invalid:29500"}, "no-such-host"),
    ],
)
def test_wrong_flags_are_told(monkeypatch, kwargs, sentence):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=sentence):
        launch(None, make_args(**kwargs))


def test_processes_share_the_cpus_this_one_may_use(monkeypatch):
    counts = []
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    _share_cpus(2)
    _share_cpus(9)
    assert counts == [3, 1]
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 12)
    _share_cpus(2)
    assert counts == [3, 1, 6]
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    _share_cpus(2)
    assert counts == [3, 1, 6], "the user has said how many"


@pytest.mark.long
def test_a_users_mistake_in_a_process_is_told_in_its_own_words(launched, monkeypatch):
    records = []

    def remember_records(ended, folder):
        records.extend((path.suffix, path.read_text()) for path in sorted(Path(folder).iterdir()))
        end_like(ended, folder)

    end_like = launch_module._end_like
    monkeypatch.setattr(launch_module, "_end_like", remember_records)
    with pytest.raises(UserError) as info:
        launch(launched.raise_user_error, make_args())
    assert str(info.value) == "key A is 1; set it to 2."
    # Process 0 lost its connection and had time to record that, too.
    assert [suffix for suffix, _ in records] == [".user_error", ".lost"]
    assert "connection to another process" in records[1][1]


@pytest.mark.long
def test_what_the_first_process_returns_is_returned(launched):
    assert launch(launched.return_seven_and_rank, make_args()) == 7
    assert launch(lambda args: 3, make_args(num_gpus=1)) == 3


@pytest.mark.long
def test_a_patient_barrier_waits_as_long_as_it_is_told(launched):
    launch(launched.let_the_first_wait, make_args(timeout=None))
    with pytest.raises(UserError, match="connection to another process"):
        launch(launched.let_the_first_wait, make_args(timeout=datetime.timedelta(seconds=1)))


@pytest.mark.long
def test_a_full_disk_of_a_process_is_one_sentence(launched):
    with pytest.raises(UserError, match=r"^no room is left to write results\.jsonl; make some and try again\.$"):
        launch(launched.run_out_of_room, make_args())


def test_the_first_record_is_the_cause(tmp_path):
    (tmp_path / "00012-0.user_error").write_text("later.")
    (tmp_path / "00011-1.traceback").write_text("Process 1 failed:\nTraceback ...\nZeroDivisionError: the cause\n")
    # Python prints a code that is text to stderr and exits with 1.
    with pytest.raises(SystemExit, match=r"^Process 1 failed:\nTraceback ...\nZeroDivisionError: the cause$"):
        _end_like({1: 1}, tmp_path)
    (tmp_path / "00010-0.interrupted").touch()
    with pytest.raises(KeyboardInterrupt):
        _end_like({1: 1}, tmp_path)


def test_a_killed_process_is_the_cause_of_what_others_record(tmp_path):
    (tmp_path / "00011-0.lost").write_text("The connection was lost.")
    with pytest.raises(UserError, match=r"^process 1 was killed by SIGKILL"):
        _end_like({0: 1, 1: -9}, tmp_path)


def test_a_process_that_is_aborted_after_its_record_ended_by_what_that_says(tmp_path):
    (tmp_path / "00011-1.interrupted").touch()
    (tmp_path / "00010-0.lost").write_text("The connection was lost.")
    with pytest.raises(KeyboardInterrupt):
        _end_like({1: -6}, tmp_path)


def test_without_a_record_the_exit_code_is_all_there_is(tmp_path):
    (tmp_path / "result.json").write_text("0")  # of another one, which came to its end
    with pytest.raises(SystemExit, match=r"^process 1 ended with exit code 4$"):
        _end_like({1: 4}, tmp_path)


@pytest.fixture
def interrupted_process(launched, tmp_path):
    folders = [tmp_path / "interrupted", tmp_path / "killed"]
    for folder in folders:
        folder.mkdir()
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys, launched; launched.interrupt_and_kill(sys.argv[1:])", *map(str, folders)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A process group of its own, which can be interrupted as a terminal does.
        start_new_session=True,
    )
    yield process, *folders
    process.kill()
    process.communicate()


@pytest.mark.long
def test_interrupts_reach_all_processes_once_and_a_killed_parent_leaves_nobody(interrupted_process):
    process, first, second = interrupted_process

    wait_for(process, first, "ready-0", "ready-1")
    os.killpg(process.pid, signal.SIGINT)
    wait_for(process, first, "interrupt-0-1", "interrupt-1-1")
    time.sleep(0.5)
    assert not list(first.glob("interrupt-*-2")), "from the terminal and from the parent"
    os.kill(process.pid, signal.SIGINT)
    wait_for(process, first, "interrupted")
    # Process 0 wrote "written" after process 1 had ended.
    assert {"interrupt-0-2", "interrupt-1-2", "written"} <= {path.name for path in first.iterdir()}

    wait_for(process, second, "ready-0", "ready-1")
    os.kill(process.pid, signal.SIGINT)
    wait_for(process, second, "interrupt-0-1", "interrupt-1-1")
    process.kill()
    # communicate() returns when the last process that could write to the output has ended.
    output, _ = process.communicate(timeout=30)
    assert {"interrupt-0-2", "interrupt-1-2", "written"} <= {path.name for path in second.iterdir()}
    assert "Traceback" not in output


def wait_for(process, folder, *names):
    deadline = time.monotonic() + 120
    while not all((folder / name).exists() for name in names):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{names} have not all come: {sorted(folder.iterdir())}"
        time.sleep(0.05)


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_on_one_machine_nothing_listens_beyond_loopback(launched, tmp_path):
    launch(launched.note_listening, make_args(folder=str(tmp_path), dist_url="tcp://localhost:29500"))
    for rank in (0, 1):
        addresses = [ipaddress.ip_address(text) for text in (tmp_path / str(rank)).read_text().split()]
        assert addresses and all(
            (a.ipv4_mapped if a.version == 6 and a.ipv4_mapped else a).is_loopback for a in addresses
        )


@pytest.mark.parametrize("is_main", [True, False])
def test_processes_that_never_come_are_told_in_time(is_main):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(UserError, match=rf"{url}.*[Tt]imed out"):
        open_store(url, is_main=is_main, world_size=2, timeout=datetime.timedelta(seconds=1))


def test_a_port_in_use_is_told():
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{url}.*address already in use"):
            open_store(url, is_main=True, world_size=2)
