"""Describe what is to be checked: json files and the folders of their images."""

import os
from dataclasses import dataclass

from parking.utils.errors import UserError


@dataclass(frozen=True)
class Source:
    """A json and the folder of its images.

    Attributes:
        name: shown in tables and charts, such as "train".
        json_file, image_root: paths.
        categories: names by category id; None: take the json's ``categories``.
        has_annotations: False if the json is a list of images only.
    """

    name: str
    json_file: str
    image_root: str
    categories: dict[int, str] | None = None
    has_annotations: bool = True


def make_coco_sources(pairs: list[tuple[str, str]]) -> list[Source]:
    """Make a source, named after its json, from each pair of a COCO json and an image folder.

    Raises:
        UserError: a json or folder is missing.
    """
    sources: list[Source] = []
    for json_file, image_root in pairs:
        if not os.path.isfile(json_file):
            raise UserError(f"The json file '{json_file}' does not exist; give --coco a json file and a folder.")
        if not os.path.isdir(image_root):
            raise UserError(f"The image folder '{image_root}' does not exist; give --coco a json file and a folder.")
        name = os.path.splitext(os.path.basename(json_file))[0]
        if any(source.name == name for source in sources):
            name = f"{name} {len(sources) + 1}"
        sources.append(Source(name, json_file, image_root))
    return sources
