"""A data loader whose worker processes may die or stop in any way: the run then ends, at once, and says why.

It takes the place of torch's ``DataLoader``, which waits for ever for a batch that a worker could not hand over (full
shared memory, a limit of file sizes), whose processes share locks that a killed one leaves locked, and which ends by
whatever error the broken connection happens to give. Here each worker has a socket of its own and shares nothing else.
Arrays travel in anonymous files in memory, which do not lie in ``/dev/shm``, of which a container may have 64 MB.
"""

import io
import mmap
import multiprocessing
import os
import pickle
import random
import signal
import socket
import struct
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import reduction, util
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback
from typing import Any

import cv2
import numpy as np
import torch

from parking.utils.errors import UserError
from parking.utils.processes import interrupts_held_back, name_signal

#: Seconds after which a worker that has handed over nothing counts as stuck. A batch takes seconds; a disk that spins
#: up or a network drive that reconnects takes minutes.
MAX_SILENT_SECONDS = 1800.0
# Batches that each worker makes ahead.
_NUM_AHEAD = 2
# Batches in pinned memory ahead of the GPU.
_NUM_PINNED_AHEAD = 2
# Seconds that a worker has to end by itself; seconds between its checks whether its parent is alive.
_END_SECONDS, _LOOK_SECONDS = 5.0, 5.0
# Seconds between a waiting thread's checks whether it must stop.
_STOP_LOOK_SECONDS = 0.5
# Arrays of at least this many bytes travel in a file instead of a socket; their alignment in that file.
_MIN_SHARED_BYTES, _ALIGNMENT = 4096, 64


class WorkerLoader:
    """Batches of a map-style data set in the order of a sampler, made ahead by worker processes.

    Attributes:
        dataset, sampler, num_workers: as given.
    """

    def __init__(
        self,
        dataset: Sequence,
        sampler: Iterable[int],
        *,
        num_workers: int,
        batch_size: int = 1,
        collate: Callable[[list], Any] = list,
        pin_memory: bool = False,
        seed: int = 0,
    ):
        """
        Args:
            sampler: positions in ``dataset``, iterated once for each iterator; may be endless.
            num_workers: 0: batches are made in this process when they are asked for.
            collate: makes a batch of a list of items.
            pin_memory: put the ``image`` of each dict of a batch into pinned memory, for a GPU (if there is one).
            seed: of each worker's global generators, together with its number; nothing should draw from them.
        """
        self.dataset, self.sampler, self.num_workers = dataset, sampler, num_workers
        self._batch_size = batch_size
        self._collate = collate
        self._pin_memory = pin_memory and torch.cuda.is_available()
        self._seed = seed

    def __len__(self) -> int:
        return -(-len(self.sampler) // self._batch_size)

    def __iter__(self) -> Iterator:
        """Start an iteration, to be closed or left to the garbage collector.

        Raises, also while iterating:
            UserError: a worker was killed, is stuck, or cannot be started.
        """
        if not self.num_workers:
            return map(self.fetch, self._iterate_batches())
        batches = _WorkerIterator(self, self._iterate_batches(), self._seed)
        return _pin_ahead(batches) if self._pin_memory else batches

    def fetch(self, indices: Sequence[int]) -> Any:
        """Make one batch, in this process."""
        return self._collate([self.dataset[i] for i in indices])

    def _iterate_batches(self) -> Iterator[list[int]]:
        batch = []
        for index in self.sampler:
            batch.append(index)
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch


class _WorkerIterator:
    def __init__(self, loader: WorkerLoader, batches: Iterator[list[int]], seed: int):
        self._batches = batches
        self._workers: list[_Worker] = []
        # The worker that makes each batch asked for, in the order of the batches.
        self._owing: deque[_Worker] = deque()
        self._num_asked = 0
        self._is_closed = False
        # Also runs when Python ends, before multiprocessing sends SIGTERM to remaining processes and waits for them.
        self._finalizer = util.Finalize(self, _end_workers, args=(self._workers,), exitpriority=100)
        try:
            # Ctrl-C must neither get lost during a fork nor reach a worker: this process alone answers it.
            with interrupts_held_back():
                for i in range(loader.num_workers):
                    self._workers.append(_Worker(loader, i, seed + i, self._workers))
        except OSError as e:
            self.close()
            raise UserError(
                f"Data worker {len(self._workers) + 1} of {loader.num_workers} cannot be started ({e.strerror or e}); "
                "lower DATALOADER.NUM_WORKERS."
            ) from e
        for _ in range(_NUM_AHEAD * loader.num_workers):
            self._ask()

    def __iter__(self) -> Iterator:
        return self

    def __next__(self):
        if not self._owing:
            self.close()
            raise StopIteration
        batch = self._owing.popleft().receive(lambda: self._is_closed)
        self._ask()
        return batch

    def stop(self) -> None:
        """Make a ``next`` in which another thread waits raise an error soon."""
        self._is_closed = True

    def close(self) -> None:
        self.stop()
        self._owing.clear()
        self._finalizer()

    def _ask(self) -> None:
        indices = next(self._batches, None)
        if indices is not None:
            worker = self._workers[self._num_asked % len(self._workers)]
            self._num_asked += 1
            worker.ask(indices)
            self._owing.append(worker)


class _Worker:
    """A worker process, seen from the process that takes its batches."""

    def __init__(self, loader: WorkerLoader, number: int, seed: int, earlier: Sequence["_Worker"]):
        self._num_workers = loader.num_workers
        own, others = socket.socketpair()
        with own, others:
            # Limits the wait for a worker that is stopped in the middle of a message.
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(MAX_SILENT_SECONDS), 0))
            self._connection = Connection(own.detach())
            to_close = [self._connection, *(worker._connection for worker in earlier)]
            connection = Connection(others.detach())
            try:
                self._process = multiprocessing.get_context("fork").Process(
                    # Not spawned: each would import everything anew and copy the data set, which forked ones share.
                    target=_work,
                    args=(connection, to_close, loader.fetch, seed, os.getpid()),
                    name=f"data worker {number}",
                    daemon=True,
                )
                self._process.start()
            except BaseException:
                self._connection.close()
                raise
            finally:
                connection.close()

    def ask(self, indices: list[int]) -> None:
        # If the worker is gone, `receive` says so.
        with suppress(OSError):
            self._connection.send(indices)

    def receive(self, should_stop: Callable[[], bool]) -> Any:
        """Wait for the next batch; raise what the worker raised, or a UserError if none will come."""
        deadline = time.monotonic() + MAX_SILENT_SECONDS
        while not wait([self._connection, self._process.sentinel], _STOP_LOOK_SECONDS):
            if should_stop():
                raise UserError("The data loader was closed.")
            if time.monotonic() > deadline:
                raise self._describe_silence()
        try:
            message = self._connection.recv()
            return _unpack(message, self._connection)
        except (EOFError, ConnectionError):
            raise self._describe_death() from None
        except BlockingIOError:
            raise self._describe_silence() from None

    def _describe_death(self) -> UserError:
        self._process.join(_END_SECONDS)
        code = self._process.exitcode
        which = f"A data worker (process {self._process.pid})"
        if code is None or code >= 0:
            return UserError(f"{which} ended by itself" + (f" with exit code {code}." if code is not None else "."))
        remedy = f"if memory was short, lower DATALOADER.NUM_WORKERS (now {self._num_workers})"
        if -code == signal.SIGKILL:
            remedy = f"the system does that when memory runs out: {remedy}"
        return UserError(f"{which} was killed by {name_signal(-code)}; {remedy}.")

    def _describe_silence(self) -> UserError:
        return UserError(
            f"A data worker (process {self._process.pid}) has made no batch for {MAX_SILENT_SECONDS / 60:g} minutes; "
            "it was stopped, or the disk that it reads from does not answer."
        )

    def hang_up(self) -> None:
        self._connection.close()

    def end(self, deadline: float) -> None:
        self._process.join(max(deadline - time.monotonic(), 0))
        if self._process.is_alive():
            self._process.kill()  # SIGTERM would not reach a stopped process
            self._process.join(_END_SECONDS)


def _end_workers(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.hang_up()
    deadline = time.monotonic() + _END_SECONDS
    for worker in workers:
        worker.end(deadline)


def _pin_ahead(batches: _WorkerIterator) -> Iterator[list[dict]]:
    """Batches of dicts with their ``image`` in pinned memory, where a thread puts it ahead of time."""
    return _generate_pinned(batches, torch.cuda.current_device())


def _generate_pinned(batches: _WorkerIterator, device: int) -> Iterator[list[dict]]:
    def fetch() -> list[dict] | None:
        torch.cuda.set_device(device)  # each thread has its own
        batch = next(batches, None)
        return None if batch is None else [_pin(inputs) for inputs in batch]

    with ThreadPoolExecutor(1, thread_name_prefix="pinning") as pool:
        try:
            ahead = deque(pool.submit(fetch) for _ in range(_NUM_PINNED_AHEAD))
            while (batch := ahead.popleft().result()) is not None:
                ahead.append(pool.submit(fetch))
                yield batch
        finally:
            batches.stop()
            pool.shutdown(cancel_futures=True)
            batches.close()


def _pin(inputs: dict) -> dict:
    return {**inputs, "image": inputs["image"].pin_memory()} if "image" in inputs else inputs


def _work(connection: Connection, to_close: Sequence[Connection], fetch: Callable, seed: int, parent: int) -> None:
    """What a worker process does: make batches until its parent hangs up or is gone."""
    # Close the inherited copies of the parent's connections: with them open, no worker would see it hang up.
    for other in to_close:
        other.close()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        while True:
            while not connection.poll(_LOOK_SECONDS):
                if os.getppid() != parent:
                    return
            indices = connection.recv()
            try:
                message, descriptor = _pack(fetch(indices))
            except Exception as e:
                message, descriptor = _pack_error(e), None
            connection.send(message)
            if descriptor is not None:
                reduction.send_handle(connection, descriptor, parent)
                os.close(descriptor)
    except (EOFError, ConnectionError):
        pass  # the parent has hung up


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj):
        if type(obj) is torch.Tensor:
            return torch.from_numpy, (obj.detach().numpy(),)
        return NotImplemented


def _pack(batch) -> tuple[tuple, int | None]:
    """A message, and the descriptor of a file in memory with the large arrays of ``batch``, if it has any."""
    arrays: list[memoryview] = []

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes >= _MIN_SHARED_BYTES:
            arrays.append(raw)
        return raw.nbytes < _MIN_SHARED_BYTES

    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=is_small).dump(batch)
    sizes = [array.nbytes for array in arrays]
    if not arrays:
        return ("batch", stream.getvalue(), sizes), None
    try:
        descriptor = _write_in_memory(arrays)
    except OSError as e:
        raise UserError(
            f"A data worker cannot hand over a batch of {sum(sizes) / 1e6:.1f} MB ({e.strerror or e}): memory is full, "
            "or a limit of file sizes (ulimit -f) is too low; raise it, or set DATALOADER.NUM_WORKERS 0."
        ) from e
    return ("batch", stream.getvalue(), sizes), descriptor


def _write_in_memory(arrays: Sequence[memoryview]) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("batch", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    try:
        for array, start in zip(arrays, _find_starts([array.nbytes for array in arrays]), strict=False):
            done = 0
            while done < array.nbytes:
                done += os.pwrite(descriptor, array[done:], start + done)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _find_starts(sizes: Sequence[int]) -> list[int]:
    """Where arrays of these sizes begin in the file, and where the last one ends."""
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // _ALIGNMENT) * _ALIGNMENT)
    return starts[:-1] + [starts[-2] + sizes[-1]]


def _pack_error(error: Exception) -> tuple:
    try:
        # Some errors cannot be made anew from what pickle keeps of them.
        content = pickle.dumps(ExceptionWithTraceback(error, error.__traceback__))
        pickle.loads(content)
    except Exception:
        text = f"{type(error).__name__}: {error}"
        content = pickle.dumps(ExceptionWithTraceback(RuntimeError(text), error.__traceback__))
    return "error", content, []


def _unpack(message: tuple, connection: Connection) -> Any:
    kind, content, sizes = message
    if kind == "error":
        raise pickle.loads(content)
    if not sizes:
        return pickle.loads(content)
    descriptor = _receive_descriptor(connection)
    try:
        *starts, end = _find_starts(sizes)
        # The mapping lasts as long as any of the arrays.
        memory = memoryview(mmap.mmap(descriptor, end))
    except OSError as e:
        raise UserError(f"A batch of {end / 1e6:.1f} MB finds no room in memory ({e.strerror or e}).") from e
    finally:
        os.close(descriptor)
    return pickle.loads(content, buffers=[memory[i : i + size] for i, size in zip(starts, sizes, strict=True)])


def _receive_descriptor(connection: Connection) -> int:
    try:
        return reduction.recv_handle(connection)
    except RuntimeError as e:
        # The system drops descriptors for which this process has no free number.
        raise UserError("Too many files are open to take a batch from a data worker; raise ulimit -n.") from e
