"""Decode all image files once, in parallel processes."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from parking.data.image_io import ImageFacts, inspect_image
from parking.utils.errors import UserError

# Images that a process takes at once: enough to save on messages, and few enough to keep the progress bar moving.
_CHUNK = 8


def inspect_images(
    paths: Sequence[str], *, num_workers: int, progress: Callable[[int], object] = lambda count: None
) -> list[ImageFacts]:
    """Call :func:`~parking.data.image_io.inspect_image` for each file; results are in the order of ``paths``.

    Args:
        num_workers: number of processes; with 1, the current process does the work.
        progress: called with the number of files done since the last call.

    Raises:
        UserError: the system killed a worker process, as it does if memory runs out.
    """
    facts = []
    if num_workers <= 1 or len(paths) <= _CHUNK:
        for path in paths:
            facts.append(inspect_image(path))
            progress(1)
        return facts
    # Not fork, because a forked copy of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(num_workers, len(paths)), context, _start_worker) as pool:
        try:
            for found in pool.map(inspect_image, paths, chunksize=_CHUNK):
                facts.append(found)
                progress(1)
        except BrokenProcessPool as e:
            raise UserError(
                f"The system killed a process that reads images after {len(facts)} of {len(paths)} images, probably "
                "because memory ran out; use a smaller --num-workers."
            ) from e
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
    return facts


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal, but only the parent shall react.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
