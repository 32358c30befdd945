"""COCO-format data: loading a json into detectron2's dataset dicts, and registering data sets from the config."""

import functools
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from detectron2.data import DatasetCatalog, DatasetFromList, MetadataCatalog
from detectron2.structures import BoxMode

from parking.data.datasets.classes import distinct_colors
from parking.data.datasets.json_io import get_list, read_image_records, read_json_object
from parking.data.image_io import read_image_size
from parking.utils.errors import UserError


def load_coco_json(
    json_file: str, image_root: str, class_ids: Mapping[int, int], *, with_annotations: bool = True
) -> list[dict]:
    """Load a COCO-like json into detectron2's standard dataset dicts, in the order of the file.

    Image files are opened only where the json lacks their width or height, and then only their headers are read.

    Args:
        class_ids: contiguous class index 0.. for every category id that may occur.
        with_annotations: False for a mere image list; the dicts have no key "annotations" then.

    Returns:
        One dict per image, images without boxes included: ``file_name`` (path), ``image_id`` (as in the json),
        ``height``, ``width``, ``annotations`` (``bbox`` as in the json, XYWH_ABS; ``bbox_mode``; ``category_id``,
        contiguous; ``iscrowd``; ``area`` where the json has it).

    Raises:
        UserError: naming the json and the image or annotation that is wrong in it.
    """
    content = read_json_object(json_file)
    images = _load_images(content, json_file, image_root)
    if with_annotations:
        _attach_annotations(images, get_list(content, "annotations", json_file), class_ids, json_file)
    return list(images.values())


def read_categories(json_file: str) -> dict[int, str]:
    """The names in a COCO json's ``categories`` by their id, in the order of the ids."""
    categories = {}
    for category in get_list(read_json_object(json_file), "categories", json_file):
        try:
            category_id, name = category["id"], category["name"]
            known = category_id in categories
        except (KeyError, TypeError) as e:
            raise UserError(f"'{json_file}': the category {category!r} needs an 'id' and a 'name'.") from e
        if known or not isinstance(category_id, int):
            reason = "occurs twice" if known else "is not an integer"
            raise UserError(f"'{json_file}': the category id {category_id!r} {reason}.")
        categories[category_id] = str(name)
    if not categories:
        raise UserError(f"'{json_file}': 'categories' is empty; list the classes of the data set there.")
    return dict(sorted(categories.items()))


def register_coco_datasets(entries: Iterable, *, reserved_names: Collection[str] = ()) -> None:
    """Register every ``[name, json file, image folder]`` of ``DATASETS.COCO``.

    The categories of the json files are read now, everything else when the data set is first loaded. Registering the
    same entry again is fine, and has it read again.

    Raises:
        UserError: an entry is malformed, a json or folder is missing, two entries have different classes, or the name
            is taken by another data set.
    """
    first_name, first_classes = None, None
    for entry in entries:
        name, json_file, image_root = _check_entry(entry)
        if name in reserved_names or (name in DatasetCatalog and _get_source(name) != (json_file, image_root)):
            raise UserError(f"DATASETS.COCO: the name '{name}' belongs to another data set; choose a different one.")
        categories = read_categories(json_file)
        if not os.path.isdir(image_root):
            raise UserError(f"DATASETS.COCO: the image folder '{image_root}' of '{name}' does not exist.")
        classes = list(categories.values())
        if first_classes is None:
            first_name, first_classes = name, classes
        elif classes != first_classes:
            raise UserError(
                f"DATASETS.COCO: '{first_name}' and '{name}' have different classes ({', '.join(first_classes)} "
                f"against {', '.join(classes)}); their json files must list the same 'categories'."
            )
        class_ids = {category_id: i for i, category_id in enumerate(categories)}
        register_dataset(
            name,
            load_once(functools.partial(load_coco_json, json_file, image_root, class_ids)),
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=classes,
            thing_colors=distinct_colors(len(classes)),
            thing_dataset_id_to_contiguous_id=class_ids,
        )


def load_once(load: Callable[[], list[dict]]) -> Callable[..., list[dict]]:
    """A function that calls ``load`` when it is first called, and returns new copies of those dicts each time.

    Its optional argument ``indices`` says which of them; None: all.
    """

    # It keeps the dicts serialised: workers would copy the memory of that many objects by merely counting references.
    @functools.cache
    def get_dataset():
        return DatasetFromList(load())

    def get_dicts(indices: Sequence[int] | None = None) -> list[dict]:
        dataset = get_dataset()
        return [dataset[i] for i in (range(len(dataset)) if indices is None else indices)]

    return get_dicts


def register_dataset(name: str, load: Callable[[], list[dict]], **metadata) -> None:
    """Register ``load`` and ``metadata`` under ``name`` with detectron2; an earlier registration is replaced."""
    # Both catalogs refuse to change an entry in place.
    DatasetCatalog.pop(name, None)
    MetadataCatalog.pop(name, None)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)


def _check_entry(entry):
    if not isinstance(entry, list | tuple) or len(entry) != 3 or not all(isinstance(x, str) and x for x in entry):
        raise UserError(f"DATASETS.COCO: {entry!r} is not of the form [name, json file, image folder].")
    return entry


def _get_source(name):
    metadata = MetadataCatalog.get(name)
    return metadata.get("json_file", None), metadata.get("image_root", None)


def _load_images(content: dict, json_file: str, image_root: str) -> dict[int, dict]:
    images = {}
    for record in read_image_records(content, json_file):
        record["file_name"] = os.path.join(image_root, record["file_name"])
        images[record["image_id"]] = record
    without_size = [image for image in images.values() if "height" not in image]
    if without_size:
        with ThreadPoolExecutor() as pool:
            sizes = pool.map(read_image_size, [image["file_name"] for image in without_size])
            for image, (height, width) in zip(without_size, sizes, strict=True):
                image["height"], image["width"] = height, width
    return images


def _attach_annotations(images, annotations, class_ids, json_file):
    for image in images.values():
        image["annotations"] = []
    for annotation in annotations:
        try:
            image = images[annotation["image_id"]]
            category = class_ids[annotation["category_id"]]
            box = annotation["bbox"]
            x, y, w, h = box
            valid = w > 0 and h > 0 and math.isfinite(x + y + w + h)
        except (KeyError, TypeError, ValueError) as e:
            raise UserError(_explain_annotation(annotation, images, class_ids, json_file)) from e
        if not valid:
            raise UserError(_explain_annotation(annotation, images, class_ids, json_file))
        record = {
            "bbox": box,
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": category,
            "iscrowd": annotation.get("iscrowd", 0),
        }
        if "area" in annotation:  # of a mask, by which COCO calls an object small or large
            record["area"] = annotation["area"]
        image["annotations"].append(record)


def _explain_annotation(annotation, images, class_ids, json_file) -> str:
    if not isinstance(annotation, dict):
        return f"'{json_file}': the annotation {annotation!r} is not a JSON object."
    label = (
        f"'{json_file}': annotation {annotation['id']!r}" if "id" in annotation else f"'{json_file}': {annotation!r}"
    )
    missing = [key for key in ("image_id", "category_id", "bbox") if key not in annotation]
    if missing:
        return f"{label} has no '{missing[0]}'."
    image_id, category_id, box = annotation["image_id"], annotation["category_id"], annotation["bbox"]
    if not isinstance(image_id, int | str) or image_id not in images:
        return f"{label} belongs to the image id {image_id!r}, which is not among the 'images'."
    if not isinstance(category_id, int | str) or category_id not in class_ids:
        return f"{label} has the unknown category id {category_id!r}; known are {', '.join(map(str, class_ids))}."
    return f"{label} has the bbox {box!r}; it must be [x, y, width, height], finite, width and height above 0."
