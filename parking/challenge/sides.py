"""The sides of a split: what each holds, and which frames have a near neighbour on another side."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from parking.data.checking.check import CheckedSource
from parking.data.checking.findings import Finding
from parking.data.checking.overview import Overview, Side, SplitSummary
from parking.data.datasets.columns import Columns
from parking.utils.class_names import class_key, same_classes
from parking.utils.errors import UserError
from parking.utils.text import printable

from .conditions import count_conditions
from .leaks import NEIGHBOUR_FRAMES, compare_splits, find_leaks
from .splits import split_images


def summarize(checked: Sequence[CheckedSource], *, split: str, val_fraction: float = 0.12) -> Overview:
    """Overview of checked data; its sides are those of ``split`` for the challenge's data, else one per source.

    Frames with a near neighbour on another side are added to the findings.
    """
    usable = [one for one in checked if one.columns is not None and one.source.has_annotations]
    # Only sources of the challenge state their categories, and only they are split.
    if usable and usable[0].source.categories is not None:
        class_names = usable[0].class_names
        sides, splits = divide_parking(usable[0], split, val_fraction)
    else:
        (sides, class_names), splits = divide_by_source(usable), []
    indices = {class_key(name): c for c, name in enumerate(class_names)}
    classes, boxes, image_files, turned = [np.zeros(0, dtype=int)], [np.zeros((0, 4))], [], {}
    for one in usable:
        to_all = np.array([indices[class_key(name)] for name in one.class_names], dtype=int)
        classes.append(to_all[one.columns.classes])
        boxes.append(one.columns.boxes)
        orientations = zip(one.columns.file_names, one.columns.exif_orientations, strict=True)
        turned |= {path: orientation for path, orientation in orientations if orientation}
        image_files += [one.columns.file_names[row] for row in one.columns.image_rows()]
    return Overview(class_names, sides, splits, np.concatenate(classes), np.concatenate(boxes), image_files, turned)


def make_sides(columns: Columns, num_classes: int, names: Sequence[str], belongs: Sequence[np.ndarray]) -> list[Side]:
    """Divide ``columns``: side ``names[k]`` has the images where the mask ``belongs[k]`` (N,) is true."""
    # Without a table of images x classes: there may be many thousands of both.
    image_rows = columns.image_rows()
    sides = []
    for name, mask in zip(names, belongs, strict=True):
        file_names = [columns.names[row] for row in np.flatnonzero(mask)]
        class_counts = np.bincount(columns.classes[mask[image_rows]], minlength=num_classes)
        sides.append(Side(name, file_names, class_counts, np.diff(columns.starts)[mask], count_conditions(file_names)))
    return sides


def divide_parking(checked: CheckedSource, split: str, val_fraction: float) -> tuple[list[Side], list[SplitSummary]]:
    """The sides of the training data under ``split``, and a summary of every split; neighbours become findings.

    If the split is impossible, all images are on one side; its summary says why.
    """
    columns, num_classes = checked.columns, len(checked.class_names)
    if not len(columns):
        return make_sides(columns, num_classes, ["all images"], [np.zeros(0, dtype=bool)]), []
    file_names = dict(zip(columns.image_ids, columns.names, strict=True))
    class_counts = {
        image_id: {int(c): int(row[c]) for c in np.flatnonzero(row)}
        for image_id, row in zip(columns.image_ids, columns.class_counts(num_classes), strict=True)
    }
    summaries = compare_splits(file_names, class_counts, val_fraction=val_fraction, listed_ids=columns.listed_ids)
    leaking = next(summary.leaking for summary in summaries if summary.split == split)
    for image_id in leaking:
        detail = f"has a frame at most {NEIGHBOUR_FRAMES} away on the other side of the split '{split}'"
        checked.findings.append(Finding("neighbours_across_split", printable(file_names[image_id]), detail))
    try:
        val_ids = split_images(
            split, file_names, class_counts, val_fraction=val_fraction, seed=0, listed_ids=columns.listed_ids
        )
    except UserError:
        val_ids = set()
    is_val = np.array([image_id in val_ids for image_id in columns.image_ids], dtype=bool)
    if not is_val.any():
        return make_sides(columns, num_classes, ["all images"], [~is_val]), summaries
    return make_sides(columns, num_classes, ["training", "validation"], [~is_val, is_val]), summaries


def divide_by_source(usable: Sequence[CheckedSource]) -> tuple[list[Side], list[str]]:
    """A side for each source, and the names of all their classes, in the order of the sides' counts.

    Frames with a neighbour in another source become findings, and so do sources whose classes differ from the first.
    """
    by_key = {}
    for name in (name for one in usable for name in one.class_names):
        by_key.setdefault(class_key(name), name)
    names = {(k, row): name for k, one in enumerate(usable) for row, name in enumerate(one.columns.names)}
    sides = []
    for k, one in enumerate(usable):
        leaking = find_leaks(names, {key for key in names if key[0] == k}) if len(usable) > 1 else []
        for row in [row for owner, row in leaking if owner == k]:
            detail = f"has a frame at most {NEIGHBOUR_FRAMES} away in another data set"
            one.findings.append(Finding("neighbours_across_split", printable(one.columns.names[row]), detail))
        if not same_classes(one.class_names, usable[0].class_names):
            detail = f"has other 'categories' than {usable[0].source.json_file}; they cannot be used together"
            one.findings.append(Finding("json_structure", one.source.json_file, detail))
        everything = np.ones(len(one.columns), dtype=bool)
        (side,) = make_sides(one.columns, len(one.class_names), [one.source.name], [everything])
        counts = dict(zip(map(class_key, one.class_names), side.class_counts.tolist(), strict=True))
        sides.append(replace(side, class_counts=np.array([counts.get(key, 0) for key in by_key], dtype=int)))
    return sides, list(by_key.values())
