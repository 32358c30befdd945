"""The state of a training in the order of the model at hand, which may differ between versions."""

from collections.abc import Mapping
from typing import Any


def arrange_by_names(state: dict[str, Any], names: Mapping[str, list]) -> dict[str, Any]:
    """The state of an ``AccumulatingTrainer``, with all that is numbered in the order of ``names``.

    The parameters of a model may have another order in another version. A state of the same order is returned as it is.

    Args:
        state: its "names", from ``AccumulatingTrainer.list_names``, say its own order.
        names: the names of the model at hand.

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
    entries = state["state"]
    # The groups keep their numbers: every optimizer numbers its parameters consecutively, group by group.
    return {**state, "state": {new: entries[old] for new, old in enumerate(new_numbers) if old in entries}}
