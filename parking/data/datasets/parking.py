"""The challenge's data: ``parking_train``, ``parking_val``, ``parking_trainval`` and ``parking_test``."""

import os
from collections import Counter
from functools import cached_property, partial

from parking.data.datasets.classes import CLASS_COLORS, CLASS_NAMES, CLASS_NAMES_KO
from parking.data.datasets.coco import load_coco_json, load_once, register_dataset
from parking.data.datasets.splits import split_by_sequence, split_entry
from parking.utils.errors import UserError

PARKING_DATASETS = ("parking_train", "parking_val", "parking_trainval", "parking_test")
PARKING_CLASS_IDS = {i + 1: i for i in range(len(CLASS_NAMES))}
SPLITS = ("sequence", "entry")


def register_parking_datasets(root: str, *, split: str = "sequence", val_fraction: float = 0.12) -> None:
    """Register the four ``parking_*`` data sets of the layout below ``root`` (see ``datasets/README.md``).

    Reads nothing: files are looked for, and errors raised, when a data set is first loaded. Each file is read once;
    registering again replaces the data sets, and has them read again.

    Args:
        split: how ``parking_trainval`` is divided into ``parking_train`` and ``parking_val``, see :mod:`.splits`.
        val_fraction: share of the images that "sequence" keeps for validation.

    Raises:
        UserError: unknown ``split``, ``val_fraction`` not between 0 and 1.
    """
    if split not in SPLITS:
        raise UserError(f"DATASETS.SPLIT '{split}' is unknown; choose one of {', '.join(SPLITS)}.")
    if not 0 < val_fraction < 1:
        raise UserError(f"DATASETS.VAL_FRACTION {val_fraction} must lie between 0 and 1.")
    train_json = os.path.join(root, "train", "label", "Train.json")
    train_images = os.path.join(root, "train", "images")
    test_json = os.path.join(root, "Test_Images_Information.json")
    test_images = os.path.join(root, "test", "images")
    labelled = _LabelledImages(root, train_json, train_images, split, val_fraction)
    loaders = {
        "parking_train": labelled.load_train,
        "parking_val": labelled.load_val,
        "parking_trainval": labelled.load_all,
        "parking_test": load_once(partial(_load_test, root, test_json, test_images)),
    }
    for name in PARKING_DATASETS:
        is_test = name == "parking_test"
        register_dataset(
            name,
            loaders[name],
            json_file=test_json if is_test else train_json,
            image_root=test_images if is_test else train_images,
            evaluator_type="coco",
            thing_classes=list(CLASS_NAMES),
            thing_classes_ko=list(CLASS_NAMES_KO),
            thing_colors=list(CLASS_COLORS),
            thing_dataset_id_to_contiguous_id=dict(PARKING_CLASS_IDS),
        )


class _LabelledImages:
    """What three of the data sets share, so that it is read and divided only once."""

    def __init__(self, root: str, json_file: str, image_root: str, split: str, val_fraction: float):
        self._root = root
        self._json_file = json_file
        self._image_root = image_root
        self._split = split
        self._val_fraction = val_fraction
        self.load_all = load_once(self._read)

    def load_train(self) -> list[dict]:
        return self.load_all(self._parts[0])

    def load_val(self) -> list[dict]:
        return self.load_all(self._parts[1])

    def _read(self):
        _check_layout(self._root, self._json_file, self._image_root)
        return load_coco_json(self._json_file, self._image_root, PARKING_CLASS_IDS)

    @cached_property
    def _parts(self) -> tuple[list[int], list[int]]:
        """Indices of the training and of the validation images."""
        dicts = self.load_all()
        if self._split == "entry":
            val_ids = split_entry([d["image_id"] for d in dicts])
        else:
            file_names = {d["image_id"]: os.path.relpath(d["file_name"], self._image_root) for d in dicts}
            class_counts = {d["image_id"]: Counter(a["category_id"] for a in d["annotations"]) for d in dicts}
            val_ids = split_by_sequence(file_names, class_counts, self._val_fraction)
        parts: tuple[list[int], list[int]] = ([], [])
        for i, d in enumerate(dicts):
            parts[d["image_id"] in val_ids].append(i)
        return parts


def _load_test(root, json_file, image_root):
    _check_layout(root, json_file, image_root)
    return load_coco_json(json_file, image_root, PARKING_CLASS_IDS, with_annotations=False)


def _check_layout(root, json_file, image_root):
    for path, exists in ((root, os.path.isdir), (json_file, os.path.isfile), (image_root, os.path.isdir)):
        if not exists(path):
            raise UserError(
                f"'{path}' does not exist: the data root '{root}' (DATASETS.ROOT) must hold train/images, "
                "train/label/Train.json, test/images and Test_Images_Information.json; see datasets/README.md."
            )
