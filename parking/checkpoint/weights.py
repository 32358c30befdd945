"""Read weights without running anything the file names, and put them into a model, every tensor accounted for."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from parking.utils.errors import UserError

logger = logging.getLogger(__name__)

# Head outputs before the classes: x, y, w, h, objectness.
_NUM_BOX_ROWS = 5
_HEAD_PREFIX = "head.predictors."


@dataclass(frozen=True)
class Weights:
    """What a weights file holds.

    Attributes:
        path: the file, for messages.
        state_dict: names and tensors, on the CPU; the averaged weights where the file has both.
        config: nested plain values, or None where the file carries none.
        class_names: of the classes, in the order of the head's outputs, or None.
        category_ids: the classes' ids in the json they were trained from, or None.
    """

    path: str
    state_dict: Mapping[str, Tensor]
    config: Mapping[str, Any] | None = None
    class_names: list[str] | None = None
    category_ids: list[int] | None = None

    def class_names_and_ids(self) -> tuple[list[str], list[int]]:
        """Class names and original category ids. Raises UserError where the file carries none."""
        if not self.class_names or not self.category_ids:
            raise UserError(f"weights {self.path} carry no class names and category ids: their boxes have no meaning.")
        return self.class_names, self.category_ids


def find_weights(output_dir: str | os.PathLike) -> str | None:
    """The weights of a training that are best to use: its best, else its final, else its last; None without any."""
    folder = Path(output_dir)
    names = ["model_best.pth", "model_final.pth"]
    last = folder / "last_checkpoint"
    if last.is_file():
        names.append(last.read_text().strip())
    for name in names:
        if (folder / name).is_file():
            return str(folder / name)
    return None


def torch_load(path: str | os.PathLike) -> dict[str, Any]:
    """Load a file of tensors and plain values on the CPU.

    Raises:
        UserError: it is an address, missing, unreadable, or holds anything else (whatever it would run is not run).
    """
    path = os.fspath(path)
    if "://" in path:
        raise UserError(f"weights {path}: nothing is downloaded; give the path of a local file.")
    if not os.path.isfile(path):
        raise UserError(f"weights {path} do not exist; check MODEL.WEIGHTS or --weights.")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as e:  # a damaged file makes the parser raise almost anything
        raise UserError(
            f"weights {path} cannot be read: not a checkpoint of this project, or damaged ({type(e).__name__})."
        ) from e
    if not isinstance(loaded, dict):
        raise UserError(f"weights {path} hold a {type(loaded).__name__}, not a checkpoint.")
    return loaded


def read_weights(path: str | os.PathLike) -> Weights:
    """Read one of our ``.pth`` files or a bare state dict. Raises UserError as :func:`torch_load`."""
    return weights_from_checkpoint(os.fspath(path), torch_load(path))


def weights_from_checkpoint(path: str, checkpoint: Mapping[str, Any]) -> Weights:
    """The part of a loaded checkpoint that inference needs."""
    state = checkpoint.get("model", checkpoint)
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"weights {path} hold no model: a mapping of names to tensors is expected.")
    ema = checkpoint.get("ema")
    if isinstance(ema, Mapping) and isinstance(ema.get("average"), Mapping):
        state = {**state, **ema["average"]}
    return Weights(
        path=path,
        state_dict=state,
        config=checkpoint.get("config"),
        class_names=checkpoint.get("class_names"),
        category_ids=checkpoint.get("category_ids"),
    )


def load_weights(model: nn.Module, weights: Weights, *, new_classes: bool = False) -> None:
    """Copy ``weights`` into ``model`` (bare, not wrapped).

    Args:
        new_classes: when the number of classes differs, keep the model's own (fresh) class outputs and load the rest,
            as a new training wants; otherwise that is an error.

    Raises:
        UserError: a tensor is missing, left over or of another shape; the first few are named.
    """
    own = model.state_dict()
    state = dict(weights.state_dict)
    if _num_classes(model, state) != _num_classes(model, own):
        if not new_classes:
            raise UserError(
                f"weights {weights.path} have {_num_classes(model, state)} classes, but the model has "
                f"{_num_classes(model, own)}; set MODEL.YOLO.NUM_CLASSES to that of the weights, or give other weights."
            )
        replaced = _keep_own_class_rows(model, state, own)
        logger.warning(
            f"{weights.path} has {_num_classes(model, weights.state_dict)} classes, the model "
            f"{_num_classes(model, own)}: the class outputs of {', '.join(replaced)} start anew."
        )
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{name} is left over" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"weights {weights.path} do not fit the model of the config: {', '.join(problems[:3])}{more}; "
            f"use the config they were trained with."
        )
    model.load_state_dict(state)
    logger.info(f"Loaded {len(state)} tensors from {weights.path}")


def _num_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Classes that the head in ``state`` predicts; None where it has no such head."""
    bias = state.get(f"{_HEAD_PREFIX}0.bias")
    if bias is None or len(bias) % model.head.num_anchors:
        return None
    return len(bias) // model.head.num_anchors - _NUM_BOX_ROWS


def _keep_own_class_rows(model: nn.Module, state: dict[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Replace the head's tensors in ``state`` by the model's box and objectness rows copied; returns their names."""
    names = [name for name in own if name.startswith(_HEAD_PREFIX) and name in state]
    for name in names:
        # Rows are anchor-major: (anchors, 5 + classes, ...).
        theirs = state[name].unflatten(0, (model.head.num_anchors, -1))
        merged = own[name].clone().unflatten(0, (model.head.num_anchors, -1))
        if theirs.shape[2:] != merged.shape[2:]:
            continue
        merged[:, :_NUM_BOX_ROWS] = theirs[:, :_NUM_BOX_ROWS]
        state[name] = merged.flatten(0, 1)
    return names
