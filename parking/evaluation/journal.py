"""Results of an inference, written down as they come, so that an interrupted run can go on.

The journal is a folder::

    recipe.json            what the results depend on
    results-00000.jsonl    of process 0: a line a batch, a JSON list with one object an image,
                           {"image_id", "boxes": [[x, y, w, h, score, category id], ...]} or {"image_id", "error"}
"""

import json
import logging
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils import comm

from parking.evaluation.detections import Detections
from parking.utils.files import open_atomic

logger = logging.getLogger(__name__)

_ROW = ("x", "y", "w", "h", "score", "category_id")


@dataclass(frozen=True)
class JournalContent:
    """What is known of some images: ``done``, their ids, of which ``errors`` has a sentence for each unreadable one."""

    detections: Detections
    done: set[int | str]
    errors: dict[int | str, str]


class ResultsJournal:
    """The journal of one model, written to by all processes of a run; they make it together.

    A process that is killed leaves at most one line that is not whole; it is taken away and that batch done again.

    Attributes:
        done: ids of the images whose results were there when this was opened, on whichever machine.
    """

    def __init__(self, folder: str | Path, recipe: Mapping[str, Any]):
        """
        Args:
            folder: made if needed. Machines may share one or have one each.
            recipe: everything that the results depend on, by name, in plain JSON values. Results of another recipe are
                removed, and a warning says which of its entries differs.
        """
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        own = self._path(comm.get_rank())
        # Each process for itself would see what others have changed already.
        states = comm.all_gather(self._compare(recipe) if comm.get_local_rank() == 0 else None)
        differences = [state for state in states if state]
        if differences:
            if comm.is_main_process():
                logger.warning("Starting over: %s since the interrupted run in %s.", differences[0], self._folder)
            if comm.get_local_rank() == 0:
                self._empty()
        comm.synchronize()
        self._file = open(own, "ab")  # noqa: SIM115  (until close())
        if not differences:
            self._file.truncate(sum(size for size, _ in _parse_lines(own)))
        if comm.get_local_rank() == 0:
            with open_atomic(self._folder / "recipe.json") as file:
                file.write(json.dumps(recipe).encode())
        comm.synchronize()
        known = self._read_local().done if comm.get_local_rank() == 0 else set()
        self.done: set[int | str] = set().union(*comm.all_gather(known))

    def _path(self, rank: int) -> Path:
        return self._folder / f"results-{rank:05d}.jsonl"

    def _compare(self, recipe) -> str:
        """What differs from the recipe of the results that are there; "" if nothing, or if there are none."""
        try:
            earlier = json.loads((self._folder / "recipe.json").read_bytes())
        except FileNotFoundError:
            return "recipe.json is gone" if any(path.stat().st_size for path in self._files()) else ""
        except ValueError:
            return "recipe.json is damaged"
        # As JSON has it: without tuples.
        return find_difference(json.loads(json.dumps(recipe)), earlier)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("results-*.jsonl"))

    def _empty(self) -> None:
        # Also those of processes that are on another machine now, or nowhere; nobody writes as yet.
        for path in self._files():
            os.truncate(path, 0)

    def append(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Write down a batch: dicts as in the module's docstring."""
        self._file.write(json.dumps(results, separators=(",", ":")).encode() + b"\n")
        self._file.flush()

    def gather(self) -> JournalContent | None:
        """All results on the main process, None on the others. All must call it, when they have written theirs."""
        comm.synchronize()
        parts = comm.gather(self._read_local() if comm.get_local_rank() == 0 else None)
        if not comm.is_main_process():
            return None
        merged = None
        for part in parts:
            # Machines that share the folder have all read the same.
            merged = part if merged is None else merged if part is None else _merge(merged, part)
        return merged

    def _read_local(self) -> JournalContent:
        ids: list[int | str] = []
        columns = {name: array("d") for name in _ROW}
        done: set[int | str] = set()
        errors: dict[int | str, str] = {}
        for path in self._files():
            for result in (result for _, results in _parse_lines(path) for result in results):
                image_id = result["image_id"]
                if image_id in done:
                    continue
                done.add(image_id)
                if "error" in result:
                    errors[image_id] = result["error"]
                for row in result.get("boxes", ()):
                    ids.append(image_id)
                    for column, value in zip(columns.values(), row, strict=True):
                        column.append(value)
        x, y, w, h, scores, category_ids = columns.values()
        boxes = np.stack([x, y, w, h], axis=1)
        return JournalContent(Detections.from_columns(ids, np.array(category_ids), boxes, scores), done, errors)

    def close(self) -> None:
        """Stop writing."""
        self._file.close()


def _merge(first: JournalContent, second: JournalContent) -> JournalContent:
    new = [image_id not in first.done for image_id in second.detections.image_ids.tolist()]
    added = second.detections[np.array(new, dtype=bool)]
    return JournalContent(
        Detections.concatenate([first.detections, added]), first.done | second.done, second.errors | first.errors
    )


def find_difference(recipe: Mapping[str, Any], earlier: Mapping[str, Any]) -> str:
    """The first entry of two recipes in which they differ, in words; "" if there is none."""
    for name in [*recipe, *(name for name in earlier if name not in recipe)]:
        old, new = earlier.get(name), recipe.get(name)
        if old != new:
            is_digest = isinstance(new, str) and len(new) == 64
            return f"the {name} changed" if is_digest else f"{name} changed from {old!r} to {new!r}"
    return ""


def _parse_lines(path: Path) -> Iterator[tuple[int, list[dict]]]:
    """Size in bytes and content of the lines that are whole, up to the first that is not."""
    with open(path, "rb") as file:
        for line in file:
            try:
                results = json.loads(line)
            except ValueError:
                return
            if not line.endswith(b"\n") or not isinstance(results, list):
                return
            yield len(line), results
