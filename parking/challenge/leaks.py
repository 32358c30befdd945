"""Which validation images nearly repeat a training image; needs neither torch nor detectron2."""

from collections.abc import Mapping

from .conditions import parse_frame

#: Frames of a sequence are neighbours if at most this many apart: a second of video, in which a car hardly moves.
NEIGHBOUR_FRAMES = 30


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
