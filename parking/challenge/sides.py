"""Summarizes the sides of a split, such as training and validation, and finds neighbouring frames across sides."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

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

#: Frames of a sequence are neighbours if their numbers differ by at most this. These frames take one second, in which
#: cars hardly move.
NEIGHBOUR_FRAMES = 30
# The default of DATASETS.VAL_FRACTION.
_VAL_FRACTION = 0.12


def summarize(checked: Sequence[CheckedSource], *, split: str) -> Overview:
    """Summarize each side of checked data sets; report frames of one side that have a neighbour on another side.

    The challenge's data have the sides training and validation, according to ``split``. Else each data set is a side.
    """
    usable = [one for one in checked if one.columns is not None and one.source.has_annotations]
    # A source with ``categories`` is the challenge's; only the challenge's data are split.
    if usable and usable[0].source.categories is not None:
        class_names = usable[0].class_names
        sides, splits = divide_parking(usable[0], split)
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
    """Divide ``columns`` into sides: the side ``names[k]`` has the images for which ``belongs[k]`` (N,) is true."""
    # Count without a table of images x classes, because there may be thousands of both.
    image_rows = columns.image_rows()
    sides = []
    for name, mask in zip(names, belongs, strict=True):
        file_names = [columns.names[row] for row in np.flatnonzero(mask)]
        class_counts = np.bincount(columns.classes[mask[image_rows]], minlength=num_classes)
        sides.append(Side(name, file_names, class_counts, np.diff(columns.starts)[mask], count_conditions(file_names)))
    return sides


def divide_parking(checked: CheckedSource, split: str) -> tuple[list[Side], list[SplitSummary]]:
    """Divide the training data by ``split``; return its sides and a summary of each of ``SPLITS``.

    Frames with a neighbour on the other side are added to ``checked.findings``. If ``split`` is impossible, the only
    side has all images, and the summary of ``split`` says why.
    """
    columns, num_classes = checked.columns, len(checked.class_names)
    file_names = dict(zip(columns.image_ids, columns.names, strict=True))
    counts = columns.class_counts(num_classes)
    sides, summaries = make_sides(columns, num_classes, ["all images"], [np.ones(len(columns), dtype=bool)]), []
    for kind in SPLITS:
        try:
            in_val = split_images(kind, columns, num_classes, val_fraction=_VAL_FRACTION, seed=0)
        except UserError as e:
            summaries.append(SplitSummary(kind, (0, 0), {}, [], str(e)))
            continue
        sums = np.stack([counts[~in_val].sum(axis=0), counts[in_val].sum(axis=0)], axis=1).tolist()
        num_boxes = {c: tuple(numbers) for c, numbers in enumerate(sums) if any(numbers)}
        num_images = (int((~in_val).sum()), int(in_val.sum()))
        leaking = find_leaks(file_names, {columns.image_ids[row] for row in np.flatnonzero(in_val)})
        summaries.append(SplitSummary(kind, num_images, num_boxes, leaking))
        if kind != split:
            continue
        for image_id in leaking:
            detail = f"has a frame at most {NEIGHBOUR_FRAMES} away on the other side of the split '{split}'"
            checked.findings.append(Finding("neighbours_across_split", printable(file_names[image_id]), detail))
        if in_val.any():
            sides = make_sides(columns, num_classes, ["training", "validation"], [~in_val, in_val])
    return sides, summaries


def divide_by_source(usable: Sequence[CheckedSource]) -> tuple[list[Side], list[str]]:
    """Make one side per source; return the sides and the class names of all sources together.

    Frames with a neighbour in another source are added to the findings, and so are sources whose classes differ from
    those of the first source.
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


def find_leaks(file_names: Mapping[int, str], val_ids: set[int], num_frames: int = NEIGHBOUR_FRAMES) -> list[int]:
    """Ids of the images that are at most ``num_frames`` away from an image of their sequence on the other side."""
    sequences: dict[str, list[tuple[int, int]]] = {}
    for image_id, name in file_names.items():
        if (frame := parse_frame(name)) is not None:
            sequences.setdefault(frame[0], []).append((frame[1], image_id))
    leaking = set()
    for frames in sequences.values():
        frames.sort(key=lambda frame: frame[0])
        # Each frame is compared with the last frame read from the other side. Reading forwards and then backwards finds
        # the nearest of these frames both before and behind.
        for ordered in (frames, frames[::-1]):
            last: list[int | None] = [None, None]
            for number, image_id in ordered:
                side = image_id in val_ids
                other = last[not side]
                if other is not None and abs(number - other) <= num_frames:
                    leaking.add(image_id)
                last[side] = number
    return [image_id for image_id in file_names if image_id in leaking]
