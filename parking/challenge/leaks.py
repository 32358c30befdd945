"""How much the validation images of each split repeat the training images; needs neither torch nor detectron2."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from parking.data.checking.overview import SplitSummary
from parking.utils.errors import UserError

from .conditions import parse_frame
from .splits import SPLITS, split_images

#: Frames of a sequence are neighbours if at most this many apart: a second of video, in which a car hardly moves.
NEIGHBOUR_FRAMES = 30


def compare_splits(
    file_names: Mapping[int, str],
    class_counts: Mapping[int, Mapping[int, int]],
    *,
    val_fraction: float = 0.12,
    seed: int = 0,
    listed_ids: Sequence[int] = (),
) -> list[SplitSummary]:
    """Summaries of what each of ``SPLITS`` would do; arguments as in :func:`.splits.split_images`."""
    summaries = []
    for split in SPLITS:
        try:
            val_ids = split_images(
                split, file_names, class_counts, val_fraction=val_fraction, seed=seed, listed_ids=listed_ids
            )
        except UserError as e:
            summaries.append(SplitSummary(split, (0, 0), {}, [], str(e)))
            continue
        num_boxes = count_boxes(class_counts, val_ids)
        num_images = (len(file_names) - len(val_ids), len(val_ids))
        summaries.append(SplitSummary(split, num_images, num_boxes, find_leaks(file_names, val_ids)))
    return summaries


def count_boxes(class_counts: Mapping[int, Mapping[int, int]], val_ids: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Numbers of boxes on the training and on the validation side, by class, sorted."""
    sides: tuple[Counter, Counter] = (Counter(), Counter())
    val_ids = set(val_ids)
    for image_id, counts in class_counts.items():
        sides[image_id in val_ids].update(counts)
    return {c: (sides[0][c], sides[1][c]) for c in sorted({*sides[0], *sides[1]})}


def find_leaks(file_names: Mapping[int, str], val_ids: set[int], num_frames: int = NEIGHBOUR_FRAMES) -> list[int]:
    """The images with a neighbour on the other side: a frame of their sequence at most ``num_frames`` away."""
    sequences: dict[str, list[tuple[int, int]]] = {}
    for image_id, name in file_names.items():
        if (frame := parse_frame(name)) is not None:
            sequences.setdefault(frame[0], []).append((frame[1], image_id))
    leaking = set()
    for frames in sequences.values():
        frames.sort(key=lambda frame: frame[0])
        # Read forwards and then backwards: the nearest frame on the other side is the last one read in one direction.
        for ordered in (frames, frames[::-1]):
            last: list[int | None] = [None, None]
            for number, image_id in ordered:
                side = image_id in val_ids
                other = last[not side]
                if other is not None and abs(number - other) <= num_frames:
                    leaking.add(image_id)
                last[side] = number
    return [image_id for image_id in file_names if image_id in leaking]
