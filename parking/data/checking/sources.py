"""What there is to check: json files and the folders of their images."""

import os
from dataclasses import dataclass

from parking.data.datasets.classes import CLASS_NAMES
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
