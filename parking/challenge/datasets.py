"""The challenge's data: ``parking_train``, ``parking_val``, ``parking_trainval`` and ``parking_test``."""

import logging
import os
from functools import cached_property, partial

import numpy as np
from detectron2.utils import comm

from parking.data.datasets.coco import load_columns, load_once, register_dataset, to_dicts
from parking.data.datasets.columns import Columns
from parking.utils.constants import PARKING_DATASETS
from parking.utils.errors import UserError

from .classes import CLASS_COLORS, CLASS_NAMES, CLASS_NAMES_KO
from .splits import SPLITS, split_images

logger = logging.getLogger(__name__)

EMPTY_VAL = (
    "DATASETS.SPLIT 'all' leaves nothing for parking_val; name another data set, or set DATASETS.SPLIT to 'sequence'."
)
PARKING_CLASS_IDS = {i + 1: i for i in range(len(CLASS_NAMES))}


def register_parking_datasets(
    root: str,
    *,
    split: str = "sequence",
    val_fraction: float = 0.12,
    split_seed: int = 0,
    **reading,
) -> None:
    """Register the four ``parking_*`` data sets of the layout below ``root`` (see ``datasets/README.md``).

    Nothing is read yet: a missing or wrong file is an error when a data set is first loaded. Each file is read once;
    registering again replaces the data sets, and they are read again.

    Args:
        split: how ``parking_trainval`` is divided into ``parking_train`` and ``parking_val``, see :mod:`.splits`.
            "all" leaves ``parking_val`` empty, and loading it is an error.
        val_fraction: share of the images that "sequence" keeps for validation.
        split_seed: determines which images "sequence" chooses.
        reading: ``policy`` and other arguments of :func:`parking.data.datasets.coco.load_columns`.

    Raises:
        UserError: ``split`` is unknown, or ``val_fraction`` is not between 0 and 1.
    """
    if split not in SPLITS:
        raise UserError(f"DATASETS.SPLIT '{split}' is unknown; choose one of {', '.join(SPLITS)}.")
    if not 0 < val_fraction < 1:
        raise UserError(f"DATASETS.VAL_FRACTION {val_fraction} must lie between 0 and 1.")
    train_json = os.path.join(root, "train", "label", "Train.json")
    train_images = os.path.join(root, "train", "images")
    test_json = os.path.join(root, "Test_Images_Information.json")
    test_images = os.path.join(root, "test", "images")
    load_train, load_test = (
        partial(_load, root, json_file, image_root, **reading)
        for json_file, image_root in ((train_json, train_images), (test_json, test_images))
    )
    labelled = _LabelledImages(load_train, split, val_fraction, split_seed)
    loaders = {
        "parking_train": labelled.load_train,
        "parking_val": labelled.load_val,
        "parking_trainval": labelled.load_all,
        "parking_test": load_once(partial(load_test, with_annotations=False), with_annotations=False),
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
    """The labelled images, which three of the data sets share; read and divided only once."""

    def __init__(self, load, split: str, val_fraction: float, seed: int):
        self._load = load
        self._split = split
        self._val_fraction = val_fraction
        self._seed = seed

    def load_all(self) -> list[dict]:
        return to_dicts(self._columns)

    def load_train(self) -> list[dict]:
        return to_dicts(self._columns.select(self._parts[0]))

    def load_val(self) -> list[dict]:
        if not self._parts[1]:
            raise UserError(EMPTY_VAL)
        return to_dicts(self._columns.select(self._parts[1]))

    @cached_property
    def _columns(self) -> Columns:
        return self._load()

    @cached_property
    def _parts(self) -> tuple[list[int], list[int]]:
        """Indices of the training and of the validation images."""
        num_classes = len(CLASS_NAMES)
        in_val = split_images(self._split, self._columns, num_classes, val_fraction=self._val_fraction, seed=self._seed)
        if comm.is_main_process():
            _log_split(self._split, self._columns.class_counts(num_classes), in_val)
        return np.flatnonzero(~in_val).tolist(), np.flatnonzero(in_val).tolist()


def _log_split(split: str, counts: np.ndarray, in_val: np.ndarray) -> None:
    """Log images and boxes of both sides, given boxes per image and class (N, C) and the validation mask (N,)."""
    sides = [counts[~in_val].sum(axis=0), counts[in_val].sum(axis=0)]
    rows = [("images", (~in_val).sum(), in_val.sum())]
    rows += [(name, *numbers) for name, *numbers in zip(CLASS_NAMES, *sides, strict=True)]
    lines = [f"DATASETS.SPLIT {split}:", f"{'':12}{'training':>10}{'validation':>12}"]
    lines += [f"{name:12}{train:10}{val:12}  ({val / max(train + val, 1):.1%})" for name, train, val in rows]
    logger.info("\n".join(lines))


def _load(root, json_file, image_root, **arguments) -> Columns:
    _check_layout(root, json_file, image_root)
    return load_columns(json_file, image_root, dict(enumerate(CLASS_NAMES, start=1)), **arguments)


def _check_layout(root, json_file, image_root):
    for path, exists in ((root, os.path.isdir), (json_file, os.path.isfile), (image_root, os.path.isdir)):
        if not exists(path):
            raise UserError(
                f"'{path}' does not exist: the data root '{root}' (DATASETS.ROOT) must hold train/images, "
                "train/label/Train.json, test/images and Test_Images_Information.json; see datasets/README.md."
            )
