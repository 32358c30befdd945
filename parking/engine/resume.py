"""Whether a training may go on where an earlier one stopped."""

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


def check_same_recipe(
    config: Mapping[str, Any], earlier: Mapping[str, Any], *, output_dir: str, is_followed: bool = False
) -> None:
    """Raise a UserError that names the first key whose change since the training began could change its weights.

    :attr:`parking.config.checks.Check.changes_weights` says which keys can. A changed key that only evaluations read is
    logged.

    Args:
        config, earlier: nested plain values. A key that only one of them has is not compared: it is of another version.
        output_dir: of the training, for the message.
        is_followed: see :class:`parking.config.checks.Recipe`.
    """
    values, earlier_values = dict(flatten(config)), dict(flatten(earlier))
    recipes = Recipe(values, is_followed), Recipe(earlier_values, is_followed)
    for key, value in values.items():
        if key not in earlier_values or earlier_values[key] == value:
            continue
        if changes_weights(key, *recipes):
            raise UserError(
                f"--resume: {key} is {show(value)}, but the training in {output_dir} began with "
                f"{show(earlier_values[key])}, and would not be what an uninterrupted one is; set it back, or start "
                f"anew with --overwrite."
            )
        if reads_scores(key):
            logger.warning(
                f"--resume: {key} is {show(value)} and was {show(earlier_values[key])}: scores before and after the "
                f"interruption do not compare, and model_best.pth is chosen by both."
            )


def keep_earlier_behaviour(cfg: CfgNode, earlier: Mapping[str, Any], opts: Sequence[str]) -> None:
    """Give keys that did not exist when a training began the values that keep its behaviour.

    Args:
        cfg: of the resumed training, changed in place. A value that is not the default, or was typed, stays.
        earlier: what it began with, nested, as of the present version.
        opts: KEY VALUE pairs of the command line.
    """
    values, default, typed = dict(flatten(earlier)), get_cfg(), typed_keys(opts)
    for key, value in earlier_behaviour().items():
        if values.get(key) != value or key in typed or find_value(cfg, key) != find_value(default, key):
            continue
        logger.info(f"{key} is {show(value)}, with which the training in {cfg.OUTPUT_DIR} began")
        *groups, last = key.split(".")
        find_value(cfg, ".".join(groups))[last] = value


def tell_changed_scores(config: Mapping[str, Any], version: int, *, output_dir: str, is_followed: bool) -> None:
    """Warn if a resumed training uses scores that the version it began with computed differently.

    Args:
        config: nested plain values.
        version: that the training began with.
    """
    changes = find_changed_scores(version)
    if changes and scores_steer(Recipe(dict(flatten(config)), is_followed)):
        logger.warning(
            f"--resume: the training in {output_dir} was begun by a release with configs of VERSION {version}, which "
            f"scored data {'; data '.join(changes)} otherwise. If DATASETS.TEST is such, early stopping, the choice of "
            f"the best weights and class-balanced sampling may differ from those of an uninterrupted training."
        )


def check_same_data(
    config: Mapping[str, Any],
    digests: Mapping[str, str],
    earlier: Mapping[str, str],
    *,
    output_dir: str,
    is_followed: bool = False,
) -> None:
    """Raise a UserError that names the first data set which is not what it was when the training began.

    DATASETS.TEST is compared only where its scores can change the weights.

    Args:
        digests, earlier: of :func:`digest_dataset`, by the data set's name.
    """
    names = {*config["DATASETS"]["TRAIN"]}
    if scores_steer(Recipe(dict(flatten(config)), is_followed)):
        names |= {*config["DATASETS"]["TEST"]}
    for name in sorted(names):
        if digests[name] != earlier.get(name):
            raise UserError(
                f"--resume: the images or boxes of {name} (DATASETS.TRAIN, DATASETS.TEST) are not those that the "
                f"training in {output_dir} began with; start anew with --overwrite."
            )


def digest_dataset(dataset_dicts: list[dict]) -> str:
    """A text that differs if images, their order, sizes or boxes differ; the folders of the files do not count."""
    digest = hashlib.sha256()
    for record in dataset_dicts:
        boxes = [[*map(float, a["bbox"]), a["category_id"], a.get("iscrowd", 0)] for a in record.get("annotations", ())]
        fields = [os.path.basename(record["file_name"]), str(record["image_id"]), record["height"], record["width"]]
        digest.update(json.dumps([fields, boxes]).encode())
    return digest.hexdigest()
