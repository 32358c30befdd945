"""Check that a resumed training has the config and the data that it began with."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from parking.config import CfgNode, get_cfg, typed_keys
from parking.config.checks import Recipe, changes_weights, find_value, reads_scores, scores_steer
from parking.config.compat import earlier_behaviour, find_changed_scores
from parking.config.plain import flatten
from parking.utils.errors import UserError
from parking.utils.text import show

logger = logging.getLogger(__name__)


def check_same_recipe(recipe: Recipe, earlier: Mapping[str, Any], *, output_dir: str) -> None:
    """Raise a UserError if ``recipe`` and ``earlier`` differ in a key that can change the final weights.

    :attr:`parking.config.checks.Check.changes_weights` says which keys can. A changed key that affects only evaluations
    is logged.

    Args:
        recipe: the present config.
        earlier: the values of the config that the training began with, by full key. A key that only one of the two has
            is from another version and is not compared.
        output_dir: folder of the training, for the message.
    """
    for key, value in recipe.values.items():
        if key not in earlier or earlier[key] == value:
            continue
        if changes_weights(key, recipe, recipe._replace(values=earlier)):
            raise UserError(
                f"--resume: {key} is {show(value)}, but the training in {output_dir} began with "
                f"{show(earlier[key])} and would end with other weights than an uninterrupted one; set it back, "
                f"or start anew with --overwrite."
            )
        if reads_scores(key):
            logger.warning(
                f"--resume: {key} is {show(value)} and was {show(earlier[key])}: scores before and after the "
                f"interruption do not compare, and model_best.pth is chosen by both."
            )


def keep_earlier_behaviour(cfg: CfgNode, earlier: Mapping[str, Any], opts: Sequence[str]) -> None:
    """Set keys that are newer than a resumed training to the values that keep the behaviour with which it began.

    Args:
        cfg: config of the resumed training, changed in place. Values that are not the default, or that the command line
            states, stay.
        earlier: the config that the training began with, as nested plain values, translated to the present version.
        opts: KEY VALUE pairs of the command line.
    """
    values, default, typed = dict(flatten(earlier)), get_cfg(), typed_keys(opts)
    for key, value in earlier_behaviour().items():
        if values.get(key) != value or key in typed or find_value(cfg, key) != find_value(default, key):
            continue
        logger.info(f"{key} is {show(value)}, with which the training in {cfg.OUTPUT_DIR} began")
        *groups, last = key.split(".")
        find_value(cfg, ".".join(groups))[last] = value


def tell_changed_scores(recipe: Recipe, version: int, *, output_dir: str) -> None:
    """Warn if a training depends on scores and was begun by a version that computes scores in another way.

    Args:
        recipe: the present config.
        version: VERSION of the config that the training began with.
    """
    changes = find_changed_scores(version)
    if changes and scores_steer(recipe):
        logger.warning(
            f"--resume: the training in {output_dir} was begun by a release with configs of VERSION {version}, which "
            f"scored data {'; data '.join(changes)} otherwise. If DATASETS.TEST is such, early stopping, the choice of "
            f"the best weights and class-balanced sampling may differ from those of an uninterrupted training."
        )


def check_same_data(recipe: Recipe, digests: Mapping[str, str], earlier: Mapping[str, str], *, output_dir: str) -> None:
    """Raise a UserError if a data set has changed since the training began; the message names the data set.

    DATASETS.TEST is compared only if its scores can change the weights.

    Args:
        recipe: the present config.
        digests: results of :func:`digest_dataset` by the name of the data set.
        earlier: these digests as they were when the training began.
    """
    names = {*recipe.values["DATASETS.TRAIN"]}
    if scores_steer(recipe):
        names |= {*recipe.values["DATASETS.TEST"]}
    for name in sorted(names):
        if digests[name] != earlier.get(name):
            raise UserError(
                f"--resume: the images or boxes of {name} (DATASETS.TRAIN, DATASETS.TEST) are not those that the "
                f"training in {output_dir} began with; start anew with --overwrite."
            )


def digest_dataset(dataset_dicts: list[dict]) -> str:
    """Return a digest of a data set's images, their order, sizes and boxes; the images' folders do not matter."""
    digest = hashlib.sha256()
    for record in dataset_dicts:
        boxes = [[*map(float, a["bbox"]), a["category_id"], a.get("iscrowd", 0)] for a in record.get("annotations", ())]
        fields = [os.path.basename(record["file_name"]), str(record["image_id"]), record["height"], record["width"]]
        digest.update(json.dumps([fields, boxes]).encode())
    return digest.hexdigest()
