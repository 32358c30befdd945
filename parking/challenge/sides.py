"""Summarizes the sides of a split, such as training and validation, and finds neighbouring frames across sides."""

from collections.abc import Sequence

import numpy as np

from parking.data.checking.check import CheckedSource
from parking.data.checking.findings import Finding
from parking.data.checking.overview import Overview, Side, SplitSummary
from parking.data.datasets.columns import Columns
from parking.utils.class_names import class_key, same_classes
from parking.utils.errors import UserError
from parking.utils.text import printable

from .conditions import count_conditions, parse_frame
from .splits import SPLITS, split_images

#: Frames of a sequence are neighbours if their numbers differ by at most this. This many frames take one second, in
#: which cars hardly move.
NEIGHBOUR_FRAMES = 30
# The default of DATASETS.VAL_FRACTION.
_VAL_FRACTION = 0.12


def summarize(checked: Sequence[CheckedSource], *, split: str) -> Overview:
    """Summarize the sides (such as training) of checked data sets; report neighbouring frames on different sides.

    The challenge's data have the sides training and validation, according to ``split``. Else each data set is a side.
    """
    usable = [one for one in checked if one.columns is not None and one.source.has_annotations]
    names: dict[str, str] = {}
    for name in (name for one in usable for name in one.class_names):
        names.setdefault(class_key(name), name)
    places = {key: c for c, key in enumerate(names)}
    classes, boxes, image_files, turned = [np.zeros(0, dtype=int)], [np.zeros((0, 4))], [], {}
    for one in usable:
        columns = one.columns
        to_all = np.array([places[class_key(name)] for name in one.class_names], dtype=int)
        classes.append(to_all[columns.classes])
        boxes.append(columns.boxes)
        orientations = zip(columns.file_names, columns.exif_orientations, strict=True)
        turned |= {path: orientation for path, orientation in orientations if orientation}
        image_files += [columns.file_names[row] for row in columns.image_rows()]
    # Split only the challenge's data, which are the only ones whose ``source.categories`` is set.
    if usable and usable[0].source.categories is not None:
        sides, splits = _divide_parking(usable[0], split)
    else:
        _compare_sources(usable)
        sides, splits = [], []
        for one, own in zip(usable, classes[1:], strict=True):
            everything = np.ones(len(one.columns), dtype=bool)
            sides.append(_make_side(one.source.name, one.columns, everything, own, len(names)))
    all_names = list(names.values())
    return Overview(all_names, sides, splits, np.concatenate(classes), np.concatenate(boxes), image_files, turned)


def _make_side(name: str, columns: Columns, mask: np.ndarray, classes: np.ndarray, num_classes: int) -> Side:
    """Describe the images for which ``mask`` (N,) is true; ``classes`` (A,) are the classes of all boxes."""
    # Count without a table of images x classes, because there may be thousands of both.
    class_counts = np.bincount(classes[mask[columns.image_rows()]], minlength=num_classes)
    file_names = [columns.names[row] for row in np.flatnonzero(mask)]
    return Side(name, file_names, class_counts, np.diff(columns.starts)[mask], count_conditions(file_names))


def _divide_parking(checked: CheckedSource, split: str) -> tuple[list[Side], list[SplitSummary]]:
    """Return the two sides of the split named ``split``, training and validation, and a summary of each of ``SPLITS``.

    Frames with a neighbour on the other side are added to ``checked.findings``. If ``split`` is impossible, the only
    side has all images, and the summary of ``split`` says why.
    """
    columns, num_classes = checked.columns, len(checked.class_names)

    def make_side(name: str, mask: np.ndarray) -> Side:
        return _make_side(name, columns, mask, columns.classes, num_classes)

    sides, summaries = [make_side("all images", np.ones(len(columns), dtype=bool))], []
    for kind in SPLITS:
        try:
            in_val = split_images(kind, columns, num_classes, val_fraction=_VAL_FRACTION, seed=0)
        except UserError as e:
            summaries.append(SplitSummary(kind, (0, 0), [], 0, str(e)))
            continue
        train, val = make_side("training", ~in_val), make_side("validation", in_val)
        num_images = (len(train.file_names), len(val.file_names))
        num_boxes = list(zip(train.class_counts.tolist(), val.class_counts.tolist(), strict=True))
        leaking = find_leaks(columns.names, in_val)
        summaries.append(SplitSummary(kind, num_images, num_boxes, len(leaking)))
        if kind != split:
            continue
        for row in leaking:
            detail = f"has a frame at most {NEIGHBOUR_FRAMES} away on the other side of the split '{split}'"
            checked.findings.append(Finding("neighbours_across_split", printable(columns.names[row]), detail))
        if in_val.any():
            sides = [train, val]
    return sides, summaries


def _compare_sources(usable: Sequence[CheckedSource]) -> None:
    """Add findings to ``usable``: neighbouring frames in two sources, and sources with classes unlike the first's."""
    rows = [(one, name) for one in usable for name in one.columns.names]
    owners = np.repeat(np.arange(len(usable)), [len(one.columns) for one in usable])
    for row in find_leaks([name for _, name in rows], owners):
        one, name = rows[row]
        detail = f"has a frame at most {NEIGHBOUR_FRAMES} away in another data set"
        one.findings.append(Finding("neighbours_across_split", printable(name), detail))
    for one in usable:
        if not same_classes(one.class_names, usable[0].class_names):
            detail = f"has other 'categories' than {usable[0].source.json_file}; they cannot be used together"
            one.findings.append(Finding("json_structure", one.source.json_file, detail))


def find_leaks(names: Sequence[str], sides: Sequence[int]) -> list[int]:
    """Return the indices in ``names`` of frames with a neighbour on another side; ``names[i]`` is on ``sides[i]``."""
    sequences: dict[str, list[tuple[int, int]]] = {}
    for row, name in enumerate(names):
        if (frame := parse_frame(name)) is not None:
            sequences.setdefault(frame[0], []).append((frame[1], row))
    leaking = set()
    for frames in sequences.values():
        frames.sort()
        # In ``last``, each side has the number of its latest frame so far. Going forwards, this is the side's nearest
        # frame before the current one; going backwards, its nearest frame after the current one.
        for ordered in (frames, frames[::-1]):
            last: dict[int, int] = {}
            for number, row in ordered:
                if any(abs(number - other) <= NEIGHBOUR_FRAMES for k, other in last.items() if k != sides[row]):
                    leaking.add(row)
                last[sides[row]] = number
    return sorted(leaking)
