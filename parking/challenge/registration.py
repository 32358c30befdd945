"""Registration of the data sets that a config names; category ids of class names."""

import logging
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.utils import comm

from parking.data.cache import get_default_cache_dir
from parking.data.datasets.coco import check_datasets, register_coco_datasets
from parking.utils.constants import PARKING_DATASETS
from parking.utils.errors import UserError

from .classes import CLASS_NAMES
from .datasets import EMPTY_VAL, register_parking_datasets

logger = logging.getLogger(__name__)


def register_datasets_from_config(cfg: CfgNode, names: Sequence[str] | None = None) -> None:
    """Register the data sets of ``DATASETS.COCO`` and, if ``names`` has any of them, the ``parking_*`` data sets.

    The metadata (``thing_classes`` and the like) of ``names`` is available at once; images and annotations are read
    when a data set is first loaded, and again after another call of this function.

    If ``DATASETS.SPLIT`` is "all", ``parking_val`` has no images and is removed from ``DATASETS.TEST``.

    Args:
        names: the data sets that will be used; None: all of ``DATASETS.TRAIN`` and ``DATASETS.TEST``.

    Raises:
        UserError: one of ``names`` is unknown, they have different classes, none of them has images, or
            :func:`register_coco_datasets` or :func:`register_parking_datasets` refuses the config.
    """
    how = {
        "policy": cfg.DATASETS.POLICY,
        "allow_outside": cfg.DATASETS.ALLOW_OUTSIDE,
        "exif_orientation": cfg.INPUT.EXIF_ORIENTATION,
    }
    if names is None:
        names = [*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]
    _check_cache_dir(cfg, names)
    register_coco_datasets(cfg.DATASETS.COCO, reserved_names=PARKING_DATASETS, **how)
    if any(name in PARKING_DATASETS for name in names):
        register_parking_datasets(
            cfg.DATASETS.ROOT,
            split=cfg.DATASETS.SPLIT,
            val_fraction=cfg.DATASETS.VAL_FRACTION,
            split_seed=cfg.DATASETS.SPLIT_SEED,
            **how,
        )
    check_datasets(names)
    if cfg.DATASETS.SPLIT == "all" and "parking_val" in names:
        _drop_parking_val(cfg, names)


def _check_cache_dir(cfg: CfgNode, names: Sequence[str]) -> None:
    cache_dir = cfg.INPUT.CACHE_DIR or get_default_cache_dir()
    folders = [entry[2] for entry in cfg.DATASETS.COCO if isinstance(entry, list | tuple) and len(entry) == 3]
    if any(name in PARKING_DATASETS for name in names):
        folders.append(cfg.DATASETS.ROOT)
    for folder in folders:
        if isinstance(folder, str) and Path(cache_dir).expanduser().resolve().is_relative_to(Path(folder).resolve()):
            raise UserError(
                f"INPUT.CACHE_DIR '{cache_dir}' lies in the data folder '{folder}', where nothing is ever written; "
                f"choose another folder."
            )


def _drop_parking_val(cfg: CfgNode, names: Sequence[str]) -> None:
    rest = tuple(name for name in cfg.DATASETS.TEST if name != "parking_val")
    if cfg.is_frozen() or "parking_val" in cfg.DATASETS.TRAIN or all(name == "parking_val" for name in names):
        raise UserError(EMPTY_VAL)
    cfg.DATASETS.TEST = rest
    if comm.is_main_process():
        logger.info(
            "DATASETS.SPLIT all trains on everything: parking_val is empty and left out of evaluations, which use: "
            f"{', '.join(rest) or 'nothing'}."
        )


def find_category_ids(class_names: Sequence[str]) -> list[int] | None:
    """The category id of each class; None unless all names are COCO's or all are the challenge's."""
    known = [{category["name"]: category["id"] for category in COCO_CATEGORIES if category["isthing"]}]
    known.append({name: i for i, name in enumerate(CLASS_NAMES, start=1)})
    for ids in known:
        if all(name in ids for name in class_names):
            return [ids[name] for name in class_names]
    return None
