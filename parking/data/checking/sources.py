"""What there is to check: json files and the folders of their images."""

import os
from dataclasses import dataclass

from parking.data.datasets.classes import CLASS_NAMES
from parking.data.datasets.findings import Finding
from parking.data.datasets.json_io import is_too_large_id, shorten
from parking.utils.errors import UserError


@dataclass(frozen=True)
class Source:
    """A json and the folder of its images.

    Attributes:
        name: of this part in tables and charts, such as "train".
        json_file, image_root: paths.
        categories: names by category id; None: those of the json's ``categories``.
        has_annotations: False for a mere image list.
    """

    name: str
    json_file: str
    image_root: str
    categories: dict[int, str] | None = None
    has_annotations: bool = True


def find_parking_sources(root: str) -> list[Source]:
    """The training part below a data root and, where its folder is there, the test part.

    A missing ``Train.json`` is left to be found when it is read: the images can be checked without.

    Raises:
        UserError: there is no such folder, or no training images.
    """
    train_images, test_images = (os.path.join(root, part, "images") for part in ("train", "test"))
    if not os.path.isdir(root):
        raise UserError(f"The data folder '{root}' does not exist; name yours with --data-dir.")
    if not os.path.isdir(train_images):
        hint = ""
        if os.path.isfile(os.path.join(root, "train.zip")):
            hint = f"unpack train.zip with 'python tools/prepare_data.py --data-dir {root}', or "
        raise UserError(
            f"The data folder '{root}' has no train/images; {hint}see datasets/README.md for the layout, and give "
            "other data as --coco JSON IMAGES."
        )
    categories = dict(enumerate(CLASS_NAMES, start=1))
    sources = [Source("train", os.path.join(root, "train", "label", "Train.json"), train_images, categories)]
    if os.path.isdir(test_images):
        test_json = os.path.join(root, "Test_Images_Information.json")
        sources.append(Source("test", test_json, test_images, categories, has_annotations=False))
    return sources


def make_coco_sources(pairs: list[tuple[str, str]]) -> list[Source]:
    """One source for each pair of a COCO json and its image folder, named after the json.

    Raises:
        UserError: a json or folder is missing.
    """
    sources: list[Source] = []
    for json_file, image_root in pairs:
        if not os.path.isfile(json_file):
            raise UserError(f"The json file '{json_file}' does not exist; give --coco a json file and a folder.")
        if not os.path.isdir(image_root):
            raise UserError(f"The image folder '{image_root}' does not exist; give --coco a json file and a folder.")
        stem = os.path.splitext(os.path.basename(json_file))[0]
        taken = {source.name for source in sources}
        name = stem if stem not in taken else f"{stem} {len(sources) + 1}"
        sources.append(Source(name, json_file, image_root))
    return sources


def read_class_names(content: dict, json_name: str) -> tuple[dict[int, str], list[Finding]]:
    """The names in a COCO json's ``categories`` by their id, sorted by it, and what is wrong with them.

    Where they are missing, the annotations' ids stand in for them, so that everything else can be checked.
    """
    entries = content.get("categories")
    if not isinstance(entries, list) or not entries:
        detail = "has no 'categories'; list the id and name of each class there"
        return _collect_ids(content), [Finding("json_structure", json_name, detail)]
    categories, findings = {}, []
    for entry in entries:
        if not isinstance(entry, dict) or not _is_id(entry.get("id")) or not isinstance(entry.get("name"), str):
            detail = f"has the category {shorten(entry)}; it needs a whole number 'id' and a 'name'"
            findings.append(Finding("json_structure", json_name, detail))
        elif entry["id"] in categories:
            findings.append(Finding("json_structure", json_name, f"has the category id {entry['id']} twice"))
        else:
            categories[entry["id"]] = entry["name"]
    return dict(sorted(categories.items())), findings


def _collect_ids(content: dict) -> dict[int, str]:
    annotations = content.get("annotations")
    entries = annotations if isinstance(annotations, list) else []
    ids = {
        entry.get("category_id") for entry in entries if isinstance(entry, dict) and _is_id(entry.get("category_id"))
    }
    return {category_id: str(category_id) for category_id in sorted(ids)}


def _is_id(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and not is_too_large_id(value)
