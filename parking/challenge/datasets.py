"""The challenge's data: ``parking_train``, ``parking_val``, ``parking_trainval`` and ``parking_test``."""

import logging
import os
from functools import cache, partial

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


def register_parking_datasets(
    root: str,
    *,
    split: str = "sequence",
    val_fraction: float = 0.12,
    split_seed: int = 0,
    **reading,
) -> None:
    """Register the four ``parking_*`` data sets of the layout below ``root`` (see ``datasets/README.md``).

    Files are read when a data set is first loaded, and a missing or wrong file is an error only then. Each file is read
    once. A second registration replaces the data sets and makes them read their files again.

    Args:
        split: how ``parking_trainval`` is divided into ``parking_train`` and ``parking_val``, see :mod:`.splits`.
            "all" leaves ``parking_val`` empty; then it is an error to load ``parking_val``.
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
    labelled = (os.path.join(root, "train", "label", "Train.json"), os.path.join(root, "train", "images"))
    test = (os.path.join(root, "Test_Images_Information.json"), os.path.join(root, "test", "images"))
    # Read and divide the labelled images only once, because three of the data sets share them.
    load_labelled = cache(partial(_load, root, *labelled, **reading))
    divide = cache(lambda: _divide(load_labelled(), split, val_fraction, split_seed))
    load_test = partial(_load, root, *test, with_annotations=False, **reading)
    loaders = {
        "parking_train": lambda: to_dicts(load_labelled().select(np.flatnonzero(~divide()))),
        "parking_val": lambda: _to_val_dicts(load_labelled(), divide()),
        "parking_trainval": lambda: to_dicts(load_labelled()),
        "parking_test": load_once(load_test, with_annotations=False),
    }
    for name in PARKING_DATASETS:
        json_file, image_root = test if name == "parking_test" else labelled
        register_dataset(
            name,
            loaders[name],
            json_file=json_file,
            image_root=image_root,
            evaluator_type="coco",
            thing_classes=list(CLASS_NAMES),
            thing_classes_ko=list(CLASS_NAMES_KO),
            thing_colors=list(CLASS_COLORS),
            thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(CLASS_NAMES))},
        )


def _divide(columns: Columns, split: str, val_fraction: float, seed: int) -> np.ndarray:
    in_val = split_images(split, columns, len(CLASS_NAMES), val_fraction=val_fraction, seed=seed)
    if comm.is_main_process():
        _log_split(split, columns.class_counts(len(CLASS_NAMES)), in_val)
    return in_val


def _to_val_dicts(columns: Columns, in_val: np.ndarray) -> list[dict]:
    if not in_val.any():
        raise UserError(EMPTY_VAL)
    return to_dicts(columns.select(np.flatnonzero(in_val)))


def _log_split(split: str, counts: np.ndarray, in_val: np.ndarray) -> None:
    """Log how many images and boxes are for training and for validation.

    Args:
        counts: (N, C) boxes of each image and class.
        in_val: (N,) bool, which images are for validation.
    """
    sides = [counts[~in_val].sum(axis=0), counts[in_val].sum(axis=0)]
    rows = [("images", (~in_val).sum(), in_val.sum())]
    rows += [(name, *numbers) for name, *numbers in zip(CLASS_NAMES, *sides, strict=True)]
    lines = [f"DATASETS.SPLIT {split}:", f"{'':12}{'training':>10}{'validation':>12}"]
    lines += [f"{name:12}{train:10}{val:12}  ({val / max(train + val, 1):.1%})" for name, train, val in rows]
    logger.info("\n".join(lines))


def _load(root, json_file, image_root, **arguments) -> Columns:
    for path, exists in ((root, os.path.isdir), (json_file, os.path.isfile), (image_root, os.path.isdir)):
        if not exists(path):
            raise UserError(
                f"'{path}' does not exist: the data root '{root}' (DATASETS.ROOT) must hold train/images, "
                "train/label/Train.json, test/images and Test_Images_Information.json; see datasets/README.md."
            )
    return load_columns(json_file, image_root, dict(enumerate(CLASS_NAMES, start=1)), **arguments)
