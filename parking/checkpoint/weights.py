"""Reads our own and published weights files without running any code that a file names, and writes weights files."""

import dataclasses
import hashlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from parking.config.compat import read_version, upgrade_config, upgrade_tensor_names
from parking.utils.errors import UserError
from parking.utils.files import open_atomic, open_regular
from parking.utils.limits import MAX_ID_BITS, MAX_WEIGHTS_BYTES
from parking.utils.machine import available_memory
from parking.utils.text import printable

from .foreign_files import describe_file
from .formats import yolov5, yolov5u, yolox
from .formats.families import FAMILIES, YOLOV5, YOLOV5U, YOLOX, Family, find_size
from .formats.layout import LayoutError, check_not_folded, without_wrappers
from .formats.module_settings import check_settings
from .formats.pickled_modules import read_module, unwrap_module
from .last_checkpoint import find_last_checkpoint
from .restricted_pickle import ModuleStandIn, read_pickled
from .values import check_values, find_excess

logger = logging.getLogger(__name__)

# Names of the values that a weights file holds beside its tensors. A .safetensors file holds them as json texts.
_METADATA = ("config", "class_names", "category_ids", "origin")
# Each published family with the module for the layout of its files. The first module that recognises a file reads it.
_LAYOUTS = ((YOLOV5U, yolov5u), (YOLOV5, yolov5), (YOLOX, yolox))


@dataclass(frozen=True)
class Weights:
    """The content of a weights file.

    Attributes:
        path: path of the file, for messages.
        state_dict: the tensors by our names, on the CPU; averaged weights if the file has raw and averaged ones.
        config: nested plain values, or None if the file carries none. If an older version wrote the file, keys and
            names of tensors are upgraded to today's.
        class_names: names in the order of the head's outputs, exactly as in the file, or None. They may repeat and
            hold any characters: show them with :func:`parking.utils.text.printable`.
        category_ids: the classes' ids in the json of the training data, or None.
        origin: texts that say where converted weights come from, or None.
        family: the published family whose names the tensors have in the file; None if they have our names.
        left_out: names of tensors in the file that ``state_dict`` lacks, because they repeat others or are constant.
    """

    path: str
    state_dict: Mapping[str, Tensor]
    config: Mapping[str, Any] | None = None
    class_names: list[str] | None = None
    category_ids: list[int] | None = None
    origin: Mapping[str, str] | None = None
    family: Family | None = None
    left_out: tuple[str, ...] = ()

    def __post_init__(self):
        for key, kind in (("class_names", str), ("category_ids", int)):
            values = getattr(self, key)
            if values is not None and not (isinstance(values, list) and all(type(v) is kind for v in values)):
                raise UserError(f"weights {printable(self.path)}: their {key} are not a list of {kind.__name__}.")
        if any(id_.bit_length() > MAX_ID_BITS for id_ in self.category_ids or ()):
            raise UserError(f"weights {printable(self.path)}: one of category_ids has more than {MAX_ID_BITS} bits.")
        if len(set(self.category_ids or ())) < len(self.category_ids or ()):
            raise UserError(f"weights {printable(self.path)}: their category_ids hold an id twice.")
        if not isinstance(self.config, Mapping | None):
            raise UserError(f"weights {printable(self.path)}: their config is not a mapping.")
        problem = find_excess(self.config)
        if problem:
            raise UserError(
                f"weights {printable(self.path)}: their config {problem}, so it cannot be used; use other weights."
            )
        origin = {} if self.origin is None else self.origin
        if not isinstance(origin, Mapping) or not all(type(v) is str for pair in origin.items() for v in pair):
            raise UserError(f"weights {printable(self.path)}: their origin is not a mapping of texts.")
        if self.class_names and self.category_ids and len(self.class_names) != len(self.category_ids):
            raise UserError(
                f"weights {printable(self.path)}: they have unequal numbers of class names and category ids."
            )

    @property
    def head_name(self) -> str | None:
        """MODEL.HEAD.NAME of the model that the weights belong to; None if unknown."""
        if self.family:
            return self.family.head
        try:
            name = self.config["MODEL"]["HEAD"]["NAME"]
        except (KeyError, TypeError):
            return None
        return name if isinstance(name, str) else None

    def find_config(self, *, for_coco: bool) -> str | None:
        """Return the config of these weights, such as "configs/yolov5/n.yaml"; None if they have no published size.

        Args:
            for_coco: whether to return the config for inference with published weights instead of that for training.
        """
        family = self._family_of_head()
        size = family and find_size(family, self.state_dict)
        return size and "configs/" + (family.coco_config if for_coco else family.config).format(size)

    def find_widths(self, own: Mapping[str, Tensor]) -> dict[str, int]:
        """Return config keys and values that make a model fit these weights; ``own`` are the tensors of the model."""
        family, state = self._family_of_head(), self.state_dict
        return {
            key: len(state[name])
            for key, name in (family.widths if family else {}).items()
            if name in state and name in own and state[name].dim() and len(state[name]) != len(own[name])
        }

    def _family_of_head(self) -> Family | None:
        return next((family for family in FAMILIES if family.head == self.head_name), None)

    def describe_tensors(self) -> str:
        """Say how many of the file's tensors ``state_dict`` has, and which of them it lacks."""
        num = len(self.state_dict)
        if not self.left_out:
            return f"all {num} tensors"
        left_out = printable(", ".join(self.left_out))
        return f"{num} of {num + len(self.left_out)} tensors (without {left_out}, which the model does not need)"


def distinct_names(names: Sequence[str]) -> list[str]:
    """Make ``names`` distinct: append " (2)" to the second of several equal names, " (3)" to the third, and so on."""
    taken, distinct, numbers = set(names), [], {}
    for name in names:
        number, new = numbers.get(name, 0) + 1, name
        while number > 1 and (new := f"{name} ({number})") in taken:
            number += 1
        numbers[name] = number
        taken.add(new)
        distinct.append(new)
    return distinct


def find_weights(output_dir: str | os.PathLike) -> str | None:
    """Return the path of the weights to use after a training, or None if it left none.

    These are the best weights, or if they are missing the final weights, or if these are missing the last checkpoint.

    Raises:
        UserError: see :func:`find_last_checkpoint`.
    """
    for name in ("model_best.pth", "model_final.pth"):
        if Path(output_dir, name).is_file():
            return os.path.join(output_dir, name)
    last = find_last_checkpoint(output_dir)
    return None if last is None else str(last)


def check_weights_path(path: str | os.PathLike) -> str:
    """Return ``path`` as text; raise a UserError if it is not a local, regular file or is too large for weights."""
    path = os.fspath(path)
    if "://" in path:
        raise UserError(f"weights {printable(path)}: nothing is downloaded; give the path of a local file.")
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
    except (FileNotFoundError, NotADirectoryError, ValueError) as e:
        raise UserError(
            f"weights {printable(path)} do not exist; check the path (docs/weights.md says where to get some)."
        ) from e
    except OSError as e:
        raise UserError(f"weights {printable(path)} cannot be read: {e.strerror}; give the path of a file.") from e
    if size > MAX_WEIGHTS_BYTES:
        raise UserError(
            f"weights {printable(path)} cannot be read: the file has {size:,} bytes, and weights may have "
            f"{MAX_WEIGHTS_BYTES:,}."
        )
    return path


def read_weights(path: str | os.PathLike) -> Weights:
    """Read our ``.pth`` files, published YOLOv5 (``.pt``) and YOLOX (``.pth``) files, state dicts, ``.safetensors``.

    Raises:
        UserError: the file is missing, damaged, or holds anything but weights; no code in it has run.
    """
    path = check_weights_path(path)
    if path.endswith(".safetensors"):
        return _read_safetensors(path)
    # Do not use torch.load, even for .pth: it makes tensors of any size that a file asks for.
    return weights_from_checkpoint(path, read_pickled(path))


def torch_load(path: str | os.PathLike) -> dict[str, Any]:
    """Load to the CPU a checkpoint of this project's training, which may hold only tensors and plain values.

    ``torch.load`` is not used: it makes tensors of any size and kind that a file of a few hundred bytes asks for.

    Raises:
        UserError: ``path`` is a URL, is missing or unreadable, or holds anything else; no code in it has run.
    """
    path = check_weights_path(path)
    loaded = read_pickled(path, only_plain=True)
    if not isinstance(loaded, dict):
        raise UserError(f"weights {printable(path)} hold a {type(loaded).__name__}, not a checkpoint.")
    return loaded


def weights_from_checkpoint(path: str, checkpoint: Any) -> Weights:
    """Take the tensors and metadata that inference needs from a loaded checkpoint.

    Raises:
        UserError: the checkpoint holds no model, or a model that cannot be used.
    """
    if not isinstance(checkpoint, Mapping):
        kind = checkpoint.kind if isinstance(checkpoint, ModuleStandIn) else type(checkpoint).__name__
        raise UserError(f"weights {printable(path)} hold a {kind}, not a checkpoint; save its state_dict() instead.")
    average, model = checkpoint.get("ema"), checkpoint.get("model", checkpoint)
    if isinstance(average, ModuleStandIn):
        model = average
    model = _first_of(checkpoint, "state_dict", "model_state_dict") if model is checkpoint else model
    try:
        if isinstance(model, ModuleStandIn):
            model = unwrap_module(model)
            state, class_names = read_module(model)
            state = _check_state(path, state)
            # If no layout is found, try YOLOv5's: reading then raises an error that names a tensor unknown to it.
            family, layout = _find_layout(state) or (YOLOV5, yolov5)
            weights = _import_published(path, state, family, layout, class_names=class_names)
            check_settings(model)
            return weights
        state = without_wrappers(_check_state(path, model))
        if isinstance(average, Mapping) and isinstance(average.get("average"), Mapping):
            state = {**state, **without_wrappers(_check_state(path, average["average"]))}
        metadata = {key: checkpoint.get(key) for key in _METADATA}
        if found := _find_layout(state):
            return _import_published(path, state, *found, **metadata)
        check_not_folded(state)
    except LayoutError as e:
        raise UserError(f"weights {printable(path)} cannot be used: {e}.") from e
    state = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    weights = _upgrade(Weights(path, state, **metadata))
    check_values(path, weights.state_dict)
    return weights


def _upgrade(weights: Weights) -> Weights:
    """Rename the tensors and config keys of ``weights`` from an older version to their present names."""
    source = f"weights {printable(weights.path)}"
    state, config = weights.state_dict, weights.config
    if not weights.family:
        state = upgrade_tensor_names(state, read_version(config, source), source)
    if config is not None:
        config = upgrade_config(config, source, is_complete=True)
    return dataclasses.replace(weights, state_dict=state, config=config)


def _first_of(checkpoint: Mapping, *keys: str) -> Any:
    """Return the first of ``checkpoint[key]``, for each of ``keys``, that is a mapping; if none is, ``checkpoint``."""
    return next((checkpoint[key] for key in keys if isinstance(checkpoint.get(key), Mapping)), checkpoint)


def _find_layout(state: Mapping[str, Tensor]) -> tuple[Family, ModuleType] | None:
    return next((found for found in _LAYOUTS if found[1].is_published_layout(state)), None)


def _import_published(
    path: str, state: Mapping[str, Tensor], family: Family, layout: ModuleType, **metadata
) -> Weights:
    state, left_out = layout.from_published(state)
    check_values(path, state)
    if layout is yolox and metadata.get("class_names") is None:
        metadata["class_names"] = yolox.find_class_names(state)
    return _upgrade(Weights(path, state, family=family, left_out=left_out, **metadata))


def write_weights(path: str | os.PathLike, weights: Weights) -> None:
    """Write the tensors and metadata of ``weights``, as ``.pth`` or ``.safetensors`` by the ending of ``path``.

    Raises:
        UserError: ``path`` has another ending, or cannot be written.
    """
    path = os.fspath(path)
    metadata = {key: getattr(weights, key) for key in _METADATA if getattr(weights, key) is not None}
    state = {name: tensor.contiguous() for name, tensor in weights.state_dict.items()}
    if not path.endswith((".pth", ".safetensors")):
        raise UserError(
            f"weights are written as .pth or .safetensors, not as {printable(path)}; choose one of the two endings."
        )
    try:
        with open_atomic(path) as file:
            if path.endswith(".pth"):
                torch.save({"model": state, **metadata}, file)
            else:
                # json.dumps must escape all but ASCII: a name may hold half a surrogate pair, which is not valid UTF-8.
                texts = {key: json.dumps(value) for key, value in metadata.items()}
                file.write(safetensors.torch.save(state, {"format": "pt", **texts}))
    except OSError as e:
        raise UserError(f"{printable(path)} cannot be written ({e.strerror}); give another path.") from e


def describe_origin(weights: Weights) -> Weights:
    """Copy ``weights`` and add the name, SHA-256 and kind of their file to ``origin`` where it lacks them."""
    digest = hashlib.sha256()
    with open_regular(weights.path) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    kind = f"published {weights.family.name} checkpoint" if weights.family else "weights of this project"
    origin = {"file": os.path.basename(weights.path), "sha256": digest.hexdigest(), "format": kind}
    return dataclasses.replace(weights, origin={**origin, **(weights.origin or {})})


def _read_safetensors(path: str) -> Weights:
    free, size = available_memory(), os.path.getsize(path)
    if free is not None and size > free:
        raise UserError(
            f"weights {printable(path)} cannot be read: their tensors take {size / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free."
        )
    with open_regular(path) as file:
        start = file.read(9)
        # Check this first: the safetensors library takes the first bytes of any file for the length of a header.
        if start[8:] != b"{":
            zip_file = "it is a zip file, as torch.save writes; give it the ending .pt"
            problem = zip_file if start.startswith(b"PK") else describe_file(file)
            raise UserError(f"weights {printable(path)} cannot be read: it is not a .safetensors file; {problem}.")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it cannot be iterated)
        metadata = {key: json.loads(texts[key]) for key in _METADATA if key in texts}
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as e:
        raise UserError(f"weights {printable(path)} cannot be read: damaged or not a .safetensors file ({e}).") from e
    return weights_from_checkpoint(path, {"model": state, **metadata})


def _check_state(path: str, state: Any) -> Mapping[str, Tensor]:
    sound = isinstance(state, Mapping) and state and all(isinstance(name, str) for name in state)
    if not sound or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"weights {printable(path)} hold no model: a mapping of names to tensors is expected.")
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in state.values()}
    if sum(tensor.numel() * tensor.element_size() for tensor in state.values()) > sum(held.values()):
        raise UserError(
            f"weights {printable(path)} are refused: tensors overlap: together they are larger than what the file "
            f"holds of them."
        )
    return state
