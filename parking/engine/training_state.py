"""Rearrange the saved state of a training if the version that saved it had the parameters in another order."""

from collections.abc import Mapping
from typing import Any


def arrange_by_names(state: dict[str, Any], names: Mapping[str, list]) -> dict[str, Any]:
    """Return the state of an ``AccumulatingTrainer`` with the optimizer's entries in the order of ``names``.

    A state that already has this order is returned unchanged.

    Args:
        state: its entry "names", from ``AccumulatingTrainer.list_names``, says in which order it is.
        names: from ``AccumulatingTrainer.list_names`` for the present model.

    Raises:
        ValueError: the state has other parameters, or other groups of parameters.
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
    entries = state["state"]
    # An optimizer numbers its parameters consecutively, group by group, so "param_groups" stays as it is. Only the
    # entries of "state" move: each gets the number that its parameter has now.
    return {**state, "state": {new: entries[old] for new, old in enumerate(new_numbers) if old in entries}}
