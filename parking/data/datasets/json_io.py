"""Reading the json files of a data set; needs neither torch nor detectron2."""

import codecs
import gc
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parking.data.datasets.findings import Finding
from parking.utils.errors import UserError
from parking.utils.text import printable


def read_json_object(json_file: str) -> dict:
    """Parse a json file whose outermost value is an object; UserError otherwise. A byte order mark is read over."""
    content, findings = read_json(json_file)
    for finding in findings:
        if finding.kind != "json_bom":
            raise UserError(f"'{json_file}' {finding.detail}.")
    return content


def read_json(json_file: str) -> tuple[dict | None, list[Finding]]:
    """Parse a json file whose outermost value is an object, collecting what is wrong with it instead of raising.

    Returns:
        The content, None where it cannot be read, and findings of the kinds ``json_*``.
    """
    findings: list[Finding] = []

    def note(kind: str, detail: str) -> None:
        findings.append(Finding(kind, json_file, detail))

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            note("json_duplicate_key", f"has an object with the key {twice!r} twice: {_shorten(content)}")
        return content

    content = None
    try:
        with open(json_file, "rb") as f:
            data = f.read()
        if data.startswith(codecs.BOM_UTF8):
            note("json_bom", "begins with a byte order mark")
        # Not what json.loads makes of bytes: it would guess UTF-16 and UTF-32, too.
        text = data.decode("utf-8-sig")
        del data
        with paused_gc():
            content = json.loads(text, object_pairs_hook=make_object)
    except OSError as e:
        note("json_unreadable", f"cannot be opened: {e.strerror or e}")
    except UnicodeDecodeError as e:
        note("json_unreadable", f"is not UTF-8 (at byte {e.start}); save it as UTF-8")
    except (ValueError, RecursionError) as e:
        note("json_unreadable", f"is not valid JSON, or cut off: {e}")
    else:
        if not isinstance(content, dict):
            kind = type(content).__name__
            content = None
            note("json_structure", f"must hold a JSON object with the key 'images', not a {kind}")
    return content, findings


def read_json_list(json_file: str | os.PathLike, *, object_hook: Callable[[dict], Any] | None = None) -> list:
    """Parse a json file whose outermost value is a list of boxes; UserError otherwise.

    Args:
        object_hook: called with each object as it is parsed; what it returns takes the object's place.
    """
    try:
        with open(json_file, "rb") as file, paused_gc():
            content = json.loads(file.read(), object_hook=object_hook)
    except OSError as e:
        raise UserError(f"'{json_file}' cannot be opened: {e.strerror or e}.") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"'{json_file}' is not valid JSON: {e}.") from e
    if not isinstance(content, list):
        # A hook may have made None of an object.
        kind = "an object" if content is None or isinstance(content, dict) else f"a {type(content).__name__}"
        raise UserError(f"'{json_file}' must hold a JSON list of boxes, not {kind}.")
    return content


@contextmanager
def paused_gc() -> Iterator[None]:
    """Keep the cyclic garbage collector from searching a growing heap of plain values, which takes as long again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def get_list(content: dict, key: str, json_file: str) -> list:
    """The list ``content[key]``; UserError, naming the file, where it is missing or something else."""
    value, problem = find_list(content, key)
    if problem:
        raise UserError(f"'{json_file}' {problem}.")
    return value


def find_list(content: dict, key: str) -> tuple[list, str]:
    """The list ``content[key]`` and an empty text; or an empty list and what is wrong."""
    value = content.get(key)
    if isinstance(value, list):
        return value, ""
    problem = "has no" if value is None else "has something that is not a list as its"
    return [], f"{problem} '{key}'; it must be a list, as in the COCO format"


def read_image_records(content: dict, json_file: str) -> list[dict]:
    """The entries of a COCO-like json's ``images``.

    Returns:
        Dicts with ``file_name`` and ``image_id`` as in the json, and ``height`` and ``width`` where both are there.

    Raises:
        UserError: no entries, an entry without id or name, an id that occurs twice, an impossible size.
    """
    records, findings = inspect_image_records(content)
    for finding in findings:
        raise UserError(f"'{json_file}': {finding.where} {finding.detail}.")
    return records


def inspect_image_records(content: dict) -> tuple[list[dict], list[Finding]]:
    """Like :func:`read_image_records`, for all that is wrong; the records are those of sound entries."""
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
            detail = f"is {_shorten(image)}; it needs an 'id' and a 'file_name'"
            findings.append(Finding("json_structure", f"images[{i}]", detail))
            continue
        size = None
        if height is not None and width is not None:
            size = (height, width) if type(height) is type(width) is int and height > 0 < width else _to_size(image)
        problem = _find_image_problem(image_id, name, size)
        if problem:
            findings.append(Finding("json_structure", f"image {_shorten(image_id)}", problem))
        elif image_id in ids:
            findings.append(
                Finding("image_id_twice", printable(name), f"has the image id {image_id!r}, which occurs twice")
            )
        else:
            ids.add(image_id)
            record = {"file_name": name, "image_id": image_id}
            if size:
                record["height"], record["width"] = size
            records.append(record)
    return records, findings


def _find_image_problem(image_id, name, size) -> str:
    if not isinstance(image_id, int | str):
        return "has an id that is neither a whole number nor a text"
    # A null byte ends a path for the system: the image would be looked for under another name.
    if not isinstance(name, str) or not name or "\0" in name:
        return f"has the file name {_shorten(name)}, which is not a name"
    return size if isinstance(size, str) else ""


def _to_size(image) -> tuple[int, int] | str:
    height, width = image["height"], image["width"]
    try:
        if height > 0 and width > 0 and height == int(height) and width == int(width):
            return int(height), int(width)
    except (TypeError, ValueError, OverflowError):
        pass
    return (
        f"has the size {_shorten(width)} x {_shorten(height)}; width and height must be whole numbers of pixels, or "
        "left out"
    )


def _shorten(value: Any, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else text[: length - 3] + "..."
