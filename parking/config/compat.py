"""Translate configs, weights and checkpoints that older versions of this project wrote.

``VERSION`` is a number that grows when keys of the config, names of tensors or the state of a training change. Files
without ``VERSION`` have version 1. One table, :data:`UPGRADES`, says what changed from each version to the next.
Everything that is read is translated by :func:`upgrade_config` or :func:`upgrade_tensor_name`: yaml files and their
``_BASE_``, KEY VALUE pairs, and the configs and tensors in weights and checkpoints. The files themselves never change.
"""

import ast
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from detectron2.utils import comm
from detectron2.utils.logger import log_first_n

from parking.utils.errors import UserError
from parking.utils.text import printable, show

#: Version of the files that this code writes.
CURRENT_VERSION = 3
#: Version of a file without ``VERSION``.
FIRST_VERSION = 1
_VERSION = "VERSION"


class Upgrade(NamedTuple):
    """What changed from one version to the next.

    Old names of keys and tensors are never used again with another meaning, so they can be translated wherever they
    occur. If the values of a key get another meaning, the key gets another name, too.

    Attributes:
        keys: new full name of a key or group of keys by its old full name.
        removed: by the full name of a key that no longer exists, the only value that it may still have, because the
            code now always behaves like this. Other values are errors.
        values: by the old name of a key in ``keys``, a function that converts its old value to the new one; it may
            raise a ValueError or TypeError.
        earlier_behaviour: by the full name of a new key, the value that keeps the behaviour of older versions, if it is
            not the default. It is added to configs that state all values of a training.
        tensors: pairs of a regular expression, which the whole old name of a tensor must match, and the new name, in
            which \\1 stands for the first group.
        scores: words that say on which data older versions computed other scores; "" if on none.
    """

    keys: Mapping[str, str] = {}
    removed: Mapping[str, Any] = {}
    values: Mapping[str, Callable[[Any], Any]] = {}
    earlier_behaviour: Mapping[str, Any] = {}
    tensors: Sequence[tuple[str, str]] = ()
    scores: str = ""


#: For each version before the current one, what changed in the version that follows it.
UPGRADES: Mapping[int, Upgrade] = {
    # Version 1 ignored EXIF orientations and used pictures as they are stored.
    1: Upgrade(
        earlier_behaviour={"INPUT.EXIF_ORIENTATION": "ignore"},
        scores="with impossible areas, or without boxes of some class",
    ),
    # Version 2 had only one head, whose parts and keys belonged to the detector as a whole.
    2: Upgrade(
        keys={
            "MODEL.YOLO.HEAD.NAME": "MODEL.HEAD.NAME",
            "MODEL.YOLO.ANCHORS": "MODEL.ANCHOR_HEAD.ANCHORS",
            "MODEL.YOLO.ANCHORS_FROM_WEIGHTS": "MODEL.ANCHOR_HEAD.ANCHORS_FROM_WEIGHTS",
            "MODEL.YOLO.ASSIGNER.ANCHOR_RATIO": "MODEL.ANCHOR_HEAD.ANCHOR_RATIO",
            "MODEL.YOLO.LOSS": "MODEL.ANCHOR_HEAD.LOSS",
        },
        values={"MODEL.YOLO.HEAD.NAME": lambda name: "AnchorHead" if name == "YOLOHead" else name},
        removed={
            "MODEL.ANCHOR_GENERATOR.NAME": "YOLOAnchorGenerator",
            "MODEL.YOLO.ASSIGNER.NAME": "RatioAssigner",
        },
        tensors=[(r"anchor_generator\.anchors", "head.anchors")],
        scores="on a GPU (all of them, in float32)",
    ),
}


def read_version(config: Any, source: str) -> int:
    """Return the VERSION that a config states; :data:`FIRST_VERSION` if it states none.

    Args:
        source: words for messages that say where the config comes from.

    Raises:
        UserError: VERSION is not a version, or is the version of a newer release.
    """
    if not isinstance(config, Mapping) or _VERSION not in config:
        return FIRST_VERSION
    version = _decode(config[_VERSION])
    if type(version) is not int or version < FIRST_VERSION:
        raise UserError(
            f"{source}: VERSION is {show(version)}; it must be a whole number from {FIRST_VERSION} to "
            f"{CURRENT_VERSION}."
        )
    if version > CURRENT_VERSION:
        raise UserError(
            f"{source}: VERSION is {show(version)}, and this code knows versions up to {CURRENT_VERSION}; use a newer "
            f"release of parking."
        )
    return version


def upgrade_config(config: Mapping[Any, Any], source: str, *, is_complete: bool = False) -> dict[Any, Any]:
    """Return ``config`` with today's keys and VERSION; log each translated key once.

    Args:
        config: nested plain values with any keys and values; it is not changed.
        source: words for messages that say where the config comes from.
        is_complete: whether ``config`` states all values of a run. If so, keys that its version did not have get the
            values of :attr:`Upgrade.earlier_behaviour`.

    Raises:
        UserError: VERSION is wrong (see :func:`read_version`), a key occurs by both its old and its new name, or a
            value cannot be translated.
    """
    values = dict(_flatten(config))
    for upgrade in _list_upgrades(read_version(config, source)):
        for old, new in upgrade.keys.items():
            _rename(values, old, new, upgrade.values.get(old), source)
        for key, only_value in upgrade.removed.items():
            path = tuple(key.split("."))
            if path in values and _decode(values[path]) != only_value:
                raise UserError(f"{source}: {key} is {show(values[path])}, but no longer exists; leave it out.")
            values.pop(path, None)
        for key, value in upgrade.earlier_behaviour.items() if is_complete else ():
            values.setdefault(tuple(key.split(".")), value)
    return {**_nest(values), _VERSION: CURRENT_VERSION}


def _list_upgrades(version: int) -> list[Upgrade]:
    """Return the upgrades from ``version`` to :data:`CURRENT_VERSION`, in order."""
    return [UPGRADES.get(v, Upgrade()) for v in range(version, CURRENT_VERSION)]


def upgrade_key(key: str) -> str:
    """Return today's full name of a key, given its full name in any version."""
    for upgrade in _list_upgrades(FIRST_VERSION):
        for old, new in upgrade.keys.items():
            if key == old or key.startswith(f"{old}."):
                key = new + key.removeprefix(old)
    return key


def earlier_behaviour() -> dict[str, Any]:
    """Return, for each key whose default would change the behaviour of older versions, the value that keeps it."""
    return {
        upgrade_key(key): value for upgrade in UPGRADES.values() for key, value in upgrade.earlier_behaviour.items()
    }


def find_changed_scores(version: int) -> list[str]:
    """List the kinds of data, in words, on which ``version`` computed other scores than this code does."""
    return [upgrade.scores for upgrade in _list_upgrades(version) if upgrade.scores]


def upgrade_tensor_name(name: str, version: int) -> str:
    """Return today's name of the tensor that ``version`` called ``name``."""
    for upgrade in _list_upgrades(version):
        for pattern, new in upgrade.tensors:
            match = re.fullmatch(pattern, name)
            if match:
                name = match.expand(new)
                break
    return name


def upgrade_tensor_names(state: Mapping[str, Any], version: int, source: str) -> dict[str, Any]:
    """Return the tensors of ``state`` by today's names, in the same order.

    Raises:
        UserError: two tensors have the same name today.
    """
    upgraded: dict[str, Any] = {}
    for name, tensor in state.items():
        new = upgrade_tensor_name(name, version)
        if new in upgraded:
            raise UserError(f"{source}: the tensor {printable(new[:100])} occurs twice, once by its older name.")
        upgraded[new] = tensor
    return upgraded


def upgrade_checkpoint(checkpoint: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Translate the checkpoint of a training to today's version; leave its "model" unchanged if that is not a mapping.

    Raises:
        UserError: the VERSION of its config is wrong (see :func:`read_version`), a tensor occurs twice, or the training
            cannot continue exactly.
        ValueError, TypeError, LookupError, AttributeError: this is not the checkpoint of a training.
    """
    config, model, trainer = (checkpoint.get(key) for key in ("config", "model", "trainer"))
    version, upgraded = read_version(config, source), dict(checkpoint)
    if config is not None:
        upgraded["config"] = upgrade_config(config, source, is_complete=True)
    if isinstance(model, Mapping):
        upgraded["model"] = upgrade_tensor_names(model, version, source)
    if "ema" in checkpoint:
        average = upgrade_tensor_names(checkpoint["ema"]["average"], version, source)
        upgraded["ema"] = {**checkpoint["ema"], "average": average}
    if trainer is None:
        return upgraded
    state = trainer["_trainer"]
    names = _name_first_training_state(model) if version == FIRST_VERSION else state["names"]
    upgraded["trainer"] = {**trainer, "_trainer": {**state, "names": _upgrade_training_names(names, version)}}
    return _rewind_to_step(upgraded, source)


def _rewind_to_step(checkpoint: dict[str, Any], source: str) -> dict[str, Any]:
    """Set a checkpoint back to the optimizer's last step, so that the training repeats the iterations after it.

    Early releases also saved between two steps, with the gradients accumulated so far and the norm statistics of the
    last step. Weights, their average and the optimizer are then still as the last step left them. The repeated
    iterations are the same as before, because each iteration always gets the same samples.
    """
    trainer, model = checkpoint["trainer"], checkpoint["model"]
    state = dict(trainer["_trainer"])
    _, _, buffers = (state.pop(key, None) for key in ("gradients", "since_step", "sound_buffers"))
    checkpoint = {**checkpoint, "trainer": {**trainer, "_trainer": state}}
    iteration, step = trainer["iteration"], state["last_step_iteration"]
    if buffers is None or not step < iteration < trainer["max_iter"] - 1:
        return checkpoint
    is_balanced = checkpoint["config"]["DATALOADER"]["SAMPLER_TRAIN"] == "ClassBalancedTrainingSampler"
    if is_balanced and trainer["evaluated_before"] > step + 1:
        raise UserError(
            f"{source} was saved by an older release right after an evaluation, amid the iterations of one step, which "
            f"this release cannot repeat with DATALOADER.SAMPLER_TRAIN ClassBalancedTrainingSampler; resume from the "
            f"previous checkpoint (write its name into last_checkpoint), or with that release."
        )
    restored = {name: buffer for name, buffer in zip(state["names"]["buffers"], buffers, strict=True) if name in model}
    counts = {name: n - (iteration - step) for name, n in model.items() if name.endswith(".num_batches_tracked")}
    hooks = {**trainer["hooks"], "LRScheduler": {**trainer["hooks"]["LRScheduler"], "last_epoch": step + 1}}
    state["iteration"] = step
    return {
        **checkpoint,
        "model": {**model, **restored, **counts},
        "trainer": {**trainer, "iteration": step, "hooks": hooks, "_trainer": state},
    }


def _upgrade_training_names(names: Mapping[str, list], version: int) -> dict[str, list]:
    def upgrade(old: list[str]) -> list[str]:
        return [upgrade_tensor_name(name, version) for name in old]

    return {
        "parameters": upgrade(names["parameters"]),
        "buffers": upgrade(names["buffers"]),
        "optimizer": [upgrade(group) for group in names["optimizer"]],
    }


def _name_first_training_state(names: Iterable[str]) -> dict[str, Any]:
    """Return the names of parameters, buffers and optimizer groups, which version 1 did not save in a checkpoint.

    The form is that of ``AccumulatingTrainer.list_names``.

    Args:
        names: names of the model's tensors, in the model's order. All of the model's parameters were trained.
    """
    names = list(names)
    norms = {name.rpartition(".")[0] for name in names if name.endswith(".running_mean")}
    # These two buffers came first; ``names`` lacks them, because the state dict of a model does not contain them.
    buffers, parameters = ["pixel_mean", "pixel_std"], []
    groups: dict[str, list[str]] = {"bias": [], "norm": [], "weight": []}
    for name in names:
        module, _, last = name.rpartition(".")
        if last in ("running_mean", "running_var", "anchors"):
            buffers.append(name)
        elif last != "num_batches_tracked":
            parameters.append(name)
            groups["bias" if last == "bias" else "norm" if module in norms else "weight"].append(name)
    return {"parameters": parameters, "buffers": buffers, "optimizer": [group for group in groups.values() if group]}


def _rename(values: dict[tuple, Any], old: str, new: str, convert: Callable | None, source: str) -> None:
    """Rename a key or a group of keys in ``values``, whose keys are full names split at the dots."""
    old_path, new_path = tuple(old.split(".")), tuple(new.split("."))
    for path in [path for path in values if path[: len(old_path)] == old_path]:
        renamed, value = new_path + path[len(old_path) :], values.pop(path)
        if renamed in values:
            names = [".".join(map(str, parts)) for parts in (path, renamed)]
            raise UserError(f"{source}: {names[0]} and {names[1]} are the same key; leave {names[0]} out.")
        if convert is not None:
            try:
                value = convert(_decode(value))
            except (ValueError, TypeError, ArithmeticError, LookupError) as e:
                raise UserError(
                    f"{source}: {old} is {show(value)}, which cannot be translated to {new}, its name today."
                ) from e
        values[renamed] = value
        _tell(f"{printable(source)}: {old} is called {new} today")


def _flatten(config: Mapping, above: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, (*above, key))
        else:
            yield (*above, key), value


def _nest(values: Mapping[tuple, Any]) -> dict[Any, Any]:
    nested: dict[Any, Any] = {}
    for path, value in values.items():
        group = nested
        for part in path[:-1]:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                break  # a value is in the place of a group of keys; merging the config will report this
        else:
            group[path[-1]] = value
    return nested


def _decode(value: Any) -> Any:
    """Convert a string to the value that a config would make of it, such as a number; leave other types as they are."""
    if not isinstance(value, str):
        return value
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value


def _tell(message: str) -> None:
    if comm.is_main_process():
        log_first_n(logging.WARNING, message, n=1, name=__name__, key="message")
