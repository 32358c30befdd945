"""Reading the json files of a data set; needs neither torch nor detectron2."""

import json

from parking.utils.errors import UserError


def read_json_object(json_file: str) -> dict:
    """Parse a json file whose outermost value is an object; UserError otherwise."""
    try:
        with open(json_file, "rb") as f:
            content = json.loads(f.read())
    except OSError as e:
        raise UserError(f"'{json_file}' cannot be opened: {e.strerror or e}.") from e
    except (ValueError, RecursionError) as e:
        raise UserError(f"'{json_file}' is not valid JSON: {e}.") from e
    if not isinstance(content, dict):
        raise UserError(f"'{json_file}' must hold a JSON object with the key 'images', not a {type(content).__name__}.")
    return content


def get_list(content: dict, key: str, json_file: str) -> list:
    """The list ``content[key]``; UserError, naming the file, where it is missing or something else."""
    value = content.get(key)
    if not isinstance(value, list):
        problem = "has no" if value is None else "has something that is not a list as its"
        raise UserError(f"'{json_file}' {problem} '{key}'; it must be a list, as in the COCO format.")
    return value


def read_image_records(content: dict, json_file: str) -> list[dict]:
    """The entries of a COCO-like json's ``images``.

    Returns:
        Dicts with ``file_name`` and ``image_id`` as in the json, and ``height`` and ``width`` where both are there.

    Raises:
        UserError: no entries, an entry without id or name, an id that occurs twice, an impossible size.
    """
    records, ids = [], set()
    for image in get_list(content, "images", json_file):
        try:
            image_id, name = image["id"], image["file_name"]
            known = image_id in ids
            height, width = image.get("height"), image.get("width")
        except (KeyError, TypeError, AttributeError) as e:
            raise UserError(f"'{json_file}': the image {image!r} needs an 'id' and a 'file_name'.") from e
        if not name or not isinstance(name, str):
            raise UserError(f"'{json_file}': image {image_id!r} has the file name {name!r}, which is not a name.")
        if known:
            raise UserError(f"'{json_file}': the image id {image_id!r} occurs twice.")
        ids.add(image_id)
        record = {"file_name": name, "image_id": image_id}
        if height is not None and width is not None:
            record["height"], record["width"] = _check_size(height, width, image_id, json_file)
        records.append(record)
    if not records:
        raise UserError(f"'{json_file}' lists no images.")
    return records


def _check_size(height, width, image_id, json_file) -> tuple[int, int]:
    try:
        if height > 0 and width > 0 and height == int(height) and width == int(width):
            return int(height), int(width)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UserError(
        f"'{json_file}': image {image_id!r} has the size {width!r} x {height!r}; "
        "width and height must be whole numbers of pixels, or left out."
    )
