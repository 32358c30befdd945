"""The journal: results of an inference, written batch by batch, so that an interrupted run can continue.

The journal is a folder with a mark which says that this product made it. It has a folder for each model::

    recipe.json            what the results depend on
    results-00000.jsonl    results of process 0, one line for each batch: a JSON list of a digest and a list with one
                           object for each image, {"image_id", "boxes": [[x, y, w, h, score, category id], ...]} or
                           {"image_id", "error"}

A line is used only if its digest, which is keyed by the recipe, is right. If a line was cut off, damaged or edited, its
images are predicted again.
"""

import functools
import hashlib
import json
import logging
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.utils import comm

from parking.structures.detections import Detections
from parking.utils.errors import UserError
from parking.utils.files import (
    UNFINISHED_ENDING,
    explaining_write_errors,
    is_still_there,
    open_atomic,
    open_regular,
    read_regular,
)
from parking.utils.limits import MAX_JOURNAL_LINE_BYTES, MAX_RECIPE_BYTES
from parking.utils.marks import is_own_folder, make_own_folder, remove_own_folder
from parking.utils.text import printable

logger = logging.getLogger(__name__)

#: Name of the journal's folder, inside the folder of the results.
JOURNAL_NAME = ".parking-journal"
# Matches the names of all files and folders that a run writes into the journal.
_OWN_NAMES = re.compile(rf"model-\d+|recipe\.json|budget\.json|results-\d+\.jsonl|\..*{re.escape(UNFINISHED_ENDING)}")

_DIGEST_CHARS = 32


def remove_journal_folder(folder: Path) -> None:
    """Remove what runs wrote into the journal's ``folder``, and the folder itself unless it holds anything else."""
    if is_own_folder(folder) and not remove_own_folder(folder, _OWN_NAMES):
        logger.warning("'%s' holds files that this product did not write, so it is left there.", printable(folder))


@dataclass(frozen=True)
class JournalContent:
    """The results in a journal: the boxes in each image that is done, or why the image is unreadable.

    Attributes:
        detections: all boxes in these images.
        done: ids of all these images.
        errors: by id of each unreadable image, a sentence that says why it is unreadable.
    """

    detections: Detections
    done: set[int | str]
    errors: dict[int | str, str]


class ResultsJournal:
    """The journal of one model; all processes of a run must open it together, and each writes a file of its own.

    Attributes:
        done: ids of the images whose results were in the journal, on any machine, when it was opened.
    """

    def __init__(self, folder: str | Path, recipe: Mapping[str, Any]):
        """
        Args:
            folder: the folder of the model, made if needed. Machines may share it, or each may have its own.
            recipe: everything that the results depend on, by name, as plain JSON values. Results of another recipe are
                removed, and a warning names an entry in which the recipes differ.

        Raises:
            UserError: a file of the journal is a link or not a regular file.
        """
        self._folder = Path(folder)
        self._key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).digest()
        self._num_unusable = 0
        make_own_folder(self._folder)
        known: set[int | str] = set()
        if comm.get_local_rank() == 0:
            # Let one process read all files before any process writes: the earlier run may have had more processes on
            # this machine than this run has.
            self._begin(recipe)
            known = self._read_local().done
            if self._num_unusable:
                logger.warning(
                    "'%s': %d lines are cut off, damaged or edited, so they are not used; images without results are "
                    "predicted again.",
                    *(printable(self._folder), self._num_unusable),
                )
        self.done: set[int | str] = set().union(*comm.all_gather(known))
        with explaining_write_errors():
            self._file = open(self._folder / f"results-{comm.get_rank():05d}.jsonl", "ab")  # noqa: SIM115
        if self._file.tell():
            self._file.write(b"\n")  # a killed process may have left half a line

    def _begin(self, recipe: Mapping[str, Any]) -> None:
        """Write the recipe; before that, remove the results of an earlier run that had another recipe."""
        path = self._folder / "recipe.json"
        try:
            earlier = json.loads(read_regular(path, max_bytes=MAX_RECIPE_BYTES, follow_links=False))
            # Compare the recipe as it reads back from JSON, which turns tuples into lists.
            difference = find_difference(json.loads(json.dumps(recipe)), earlier)
        except FileNotFoundError:
            difference = ""
        except (ValueError, TypeError, AttributeError, RecursionError):
            difference = "recipe.json is damaged"
        except OSError as e:
            raise _describe_unusable(path, e) from e
        with explaining_write_errors():
            if difference:
                logger.warning("Starting over: %s since the interrupted run in %s.", difference, self._folder)
                for results in self._files():
                    results.unlink(missing_ok=True)  # another machine may have removed it already
            with open_atomic(path) as file:
                file.write(json.dumps(recipe).encode())

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("results-" + 5 * "[0-9]" + ".jsonl"))

    def append(self, results: Sequence[Mapping[str, Any]]) -> None:
        """Write the results of a batch: one dict for each image, as the module's docstring describes them.

        Raises:
            UserError: the file was removed or cannot be written, so all further results would be lost.
        """
        with explaining_write_errors():
            text = json.dumps(results, separators=(",", ":"), allow_nan=False).encode()
            self._file.write(self._to_line(text) + b"\n")
            self._file.flush()
        if not is_still_there(self._file, self._file.name):
            raise UserError(
                f"'{printable(self._file.name)}', which holds the results so far, was removed or replaced; run the "
                "same command again, and leave the folder of the results alone."
            )

    def gather(self) -> JournalContent | None:
        """Return all results in the main process, None in the others; all processes must call this after their work."""
        comm.synchronize()
        parts = comm.gather(self._read_local() if comm.get_local_rank() == 0 else None)
        return functools.reduce(_merge, filter(None, parts)) if comm.is_main_process() else None

    def _read_local(self) -> JournalContent:
        image_ids: list[int | str] = []
        category_ids: list[int] = []
        values = array("d")  # takes less memory than a list of floats
        done: set[int | str] = set()
        errors: dict[int | str, str] = {}
        for result in self._read_results():
            image_id = result["image_id"]
            if image_id in done:
                continue
            done.add(image_id)
            if "error" in result:
                errors[image_id] = result["error"]
            for *row, category_id in result.get("boxes", ()):
                image_ids.append(image_id)
                category_ids.append(category_id)
                values.extend(row)
        table = np.array(values).reshape(-1, 5)
        detections = Detections.from_columns(image_ids, category_ids, table[:, :4], table[:, 4])
        return JournalContent(detections, done, errors)

    def _read_results(self) -> Iterator[dict]:
        for path in self._files():
            try:
                file = open_regular(path, follow_links=False)
            except OSError as e:
                raise _describe_unusable(path, e) from e
            with file:
                # Limit the length of a line: a damaged file may be one line of many GB.
                read_line = functools.partial(file.readline, MAX_JOURNAL_LINE_BYTES)
                for line in map(bytes.rstrip, iter(read_line, b"")):
                    text = line[_DIGEST_CHARS + 4 : -1]
                    if line == self._to_line(text):
                        yield from json.loads(text)
                    elif line:
                        self._num_unusable += 1

    def _to_line(self, text: bytes) -> bytes:
        digest = hashlib.blake2b(text, key=self._key, digest_size=_DIGEST_CHARS // 2).hexdigest()
        return b'["%s",%s]' % (digest.encode(), text)

    def close(self) -> None:
        """Close the file of this process."""
        self._file.close()


def _describe_unusable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"'{printable(path)}' of an interrupted run cannot be used ({error.strerror or error}); remove "
        f"'{printable(path.parent)}' to start over."
    )


def _merge(first: JournalContent, second: JournalContent) -> JournalContent:
    new = [image_id not in first.done for image_id in second.detections.image_ids.tolist()]
    added = second.detections[np.array(new, dtype=bool)]
    return JournalContent(
        Detections.concatenate([first.detections, added]), first.done | second.done, second.errors | first.errors
    )


def find_difference(recipe: Mapping[str, Any], earlier: Mapping[str, Any]) -> str:
    """Return words that name the first entry in which two recipes differ; "" if they are equal."""
    for name in [*recipe, *(name for name in earlier if name not in recipe)]:
        old, new = earlier.get(name), recipe.get(name)
        if old != new:
            is_digest = isinstance(new, str) and len(new) == 64
            return f"the {name} changed" if is_digest else f"{name} changed from {old!r} to {new!r}"
    return ""
