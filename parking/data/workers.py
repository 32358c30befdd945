"""Load batches by worker processes; if a worker dies or hangs, the run ends with an error that says why.

This replaces torch's ``DataLoader``, which has three faults: it waits for ever for a batch that a worker could not hand
over (full shared memory, a limit of file sizes), its processes share locks that a killed process leaves locked, and it
reports a broken connection by whatever error this happens to cause. Here each worker has its own socket and shares
nothing else. A batch is handed over as an anonymous file in memory, because ``/dev/shm`` of a container may have only
64 MB.
"""

import io
import mmap
import multiprocessing
import os
import pickle
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import util
from multiprocessing.connection import wait
from typing import Any

import cv2
import torch
from torch.utils.data import BatchSampler

from parking.utils.errors import UserError
from parking.utils.processes import interrupts_held_back, name_signal

#: Seconds after which a worker that has handed over nothing counts as stuck. A batch takes seconds; a disk that spins
#: up or a network drive that reconnects takes minutes.
MAX_SILENT_SECONDS = 1800.0
# Number of batches that each worker makes ahead.
_NUM_AHEAD = 2
# Number of batches that are put into pinned memory ahead of the GPU.
_NUM_PINNED_AHEAD = 2
# Seconds that a worker has to end by itself; seconds after which a waiting worker checks if its parent is alive.
_END_SECONDS, _LOOK_SECONDS = 5.0, 5.0
# Largest size of a message in bytes (sockets allow about 200 kB); largest length of an error's text in characters.
_MAX_MESSAGE_BYTES, _MAX_ERROR_LENGTH = 2**17, 2**14
# Each array begins at a multiple of this many bytes in the file of its batch.
_ALIGNMENT = 64


class WorkerLoader:
    """Yields batches of a map-style data set in the order of a sampler; worker processes make the batches ahead.

    Attributes:
        dataset, sampler, num_workers: the arguments.
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
    ):
        """
        Args:
            sampler: indices of ``dataset``; may be endless. Each iteration over the loader iterates over it once.
            num_workers: 0: batches are made in this process when they are asked for.
            collate: makes a batch of a list of items.
            pin_memory: put the ``image`` of each dict of a batch into pinned memory, for a GPU (if there is one).
        """
        self.dataset, self.sampler, self.num_workers = dataset, sampler, num_workers
        self._batches = BatchSampler(sampler, batch_size, drop_last=False)
        self._collate = collate
        self._pin_memory = pin_memory and torch.cuda.is_available()

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator:
        """Return a new iterator over the batches, whose workers end when the iterator is closed or deleted.

        Raises, also while iterating:
            UserError: a worker was killed, is stuck, or cannot be started.
        """
        if not self.num_workers:
            return map(self.fetch, self._batches)
        batches = _WorkerIterator(self, iter(self._batches))
        return _pin_ahead(batches, torch.cuda.current_device()) if self._pin_memory else batches

    def fetch(self, indices: Sequence[int]) -> Any:
        """Make one batch, in this process."""
        return self._collate([self.dataset[i] for i in indices])


class _WorkerIterator:
    def __init__(self, loader: WorkerLoader, batches: Iterator[list[int]]):
        self._batches = batches
        self._workers: list[_Worker] = []
        # For each batch that was asked for and has not arrived, in order: the worker that makes it.
        self._owing: deque[_Worker] = deque()
        self._num_asked = 0
        # If Python exits before `close` is called, this ends the workers before multiprocessing sends SIGTERM to them.
        self._finalizer = util.Finalize(self, _end_workers, args=(self._workers,), exitpriority=100)
        try:
            # Ctrl-C must neither get lost during a fork nor reach a worker: only this process reacts to it.
            with interrupts_held_back():
                for i in range(loader.num_workers):
                    self._workers.append(_Worker(loader, i))
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
        batch = self._owing.popleft().receive()
        self._ask()
        return batch

    def hang_up(self) -> None:
        """Make each worker end after its current batch; a thread that waits in ``next`` then gets an error."""
        for worker in self._workers:
            worker.hang_up()

    def close(self) -> None:
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
    """Starts a worker process, asks it for batches and takes them."""

    def __init__(self, loader: WorkerLoader, number: int):
        self._num_workers = loader.num_workers
        # A message over SOCK_SEQPACKET arrives whole or not at all.
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        try:
            # Fork, so that the worker shares the data set with this process. If it were spawned, it would import all
            # modules anew and get a copy of the data set.
            self._process = multiprocessing.get_context("fork").Process(
                target=_work, args=(other, loader.fetch, os.getpid()), name=f"data worker {number}", daemon=True
            )
            self._process.start()
        except BaseException:
            self._socket.close()
            raise
        finally:
            other.close()

    def ask(self, indices: list[int]) -> None:
        # If the worker has ended, `receive` will raise an error that says so.
        with suppress(ConnectionError):
            self._socket.send(pickle.dumps(indices))

    def receive(self) -> Any:
        """Wait for the next batch; raise what the worker raised, or a UserError if no batch will come."""
        if not wait([self._socket, self._process.sentinel], MAX_SILENT_SECONDS):
            raise UserError(
                f"A data worker (process {self._process.pid}) has made no batch for {MAX_SILENT_SECONDS / 60:g} "
                "minutes; it was stopped, or the disk that it reads from does not answer."
            )
        try:
            content, descriptors, _, _ = socket.recv_fds(self._socket, _MAX_MESSAGE_BYTES, 1)
        except (BlockingIOError, ConnectionError):
            content = b""
        if not content:
            raise self._describe_death()
        message = pickle.loads(content)
        if isinstance(message, Exception):
            raise message
        if not descriptors:
            # The system drops the descriptor if this process must not open more files.
            raise UserError("Too many files are open to take a batch from a data worker; raise ulimit -n.")
        return _read_from_memory(descriptors[0], message)

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

    def hang_up(self) -> None:
        # Unlike close(), this reaches the worker even if processes that were forked later have copies of this socket.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self, deadline: float) -> None:
        self._socket.close()
        self._process.join(max(deadline - time.monotonic(), 0))
        if self._process.is_alive():
            self._process.kill()  # a stopped process would not react to SIGTERM
            self._process.join(_END_SECONDS)


def _end_workers(workers: Sequence[_Worker]) -> None:
    for worker in workers:
        worker.hang_up()
    deadline = time.monotonic() + _END_SECONDS
    for worker in workers:
        worker.end(deadline)


def _pin_ahead(batches: _WorkerIterator, device: int) -> Iterator[list[dict]]:
    """Yield ``batches``; ahead of time, a thread puts the ``image`` of each dict into pinned memory."""

    def fetch() -> list[dict] | None:
        torch.cuda.set_device(device)  # each thread has its own current device
        batch = next(batches, None)
        return None if batch is None else [_pin(inputs) for inputs in batch]

    with ThreadPoolExecutor(1, thread_name_prefix="pinning") as pool:
        try:
            ahead = deque(pool.submit(fetch) for _ in range(_NUM_PINNED_AHEAD))
            while (batch := ahead.popleft().result()) is not None:
                ahead.append(pool.submit(fetch))
                yield batch
        finally:
            batches.hang_up()
            pool.shutdown(cancel_futures=True)
            batches.close()


def _pin(inputs: dict) -> dict:
    return {**inputs, "image": inputs["image"].pin_memory()} if "image" in inputs else inputs


def _work(connection: socket.socket, fetch: Callable, parent: int) -> None:
    """Make batches in a worker process until the parent hangs up or has ended."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    connection.settimeout(_LOOK_SECONDS)
    with suppress(ConnectionError):  # raised once the parent has hung up
        while os.getppid() == parent:
            try:
                request = connection.recv(_MAX_MESSAGE_BYTES)
            except TimeoutError:
                continue
            if not request:
                return
            _answer(connection, lambda request=request: fetch(pickle.loads(request)))


def _answer(connection: socket.socket, make_batch: Callable[[], Any]) -> None:
    """Send a batch, or the error that making it raised."""
    descriptors = []
    try:
        descriptor, message = _write_in_memory(make_batch())
        descriptors.append(descriptor)
    except UserError as e:
        message = e
    except MemoryError as e:
        message = MemoryError(str(e))
    except Exception:
        # Send a text instead of the error itself, because some errors cannot be unpickled.
        message = RuntimeError(f"A data worker failed:\n{traceback.format_exc()[-_MAX_ERROR_LENGTH:]}")
    try:
        socket.send_fds(connection, [pickle.dumps(message)], descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


class _Pickler(pickle.Pickler):
    def reducer_override(self, obj):
        if type(obj) is torch.Tensor:
            return torch.from_numpy, (obj.detach().numpy(),)
        return NotImplemented


def _write_in_memory(batch: Any) -> tuple[int, int]:
    """Write a batch into a new file in memory; return the file's descriptor and the offset of its list of arrays."""
    arrays: list[memoryview] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=lambda buffer: arrays.append(buffer.raw())).dump(batch)
    descriptor = os.memfd_create("batch")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            places = []
            for array in arrays:
                places.append((file.seek(-(-file.tell() // _ALIGNMENT) * _ALIGNMENT), array.nbytes))
                file.write(array)
            start = file.tell()
            file.write(pickle.dumps((stream.getvalue(), places)))
    except OSError as e:
        os.close(descriptor)
        size = sum(array.nbytes for array in arrays)
        raise UserError(
            f"A data worker cannot hand over a batch of {size / 1e6:.1f} MB ({e.strerror or e}): memory is full, or a "
            "limit of file sizes (ulimit -f) is too low; raise it, or set DATALOADER.NUM_WORKERS 0."
        ) from e
    return descriptor, start


def _read_from_memory(descriptor: int, start: int) -> Any:
    """Return the batch that :func:`_write_in_memory` wrote; its arrays keep the file alive."""
    try:
        memory = memoryview(mmap.mmap(descriptor, 0))
    except OSError as e:
        size = os.fstat(descriptor).st_size
        raise UserError(
            f"There is no memory for a batch of {size / 1e6:.1f} MB from a data worker ({e.strerror or e}); lower "
            "DATALOADER.NUM_WORKERS."
        ) from e
    finally:
        os.close(descriptor)
    stream, places = pickle.loads(memory[start:])
    return pickle.loads(stream, buffers=[memory[place : place + size] for place, size in places])
