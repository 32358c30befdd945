"""Loads weights into a model, rejects tensors that do not fit, and chooses what each class output starts from."""

import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from parking.utils.class_names import find_classes
from parking.utils.errors import UserError
from parking.utils.text import join_some, printable

from .weights import Weights

logger = logging.getLogger(__name__)

# Beginning of the names of the head's tensors.
_HEAD = "head."
# Logit of a class that must never be predicted; its sigmoid is 0 even in half precision.
_NEVER = -1e4


def load_weights(
    model: nn.Module,
    weights: Weights,
    *,
    class_names: Sequence[str] | None = None,
    class_map: Sequence[tuple[str, str]] = (),
    will_train: bool = False,
) -> None:
    """Copy ``weights`` into ``model`` (bare, not wrapped), and log where its tensors come from.

    The classes of model and weights are compared by name or, if one of the two has no names, by number. If they differ,
    each class of the model starts from the outputs of the class that :func:`find_class_sources` finds for it. A class
    for which none is found starts from the prior of a new head or, if the model will not be trained, is never
    predicted. A model that will be trained keeps its new head if the weights have no head or another kind of head.

    Args:
        class_names: names of the model's classes; None if unknown.
        class_map: pairs (class of the model, class of the weights).
        will_train: whether the model will be trained, so that all class outputs may start from the prior.

    Raises:
        UserError: a tensor is missing, left over, of another shape or refused by the head (the first few are named), or
            a model that will not be trained has no class in common with the weights.
    """
    own = model.state_dict()
    if will_train and _has_other_head(model, weights):
        _load_all_but_head(model, weights, own, has_map=bool(class_map))
        return
    state = dict(weights.state_dict)
    notes = _adapt_to_head(model, state, weights)
    sources = _match_classes(model, weights, class_names, class_map, own)
    if sources is not None:
        if not will_train and all(source is None for source in sources):
            raise UserError(_explain_no_common_class(weights, _num_classes(model, state), len(sources)))
        replaced = _arrange_class_rows(model, state, sources, will_train)
        described = _describe_sources(sources, class_names, weights, will_train)
        notes.append(f"class outputs of {', '.join(replaced)}: {printable(described)}")
    check_all_fit(state, own, weights, will_train=will_train)
    model.load_state_dict(state)
    logger.info("; ".join([f"Loaded {weights.describe_tensors()} of {printable(weights.path)}", *notes]))
    untrained = [class_names[i] for i, source in enumerate(sources or ()) if source is None and class_names is not None]
    if untrained and not will_train:
        logger.warning(f"{printable(', '.join(untrained))}: no class of {printable(weights.path)}, so never found")


def _has_other_head(model: nn.Module, weights: Weights) -> bool:
    """Return whether ``weights`` have no head, or a head of another kind than that of ``model``."""
    ours = {_HEAD + name for name in model.head.state_dict()}
    theirs = {name for name in weights.state_dict if name.startswith(_HEAD)}
    if weights.head_name is None or not theirs:
        return not ours & theirs
    # MODEL.HEAD.NAME may name a function that builds the head instead of its class, so compare the tensors' names, too.
    return weights.head_name != type(model.head).__name__ and ours != theirs


def _load_all_but_head(model: nn.Module, weights: Weights, own: Mapping[str, Tensor], *, has_map: bool) -> None:
    state = {name: tensor for name, tensor in weights.state_dict.items() if not name.startswith(_HEAD)}
    new = {name: tensor for name, tensor in own.items() if name.startswith(_HEAD)}
    check_all_fit({**state, **new}, own, weights, will_train=True)
    model.load_state_dict({**state, **new})
    has_head = any(name.startswith(_HEAD) for name in weights.state_dict)
    theirs = (weights.head_name if has_head else None) or "missing"
    logger.warning(
        f"Loaded only backbone and neck ({len(state)} tensors) of {printable(weights.path)}, because its head is "
        f"{printable(theirs)}. The head of the config, {type(model.head).__name__}, starts from random weights"
        + ("; MODEL.YOLO.CLASS_MAP is not used." if has_map else ".")
    )


def find_class_sources(
    class_names: Sequence[str], weights_class_names: Sequence[str], class_map: Sequence[tuple[str, str]]
) -> list[int | None]:
    """Find for each class of a model its *source*: the class of the weights from which it starts.

    The source is the class that ``class_map`` names ("" for none), else the class of the same name, as
    :func:`~parking.utils.class_names.find_classes` compares names. If the weights have exactly the model's classes, in
    any order, the map is ignored: such weights come from a training that has already used it.

    If the weights have several classes of one name, the first class of that name in the model starts from the first of
    these classes, the second from the second, and so on. If the model has more classes of that name than the weights,
    the rest start from the first.

    Returns:
        The index of each source among the classes of the weights; None for a class without a source.

    Raises:
        UserError: the map names a class that does not exist, or maps a class twice.
    """
    if list(class_names) == list(weights_class_names):
        return list(range(len(class_names)))  # each class keeps its own outputs, even if two have the same name
    indices = defaultdict(list)
    for i, name in enumerate(weights_class_names):
        indices[name].append(i)
    found = find_classes(class_names, weights_class_names)
    sources = [name if own is None else own for name, own in zip(class_names, found, strict=True)]
    if set(sources) == set(weights_class_names):
        return _assign_in_order(class_names, sources, indices)
    try:
        mapped = dict(class_map)
    except (TypeError, ValueError) as e:
        raise UserError(
            f"MODEL.YOLO.CLASS_MAP is {class_map}; give pairs [class of the data, class of the weights]."
        ) from e
    mapped = _as_stored(mapped, class_names, weights_class_names)
    if len(mapped) < len(class_map):
        raise UserError("MODEL.YOLO.CLASS_MAP has a class of the data twice; each can start from one class only.")
    for role, names, known in [
        ("data", mapped.keys(), class_names),
        ("weights", mapped.values(), weights_class_names),
    ]:
        unknown = [name for name in names if name not in known and (role, name) != ("weights", "")]
        if unknown:
            raise UserError(
                f"MODEL.YOLO.CLASS_MAP names {unknown[0]!r}, which is no class of the {role}; these are "
                f"{printable(', '.join(known))}."
            )
    return _assign_in_order(
        class_names, [mapped.get(name, source) for name, source in zip(class_names, sources, strict=True)], indices
    )


def _as_stored(
    class_map: Mapping[str, str], class_names: Sequence[str], weights_class_names: Sequence[str]
) -> dict[str, str]:
    """Spell the names in ``class_map`` as the two lists of names do; unknown names and "" stay as they are."""
    own = find_classes(class_map, class_names)
    theirs = find_classes(class_map.values(), weights_class_names)
    return {
        name if stored is None else stored: source if source_stored is None or source == "" else source_stored
        for (name, source), stored, source_stored in zip(class_map.items(), own, theirs, strict=True)
    }


def _assign_in_order(
    class_names: Sequence[str], source_names: Sequence[str], indices: Mapping[str, list[int]]
) -> list[int | None]:
    """Choose for each class the index of the weights' class from which it starts, its source.

    ``source_names`` are the names of the sources; ``indices`` has, for each name, the indices of the weights' classes.
    The k-th of several classes of one name takes the k-th index; the first if there are fewer than k; None if none.
    """
    num_seen = defaultdict(int)
    sources = []
    for name, source_name in zip(class_names, source_names, strict=True):
        candidates = indices.get(source_name, [None])
        sources.append(candidates[num_seen[name]] if num_seen[name] < len(candidates) else candidates[0])
        num_seen[name] += 1
    return sources


def _match_classes(model, weights, class_names, class_map, own) -> list[int | None] | None:
    """Return the source of each class (see :func:`find_class_sources`); None if no outputs need to be rearranged."""
    theirs, ours = _num_classes(model, weights.state_dict), _num_classes(model, own)
    if theirs is None or ours is None:
        return None  # the class tensors are missing or of a wrong shape, which check_all_fit reports
    if class_names is not None and weights.class_names is not None:
        if len(weights.class_names) != theirs:
            raise UserError(
                f"weights {printable(weights.path)} name {len(weights.class_names)} classes, but predict {theirs}: use "
                f"other weights."
            )
        sources = find_class_sources(class_names, weights.class_names, class_map)
        _warn_of_repeated_names(weights, sources)
        return None if sources == list(range(theirs)) and ours == theirs else sources
    if theirs == ours:
        if class_map:
            logger.warning(f"{printable(weights.path)} carry no class names: MODEL.YOLO.CLASS_MAP is not applied")
        return None
    if class_map:
        raise UserError(
            f"weights {printable(weights.path)} carry no class names to which MODEL.YOLO.CLASS_MAP could apply; set it "
            f"to []."
        )
    return [None] * ours


def _warn_of_repeated_names(weights: Weights, sources: Sequence[int | None]) -> None:
    """Warn of each class name that ``weights`` have several times, unless every class keeps its index."""
    if list(sources) == list(range(len(weights.class_names))):
        return
    for name, num in Counter(weights.class_names).items():
        if num > 1:
            logger.warning(
                f"{printable(weights.path)} have {num} classes named {printable(name)!r}: the first class of that name "
                f"in the data starts from the first of them, the second from the second"
            )


def _adapt_to_head(model: nn.Module, state: dict[str, Tensor], weights: Weights) -> list[str]:
    """Let the head check its tensors in ``state`` and replace some; return notes for the log on what the head did."""
    inner = {name.removeprefix(_HEAD): state.pop(name) for name in list(state) if name.startswith(_HEAD)}
    try:
        notes = model.head.adapt_weights(inner)
    except ValueError as e:
        raise UserError(
            f"weights {printable(weights.path)} are refused: {e}; the file is damaged, use an earlier checkpoint."
        ) from e
    state.update({_HEAD + name: tensor for name, tensor in inner.items()})
    return notes


def _num_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """Infer the number of classes from the shape of one of the head's tensors; None if it is missing or misshapen."""
    for name, rows in model.head.class_rows().items():
        return rows.count_classes(state[_HEAD + name]) if _HEAD + name in state else None
    return None


def _arrange_class_rows(model: nn.Module, state: dict[str, Tensor], sources, will_train: bool) -> list[str]:
    """Fill each class's rows in the head's tensors from its source or with fresh values; return the tensors' names."""
    num_classes = _num_classes(model, state)
    known = [i for i, source in enumerate(sources) if source is not None]
    chosen = torch.tensor([sources[i] for i in known], dtype=torch.int64)
    replaced = []
    for name, rows in model.head.class_rows().items():
        tensor = state.get(_HEAD + name)
        if tensor is None or rows.count_classes(tensor) != num_classes:
            continue  # the tensor does not fit, which check_all_fit reports
        grouped = tensor.unflatten(0, (rows.groups, -1))
        fresh = rows.prior if will_train else _NEVER if tensor.dim() == 1 else 0.0
        arranged = grouped.new_full((rows.groups, rows.before + len(sources), *grouped.shape[2:]), fresh)
        arranged[:, : rows.before] = grouped[:, : rows.before]
        arranged[:, [rows.before + i for i in known]] = grouped[:, rows.before + chosen]
        state[_HEAD + name] = arranged.flatten(0, 1)
        replaced.append(_HEAD + name)
    return replaced


def _describe_sources(sources, class_names, weights: Weights, will_train: bool) -> str:
    if class_names is None or weights.class_names is None:
        return "all from the prior"
    targets = defaultdict(list)
    for name, source in zip(class_names, sources, strict=True):
        targets[source].append(name)
    untrained = targets.pop(None, [])
    parts = [f"{', '.join(names)} from {weights.class_names[source]}" for source, names in targets.items()]
    if untrained:
        parts.append(f"{', '.join(untrained)} {'from the prior' if will_train else 'never predicted'}")
    return "; ".join(parts)


def check_all_fit(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], weights: Weights, *, will_train: bool = False
) -> None:
    """Raise a UserError unless ``state`` has the same names and shapes as ``own``, the model's tensors.

    Args:
        weights: where ``state`` comes from, for the message.
    """
    problems = find_misfits(state, own)
    if problems:
        fitting = weights.find_config(for_coco=bool(weights.family) and not will_train)
        advice = f"use {fitting}" if fitting else "use the config they were trained with"
        advice += "".join(f" with {key} {value}" for key, value in weights.find_widths(own).items())
        raise UserError(
            f"weights {printable(weights.path)} do not fit the model of the config: {join_some(problems, 3)}; {advice}."
        )


def find_misfits(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> list[str]:
    """Describe each tensor that is missing in ``state``, is missing in ``own``, or has another shape in ``own``."""
    problems = [f"{name} is missing" for name in own if name not in state]
    problems += [f"{printable(name)} is left over" for name in state if name not in own]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    return problems


def _explain_no_common_class(weights: Weights, theirs: int, ours: int) -> str:
    if weights.class_names is None:
        return (
            f"weights {printable(weights.path)} have {theirs} classes without names, but the model has {ours}; set "
            f"MODEL.YOLO.NUM_CLASSES to {theirs}, or give other weights."
        )
    return (
        f"weights {printable(weights.path)} have {theirs} classes, but the model has {ours}, and none of them is found "
        f"in the weights by its name; set MODEL.YOLO.NUM_CLASSES and the data set to those of the weights, or say in "
        f"MODEL.YOLO.CLASS_MAP which class stands for which."
    )
