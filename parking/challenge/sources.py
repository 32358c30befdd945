"""The parts of the challenge's data that can be checked."""

import os

from parking.data.checking.sources import Source
from parking.utils.errors import UserError

from .classes import CLASS_NAMES


def find_parking_sources(root: str) -> list[Source]:
    """Return the training data below ``root`` as a source and, if their folder exists, the test data as another.

    A missing ``Train.json`` is not an error here: the images can be checked without it.

    Raises:
        UserError: the root or its folder of training images does not exist.
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
