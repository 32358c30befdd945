"""What the names of the challenge's training images tell; needs neither torch nor detectron2.

``20201102_경기도_-_-_맑음_주간_실외_right_000079_0088055.png`` is made of date, region, two more words about the place,
weather, time of day, outdoors or indoors, the camera's side of the car, number of the sequence, number of the frame.
"""

import re

from parking.utils.text import compose

CONDITIONS = ("region", "weather", "daytime", "location", "side")

_SEQUENCE_PATTERN = re.compile(r"((?:.*/)?\d{8}_.+_\d+)_(\d+)\.[^./]+")
# The region is the second word, the others are counted from the end: a place may be of several words.
_POSITIONS = {"region": 1, "weather": -6, "daytime": -5, "location": -4, "side": -3}
_NUM_WORDS = 10


def get_sequence_key(file_name: str) -> str:
    """The sequence an image belongs to: its name ``DATE_..._SEQUENCE_FRAME.EXT`` without frame and extension.

    A name of another form is a sequence of its own.
    """
    frame = parse_frame(file_name)
    return frame[0] if frame else compose(file_name)


def parse_frame(file_name: str) -> tuple[str, int] | None:
    """Sequence key and number of the frame; None for a name of another form."""
    match = _SEQUENCE_PATTERN.fullmatch(compose(file_name))
    return (match[1], int(match[2])) if match else None


def parse_conditions(file_name: str) -> dict[str, str]:
    """The words of ``file_name`` for each of ``CONDITIONS``, as they are, "-" where unknown.

    Empty for a name of another form.
    """
    words = compose(file_name.rpartition("/")[2]).split("_")
    if len(words) < _NUM_WORDS or parse_frame(file_name) is None:
        return {}
    return {condition: words[position] for condition, position in _POSITIONS.items()}
