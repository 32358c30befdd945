"""Choose the config, as it is or with one of TEST.FALLBACKS, that finishes all images within a time limit."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.utils import comm

from parking.config import Task
from parking.config.checks import check_key
from parking.inference.models import check_config
from parking.utils.errors import UserError
from parking.utils.files import explaining_write_errors, open_atomic, read_regular
from parking.utils.limits import MAX_NOTE_BYTES

# A candidate fits if all images, at its measured speed, take at most this share of the remaining time.
_SHARE = 0.95

logger = logging.getLogger(__name__)


class TimeBudget(NamedTuple):
    """A time limit: ``hours`` after ``started``, a value of ``time.monotonic()``."""

    hours: float
    started: float

    @property
    def seconds_left(self) -> float:
        return self.hours * 3600 - (time.monotonic() - self.started)


class Candidate(NamedTuple):
    """A choice of configs, one for each model; ``title`` says what is changed in them."""

    title: str
    cfgs: list


def list_candidates(cfgs: Sequence) -> Iterator[Candidate]:
    """Yield the configs as they are, then once for each entry of TEST.FALLBACKS the configs with this entry applied.

    TEST.FALLBACKS of the first config counts; entries that change none of the configs are left out.

    Raises:
        UserError: a fallback has a key or value that cannot work.
    """
    check_key(cfgs[0], "TEST.FALLBACKS")
    yield Candidate("the config as it is", list(cfgs))
    for opts in cfgs[0].TEST.FALLBACKS:
        changed = []
        for cfg in cfgs:
            cfg = cfg.clone()
            cfg.defrost()
            cfg.merge_from_list(list(opts))
            check_config(cfg, Task.INFER)
            changed.append(cfg)
        if changed != list(cfgs):
            yield Candidate(" ".join(map(str, opts)), changed)


def choose_candidate(
    candidates: Sequence[Candidate],
    measure: Callable[[Candidate], float],
    *,
    num_images: int,
    budget: TimeBudget,
    record: Path,
    recipe: Any,
) -> Candidate:
    """Return the first of ``candidates`` that fits into ``budget``; if none does, the last one, with a warning.

    All processes must call it, and the slowest one decides. The choice is written to the file ``record``, so that an
    interrupted run continues with it.

    Args:
        measure: returns the seconds that this process takes for an image; infinity if it cannot run the candidate.
        recipe: JSON values; a choice found in ``record`` is used only if it was made for the same recipe.

    Raises:
        UserError: not even the last candidate can be run.
    """
    digest = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    # All processes use what the main process has read, because machines may have different files.
    remembered = comm.all_gather(_read(record, digest))[0]
    for candidate in candidates:
        if candidate.title == remembered:
            logger.info("--max-hours: going on with what the interrupted run had chosen, %s", remembered)
            return candidate
    candidate = _choose(candidates, measure, num_images=num_images, budget=budget)
    if comm.get_local_rank() == 0:
        with explaining_write_errors(), open_atomic(record) as file:
            file.write(json.dumps({"recipe": digest, "choice": candidate.title}).encode())
    comm.synchronize()
    return candidate


def _choose(candidates, measure, *, num_images: int, budget: TimeBudget) -> Candidate:
    own_images = math.ceil(num_images / comm.get_world_size())
    seconds: dict[str, float] = {}
    for candidate in candidates:
        if min(comm.all_gather(budget.seconds_left)) <= 0:
            # Stop, because measuring takes time, too, and take the last candidate, which is meant to be the fastest.
            logger.warning("--max-hours %g: no time is left to measure more", budget.hours)
            break
        speed = max(comm.all_gather(measure(candidate)))
        seconds[candidate.title], seconds_left = speed * own_images, min(comm.all_gather(budget.seconds_left))
        fits = seconds[candidate.title] <= seconds_left * _SHARE
        logger.info(
            "--max-hours: %s takes %s an image, %s in all; %s are left: %s",
            *(candidate.title, f"{speed:.3g} s", _format(seconds[candidate.title]), _format(max(seconds_left, 0.0))),
            "chosen" if fits else "too slow",
        )
        if fits:
            return candidate
    last = candidates[-1]
    if math.isinf(seconds.get(last.title, 0.0)):
        raise UserError("--max-hours: the last of TEST.FALLBACKS cannot be run, see above; add a smaller one.")
    logger.warning(
        "--max-hours %g is too little even for %s, the last of TEST.FALLBACKS. It is used, and no image is left out.",
        *(budget.hours, last.title),
    )
    return last


def _read(record: Path, digest: str) -> str | None:
    try:
        content = json.loads(read_regular(record, max_bytes=MAX_NOTE_BYTES, follow_links=False))
        return content["choice"] if content["recipe"] == digest else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, UserError):
        return None  # without a usable record, the speed is measured again


def _format(seconds: float) -> str:
    if math.isinf(seconds):
        return "forever"
    if seconds >= 3600:
        return f"{seconds / 3600:.2f} h"
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
