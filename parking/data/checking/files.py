"""Decoding all image files once, in parallel processes."""

import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import cv2

from parking.data.image_io import ImageFacts, inspect_image
from parking.utils.errors import UserError

# Images that a process fetches at once: enough to make little of the way there and back, and for a bar that moves.
_CHUNK = 8


def inspect_images(
    paths: Sequence[str], *, num_workers: int, progress: Callable[[int], object] = lambda count: None
) -> list[ImageFacts]:
    """What :func:`~parking.data.image_io.inspect_image` says of each file, in the order of ``paths``.

    Args:
        num_workers: processes; 1: this one.
        progress: called with the number of files done since the last call.

    Raises:
        UserError: a process was ended from outside, as the system does where memory runs out.
    """
    facts = []
    if num_workers <= 1 or len(paths) <= _CHUNK:
        for path in paths:
            facts.append(inspect_image(path))
            progress(1)
        return facts
    # Not fork: a forked copy of a process that runs threads may hang.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(min(num_workers, len(paths)), context, _start_worker) as pool:
        try:
            for found in pool.map(inspect_image, paths, chunksize=_CHUNK):
                facts.append(found)
                progress(1)
        except BrokenProcessPool as e:
            raise UserError(
                f"A process that reads images was ended after {len(facts)} of {len(paths)} of them, probably for want "
                "of memory; use a smaller --num-workers."
            ) from e
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
    return facts


def _start_worker() -> None:
    # Ctrl-C reaches every process of the terminal; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
