"""Choose the image and category ids that the result files use; needs neither torch nor detectron2.

Within a run, images and classes have the run's own ids, which stay the same after an interruption and a resume. If
annotations are given, the result files use the ids of the annotations instead, because only then can the results be
scored against them.
"""

import itertools
import json
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from parking.data.datasets.images import ImageList
from parking.evaluation.annotations_file import AnnotationsFile
from parking.structures.detections import Detections, make_id_column
from parking.utils.errors import UserError
from parking.utils.files import read_regular
from parking.utils.limits import MAX_NOTE_BYTES
from parking.utils.text import join_some, printable

# A sentence lists this many classes, and states only the number of the others.
_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class ResultIds:
    """Maps the run's own ids to the ids that the result files use.

    Attributes:
        image_ids, category_ids: dicts from the run's own id to the id in the files, for all images and classes.
        about: for "image_ids" and "category_ids" words that say where they are from; absent for the run's own ids.
    """

    image_ids: Mapping[int | str, int | str]
    category_ids: Mapping[int, int]
    about: Mapping[str, str]

    @property
    def are_own(self) -> bool:
        """Whether the result files use the run's own ids."""
        return all(own == id for ids in (self.image_ids, self.category_ids) for own, id in ids.items())

    def translate(self, detections: Detections) -> Detections:
        """Replace the run's own ids in ``detections`` by those of the result files."""
        return replace(
            detections,
            image_ids=make_id_column([self.image_ids[i] for i in detections.image_ids.tolist()]),
            category_ids=make_id_column([self.category_ids[i] for i in detections.category_ids.tolist()]),
        )


def choose_result_ids(
    images: ImageList, classes: Mapping[str, int], truth: AnnotationsFile | None, *, are_classes_numbered: bool
) -> ResultIds:
    """Choose the ids of the result files: those of the annotations if there are any, else the run's own.

    Args:
        classes: the run's category ids by class name.
        truth: the annotations; what they lack gets the run's own ids if those are free, else new ones.
        are_classes_numbered: whether the category ids were made up, because the weights state none.
    """
    if truth is None:
        about = {}
        if not images.has_ids:
            about["image_ids"] = "made up: 1, 2, 3, ... in the order of images.json"
        if are_classes_numbered:
            about["category_ids"] = f"made up, because the weights only name their classes: {list_ids(classes)}"
        return ResultIds(_same(image["image_id"] for image in images.images), _same(classes.values()), about)
    image_ids, about_images = _choose_image_ids(images, truth)
    category_ids, about_classes = _choose_category_ids(classes, truth)
    return ResultIds(image_ids, category_ids, {"image_ids": about_images, "category_ids": about_classes})


def read_about_ids(predictions: str | os.PathLike) -> list[str]:
    """Return sentences on where the ids in the file ``predictions`` are from, as the ``ids.json`` beside it says."""
    try:
        about = json.loads(read_regular(Path(predictions).with_name("ids.json"), max_bytes=MAX_NOTE_BYTES))
        return [f"the {key.replace('_', ' ')} are {text}; the challenge may have others" for key, text in about.items()]
    except (OSError, ValueError, RecursionError, AttributeError, UserError):
        return []  # ids.json is missing, or was not made by write_results


def _choose_image_ids(images: ImageList, truth: AnnotationsFile) -> tuple[dict, str]:
    about = f"of {printable(truth.path)}"
    others = [image for image in images.images if image["image_id"] not in truth.image_ids]
    if not others:
        return dict(truth.image_ids), about
    taken = truth.known_image_ids
    own = _same(image["image_id"] for image in others)
    is_one_type = len(set(map(type, taken | own.keys()))) == 1
    if images.has_ids and is_one_type and not taken & own.keys():
        return {**truth.image_ids, **own}, f"{about}; of the image list for the {len(others)} images that are not in it"
    added = dict(zip(own, _make_ids(taken), strict=False))
    return {**truth.image_ids, **added}, f"{about}; made up for the {len(others)} images that are not in it"


def _choose_category_ids(classes: Mapping[str, int], truth: AnnotationsFile) -> tuple[dict[int, int], str]:
    about = f"of {printable(truth.path)}"
    if not truth.known_category_ids:
        return _same(classes.values()), f"of the weights, because {printable(truth.path)} has no categories"
    missing = {name: own for name, own in classes.items() if own not in truth.category_ids}
    if not missing:
        return dict(truth.category_ids), about
    taken = set(truth.known_category_ids)
    kept = _same(own for own in missing.values() if own not in taken)
    numbers = _make_ids(taken | kept.keys())
    added = {own: kept[own] if own in kept else next(numbers) for own in missing.values()}
    listed = list_ids({name: added[own] for name, own in missing.items()})
    return {**truth.category_ids, **added}, f"{about}; for classes that it lacks: {listed}"


def _same(ids: Iterable) -> dict:
    return {id: id for id in ids}


def _make_ids(taken: Collection[int | str]) -> Iterator[int | str]:
    """Yield new ids, 1, 2, 3, ..., without those in ``taken``; they are strings if ``taken`` holds any string."""
    kind = str if any(isinstance(id, str) for id in taken) else int
    return (id for id in map(kind, itertools.count(1)) if id not in taken)


def list_ids(classes: Mapping[str, int]) -> str:
    """Return words that list the first classes with their ids and count the rest."""
    return join_some([f"{name} ({id})" for name, id in classes.items()], _NUM_EXAMPLES)
