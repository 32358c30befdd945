"""Whether a training state, read from a checkpoint that anyone may have made, can be one of the training at hand.

PyTorch's optimizers and detectron2's trainer take almost anything and fail, or go wrong, much later.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor

from parking.config.compat import are_training_names

_MAX_ITERATION = 10**12
_OPTIMIZER_KEYS = ("lr", "momentum", "betas", "weight_decay", "kind")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_ITERATION


def _is_iteration(value: Any) -> bool:
    return _is_count(value) or (type(value) is int and value == -1)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _are_texts(value: Any) -> bool:
    return type(value) is list and all(type(text) is str for text in value)


# What each value of a hook's state must be.
_HOOKS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "LRScheduler": {
        "base_lrs": lambda value: type(value) is list and all(map(_is_number, value)),
        "last_epoch": _is_count,
    },
    "EarlyStoppingHook": {
        "best": lambda value: _is_number(value) or (type(value) is float and value == -math.inf),
        "num_worse": _is_count,
        "seen_iteration": _is_iteration,
    },
    "TimeBudgetHook": {
        "seconds": lambda value: _is_number(value) and value >= 0,
        "eval_seconds": lambda value: _is_number(value) and value >= 0,
    },
    "UnreadableImagesHook": {"names": _are_texts},
}
_TRAINER: dict[str, Callable[[Any], bool]] = {
    "iteration": _is_iteration,
    "max_iter": lambda value: _is_count(value) and value > 0,
    "seed": lambda value: type(value) is int and 0 <= value < 2**63,
    "evaluated_before": _is_iteration,
    "class_ap": lambda value: value is None or (type(value) is list and all(type(v) in (int, float) for v in value)),
    "rng": lambda value: (
        type(value) is list and all(isinstance(t, Tensor) and t.dtype == torch.uint8 and t.dim() == 1 for t in value)
    ),
    "_trainer": lambda value: type(value) is dict,
}
_LOOP: dict[str, Callable[[Any], bool]] = {
    "iteration": _is_iteration,
    "optimizer": lambda value: type(value) is dict,
    "grad_scaler": lambda value: type(value) is dict,
    "last_step_iteration": _is_iteration,
    "num_skipped_in_a_row": _is_count,
    "names": are_training_names,
}


def check_training_state(
    state: Any,
    optimizer: torch.optim.Optimizer,
    hooks: Sequence[HookBase | None],
    names: Mapping[str, list],
) -> None:
    """Raise a ValueError that says what is wrong with ``state``, and change nothing.

    Args:
        state: of a ``Trainer``.
        optimizer, hooks, names: the training's own, fresh; ``names`` from ``AccumulatingTrainer.list_names``.
    """
    _check_values(state, _TRAINER, "trainer")
    if state["iteration"] >= state["max_iter"]:
        raise ValueError(f"stands at iteration {state['iteration']} of {state['max_iter']}")
    _check_values(state["_trainer"], _LOOP, "trainer")
    loop = arrange_by_names(state["_trainer"], names)
    if loop["last_step_iteration"] != state["iteration"] and state["iteration"] + 1 < state["max_iter"]:
        raise ValueError("was not saved right after a step of the optimizer")
    _check_optimizer(loop["optimizer"], optimizer)
    states = state.get("hooks", {})
    if type(states) is not dict:
        raise ValueError("holds states of hooks that are not a dict")
    for name in {type(hook).__qualname__ for hook in hooks} & _HOOKS.keys():
        if name not in states:
            raise ValueError(f"has no state of {name}")
        _check_values(states[name], _HOOKS[name], name)


def arrange_by_names(state: dict[str, Any], names: Mapping[str, list]) -> dict[str, Any]:
    """The state of an ``AccumulatingTrainer``, with everything that goes by numbers in the order of ``names``.

    The parameters of a model may have another order in another version. A state of the same order is returned as it is.

    Args:
        state: whose "names" say its own order; its other values may be wrong in any way.

    Raises:
        ValueError: the state is of other parameters, or groups them otherwise.
    """
    theirs = state["names"]
    if theirs == names:
        return state
    own_groups, groups = names["optimizer"], theirs["optimizer"]
    same = [sorted(theirs[key]) == sorted(names[key]) for key in ("parameters", "buffers")]
    if not all(same) or list(map(sorted, groups)) != list(map(sorted, own_groups)):
        raise ValueError("holds the state of an optimizer of another model, or with other groups of parameters")
    return {**state, "optimizer": _arrange_optimizer(state["optimizer"], groups, own_groups)}


def _arrange_optimizer(state: dict, groups: list[list[str]], wanted: list[list[str]]) -> dict:
    numbers = {name: i for i, name in enumerate(name for group in groups for name in group)}
    new_numbers = [numbers[name] for group in wanted for name in group]
    entries = state.get("state")
    if type(entries) is not dict:
        return state  # an error where it is used
    # The groups keep their numbers: every optimizer numbers its parameters consecutively, group by group.
    return {**state, "state": {new: entries[old] for new, old in enumerate(new_numbers) if old in entries}}


def _check_values(state: Any, checks: dict[str, Callable[[Any], bool]], name: str) -> None:
    if type(state) is not dict:
        raise ValueError(f"holds a state of {name} that is not a dict")
    for key, is_sound in checks.items():
        if key not in state:
            raise ValueError(f"has no {key} in the state of {name}")
        if not is_sound(state[key]):
            raise ValueError(f"holds an impossible {key} in the state of {name}")


def _check_optimizer(state: dict, optimizer: torch.optim.Optimizer) -> None:
    own = optimizer.state_dict()["param_groups"]
    groups, states = state.get("param_groups"), state.get("state")
    if type(groups) is not list or type(states) is not dict or not all(type(group) is dict for group in groups):
        raise ValueError("holds no state of an optimizer")
    if [group.get("params") for group in groups] != [group["params"] for group in own]:
        raise ValueError("holds the state of an optimizer of another model, or with other groups of parameters")
    for group, own_group in zip(groups, own, strict=True):
        # Other keys differ between releases of PyTorch.
        if {key for key in _OPTIMIZER_KEYS if key in group} != {key for key in _OPTIMIZER_KEYS if key in own_group}:
            raise ValueError("holds the state of another optimizer")
        for key, value in group.items():
            numbers = value if type(value) in (tuple, list) else [value]
            if key != "params" and any(type(n) is float and not math.isfinite(n) for n in numbers):
                raise ValueError(f"holds an optimizer whose {key} is not finite")
            if type(own_group.get(key)) in (int, float) and type(value) not in (int, float):
                raise ValueError(f"holds an optimizer whose {key} is not a number")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not all(type(index) is int and 0 <= index < len(parameters) for index in states):
        raise ValueError("holds the state of an optimizer of another model")
    for index, values in states.items():
        if type(values) is not dict:
            raise ValueError("holds the state of another optimizer")
        for key, value in values.items():
            if isinstance(value, Tensor):
                _check_moment(value, parameters[index], str(key))


def _check_moment(tensor: Tensor, parameter: Tensor, key: str) -> None:
    # Counters of steps are tensors with one element.
    if tensor.shape != parameter.shape and tensor.dim() > 0:
        raise ValueError(f"holds an optimizer's {key} of another shape than its parameter")
    if tensor.numel() and not torch.stack(torch.aminmax(tensor)).isfinite().all():
        raise ValueError(f"holds an optimizer's {key} with values that are not finite")
