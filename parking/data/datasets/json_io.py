"""Read the json files of a data set; needs neither torch nor detectron2."""

import gc
import json
import os
import reprlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Any

from parking.data.checking.findings import KINDS, STOP, Finding
from parking.utils.errors import UserError
from parking.utils.files import UnusableFileError
from parking.utils.limits import MAX_ID_BITS, MAX_IMAGE_PIXELS, MAX_JSON_BYTES, MAX_PATH_BYTES
from parking.utils.text import printable
from parking.utils.text_files import read_text_file


def read_json_object(json_file: str) -> dict:
    """Return the JSON object in a file, skipping a byte order mark; raise a UserError if it holds anything else."""
    content, findings = read_json(json_file)
    for finding in findings:
        if KINDS[finding.kind].strict == STOP:
            raise UnusableFileError(json_file, finding.detail)
    return content


def read_json(json_file: str) -> tuple[dict | None, list[Finding]]:
    """Return the JSON object in a file and what is wrong with the file, as findings instead of errors.

    Returns:
        The content, or None if it cannot be used; and findings of the kinds ``json_*``.
    """
    findings: list[Finding] = []

    def note(kind: str, detail: str) -> None:
        findings.append(Finding(kind, json_file, detail))

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            twice = find_twice(key for key, _ in pairs)
            note("json_duplicate_key", f"has an object with the key {shorten(twice)} twice: {shorten(content)}")
        return content

    non_finite = []

    def keep_non_finite(constant: str) -> float:
        non_finite.append(constant)
        return float(constant)

    try:
        content, has_mark = parse_json(json_file, object_pairs_hook=make_object, parse_constant=keep_non_finite)
    except UnusableFileError as e:
        note("json_unreadable", e.detail)
        return None, findings
    if has_mark:
        findings.insert(0, Finding("json_bom", json_file, "begins with a byte order mark"))
    if non_finite:
        note("json_nan", f"holds NaN or Infinity {len(non_finite)} times")
    if not isinstance(content, dict):
        note("json_structure", f"must hold a JSON object with the key 'images', not {_name_kind(content)}")
        content = None
    return content, findings


def read_json_list(json_file: str | os.PathLike, *, object_hook: Callable[[dict], Any] | None = None) -> list:
    """Return the JSON list of boxes in a file; raise a UserError if the file holds anything else.

    Args:
        object_hook: called with each object as it is parsed; what it returns takes the object's place.
    """
    content, _ = parse_json(json_file, object_hook=object_hook)
    if not isinstance(content, list):
        raise UnusableFileError(json_file, f"must hold a JSON list of boxes, not {_name_kind(content)}")
    return content


def parse_json(json_file: str | os.PathLike, **hooks: Callable) -> tuple[Any, bool]:
    """Parse a json file that the user names; it may hold any JSON value.

    Args:
        hooks: arguments of ``json.loads``.

    Returns:
        The value, and whether the file begins with a byte order mark.

    Raises:
        UnusableFileError: the file is not JSON in UTF-8; the message says what it is instead.
    """
    text, has_mark = read_text_file(json_file, max_bytes=MAX_JSON_BYTES)
    try:
        with paused_gc():
            return json.loads(text, **hooks), has_mark
    except RecursionError as e:
        raise UnusableFileError(json_file, "is not the JSON of a data set: lists or objects are nested too deep") from e
    except json.JSONDecodeError as e:
        if e.msg == "Extra data":
            detail = f"holds several JSON values (JSON Lines?), the second at {e.lineno}:{e.colno}; make one of them"
        else:
            detail = f"is not valid JSON, or cut off: {e}"
        raise UnusableFileError(json_file, detail) from e
    except ValueError as e:  # an integer of more than 4300 digits
        raise UnusableFileError(json_file, f"holds a number that is too long: {e}") from e


def is_too_large_id(value: Any) -> bool:
    """Return whether an id is an integer of more bits than any id needs."""
    return isinstance(value, int) and value.bit_length() > MAX_ID_BITS


def find_twice(values: Iterable) -> Any:
    """Return the first of the hashable ``values`` that repeats an earlier one; None if all differ."""
    seen = set()
    return next((value for value in values if value in seen or seen.add(value)), None)


@contextmanager
def paused_gc() -> Iterator[None]:
    """In the block, pause the cyclic garbage collector, which would double the time of making many small objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def find_list(content: dict, key: str) -> tuple[list, str]:
    """Return the list ``content[key]`` and an empty text, or an empty list and what is wrong."""
    value = content.get(key)
    if isinstance(value, list):
        return value, ""
    problem = "has no" if value is None else "has something that is not a list as its"
    return [], f"{problem} '{key}'; it must be a list, as in the COCO format"


def read_image_records(content: dict, json_file: str) -> list[dict]:
    """Read the ``images`` of a COCO-like json.

    Returns:
        Dicts with ``file_name`` and ``image_id`` as in the json, and ``height`` and ``width`` if it has both.

    Raises:
        UserError: no entries, an entry without id or name, an id that occurs twice, or an impossible size.
    """
    records, findings = inspect_image_records(content)
    for finding in findings:
        raise UserError(f"'{json_file}': {finding.where} {finding.detail}.")
    return records


def inspect_image_records(content: dict) -> tuple[list[dict], list[Finding]]:
    """Read the ``images`` as :func:`read_image_records` does, but leave out bad entries and return all findings."""
    records: list[dict] = []
    entries, problem = find_list(content, "images")
    if problem or not entries:
        return records, [Finding("json_structure", "the json", problem or "lists no images")]
    findings, ids = [], set()
    for i, image in enumerate(entries):
        try:
            image_id, name = image["id"], image["file_name"]
            height, width = image.get("height"), image.get("width")
        except (KeyError, TypeError, AttributeError):
            detail = f"is {shorten(image)}; it needs an 'id' and a 'file_name'"
            findings.append(Finding("json_structure", f"images[{i}]", detail))
            continue
        size = None if height is None or width is None else _to_size(height, width)
        problem = _find_image_problem(image_id, name, size)
        if problem:
            findings.append(Finding("json_structure", f"image {shorten(image_id)}", problem))
        elif image_id in ids:
            detail = f"has the image id {shorten(image_id)}, which occurs twice"
            findings.append(Finding("image_id_twice", printable(name), detail))
        else:
            ids.add(image_id)
            record = {"file_name": name, "image_id": image_id}
            if size:
                record["height"], record["width"] = size
            records.append(record)
    return records, findings


def _find_image_problem(image_id, name, size) -> str:
    if not isinstance(image_id, int | str) or isinstance(image_id, bool):
        return "has an id that is neither an integer nor a text"
    if is_too_large_id(image_id):
        return f"has an id of more than {MAX_ID_BITS} bits"
    # A null byte ends a path for the system, which would then open another file.
    if not isinstance(name, str) or not name or "\0" in name:
        return f"has the file name {shorten(name)}, which is not a name"
    if len(name) > MAX_PATH_BYTES:
        return f"has a file name of {len(name):,} characters; {MAX_PATH_BYTES:,} are allowed"
    return size if isinstance(size, str) else ""


def _to_size(height, width) -> tuple[int, int] | str:
    with suppress(TypeError):
        if all(0 < side <= MAX_IMAGE_PIXELS and side == int(side) for side in (height, width)):
            return int(height), int(width)
    return f"has the size {shorten(width)} x {shorten(height)}; both must be whole numbers of pixels, or left out"


def _name_kind(value: Any) -> str:
    names = {dict: "an object", list: "a bare list", str: "a text", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")


class _ShortRepr(reprlib.Repr):
    """A ``repr`` that looks only at the beginning of a value and keeps the order of keys."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxstring, self.maxlong = 4, 8, 8, 80, 80

    def repr_dict(self, x, level):
        if not x or level <= 0:
            return "{...}" if x else "{}"
        pairs = islice(x.items(), self.maxdict)
        parts = [f"{self.repr1(key, level - 1)}: {self.repr1(value, level - 1)}" for key, value in pairs]
        return "{" + ", ".join(parts + ["..."] * (len(x) > self.maxdict)) + "}"


def shorten(value: Any, length: int = 80) -> str:
    """Return the ``repr`` of a value from a json, cut to ``length`` characters, without reading all of a long value."""
    text = _ShortRepr().repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
