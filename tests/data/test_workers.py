"""Data workers that die, stop or cannot hand over what they have made."""

import os
import resource
import signal
import threading

import numpy as np
import pytest
import torch

from parking.data import workers
from parking.data.workers import WorkerLoader
from parking.utils.errors import UserError


class Items:
    """Item i is a picture of values i; ``harm(i)`` is called in the process that makes it."""

    def __init__(self, harm=lambda i: None, side=100):
        self.harm, self.side = harm, side

    def __getitem__(self, i):
        self.harm(i)
        return {"id": i, "image": torch.full((3, self.side, self.side), i, dtype=torch.uint8), "array": np.arange(i)}

    def __len__(self):
        return 100


def read(loader):
    batches = iter(loader)
    try:
        return list(batches)
    finally:
        if hasattr(batches, "close"):
            batches.close()


def at_five(action):
    return lambda i: action() if i == 5 else None


@pytest.mark.parametrize("num_workers", [0, 1, 2, 3, 5, 8])
def test_batches_come_whole_and_in_order(num_workers):
    loader = WorkerLoader(Items(), range(11), num_workers=num_workers, batch_size=2)
    assert len(loader) == 6
    items = [item for batch in read(loader) for item in batch]
    assert [item["id"] for item in items] == list(range(11))
    for item in items:
        assert (item["image"] == item["id"]).all() and item["image"].shape == (3, 100, 100)
        assert item["array"].tolist() == list(range(item["id"]))
        item["image"] += 1  # what is received can be written to


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_a_worker_that_is_killed_is_told(number):
    loader = WorkerLoader(Items(at_five(lambda: os.kill(os.getpid(), number))), range(9), num_workers=2)
    with pytest.raises(UserError, match=rf"process \d+\) was killed by {number.name}"):
        read(loader)


def test_a_worker_that_exits_is_told():
    loader = WorkerLoader(Items(at_five(lambda: os._exit(7))), range(9), num_workers=2)
    with pytest.raises(UserError, match=r"ended by itself with exit code 7"):
        read(loader)


def test_a_worker_that_is_killed_while_it_hands_over_a_batch_is_told(monkeypatch):
    # Called in the worker, which is forked after this.
    monkeypatch.setattr(workers.socket, "send_fds", lambda *args: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(UserError, match="was killed by SIGKILL"):
        read(WorkerLoader(Items(), range(9), num_workers=2))


def test_a_worker_that_stops_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(workers, "MAX_SILENT_SECONDS", 1.0)
    monkeypatch.setattr(workers, "_END_SECONDS", 0.5)
    loader = WorkerLoader(Items(at_five(lambda: os.kill(os.getpid(), signal.SIGSTOP))), range(9), num_workers=2)
    with pytest.raises(UserError, match="has made no batch for"):
        read(loader)


def test_a_limit_of_file_sizes_is_told():
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    with pytest.raises(UserError, match="ulimit -f"):
        read(WorkerLoader(Items(at_five(limit)), range(9), num_workers=2))


def test_what_a_worker_raises_is_raised():
    def refuse():
        raise UserError("image a.png is damaged.")

    class Odd(Exception):  # of this function: it cannot be pickled
        pass

    def fail():
        raise Odd("why")

    with pytest.raises(UserError, match=r"^image a\.png is damaged\.$"):
        read(WorkerLoader(Items(at_five(refuse)), range(9), num_workers=2))
    with pytest.raises(RuntimeError, match="Odd: why"):
        read(WorkerLoader(Items(at_five(fail)), range(9), num_workers=2))
    # The tools have a sentence for a lack of memory.
    with pytest.raises(MemoryError, match="Unable to allocate"):
        read(WorkerLoader(Items(at_five(lambda: np.empty(10**15))), range(9), num_workers=2))


def test_nothing_is_left_of_a_loader_that_is_not_read_to_its_end():
    num_threads, num_files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        batches = iter(WorkerLoader(Items(), range(90), num_workers=2))
        next(batches)
        pids = [worker._process.pid for worker in batches._workers]
        del batches
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
    assert threading.active_count() == num_threads
    assert len(os.listdir("/proc/self/fd")) <= num_files + 1
