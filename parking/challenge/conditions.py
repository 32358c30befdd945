"""Reads weather, place and time from the file names of the challenge's training images.

Needs neither torch nor detectron2.

A name such as ``20201102_경기도_-_-_맑음_주간_실외_right_000079_0088055.png`` consists of: date, region, two more words
about the place, weather, time of day, outdoors or indoors, the camera's side of the car, number of the sequence, number
of the frame.
"""

import re
from collections import Counter
from collections.abc import Iterable

from parking.utils.text import compose

#: The title that charts give to each condition.
TITLES = {
    "region": "Region",
    "weather": "Weather",
    "daytime": "Day or night",
    "location": "Indoors or outdoors",
    "side": "Camera's side of the car",
}
CONDITIONS = tuple(TITLES)
UNKNOWN = "unknown"

# Charts are in English: they show these translations, and show a Korean word without a translation as it is.
_ENGLISH = {
    "맑음": "clear",
    "흐림": "cloudy",
    "비": "rain",
    "눈": "snow",
    "안개": "fog",
    "주간": "day",
    "야간": "night",
    "실외": "outdoors",
    "실내": "indoors",
    "서울": "Seoul",
    "부산": "Busan",
    "대구": "Daegu",
    "인천": "Incheon",
    "광주": "Gwangju",
    "대전": "Daejeon",
    "울산": "Ulsan",
    "세종": "Sejong",
    "경기": "Gyeonggi",
    "강원": "Gangwon",
    "충북": "Chungbuk",
    "충남": "Chungnam",
    "전북": "Jeonbuk",
    "전남": "Jeonnam",
    "경북": "Gyeongbuk",
    "경남": "Gyeongnam",
    "제주": "Jeju",
    "충청북도": "Chungbuk",
    "충청남도": "Chungnam",
    "전라북도": "Jeonbuk",
    "전라남도": "Jeonnam",
    "경상북도": "Gyeongbuk",
    "경상남도": "Gyeongnam",
}
_REGION_SUFFIX = re.compile(r"(특별자치시|특별자치도|특별시|광역시|시|도)$")
_SEQUENCE_PATTERN = re.compile(r"((?:.*/)?\d{8}_.+_\d+)_(\d+)\.[^./]+")
# The region is the second word of a file name. The other words are counted from the end, because the place before them
# may have several words.
_POSITIONS = {"region": 1, "weather": -6, "daytime": -5, "location": -4, "side": -3}
_NUM_WORDS = 10


def get_sequence_key(file_name: str) -> str:
    """The key of an image's sequence: the file name ``DATE_..._SEQUENCE_FRAME.EXT`` without frame and extension.

    An image whose file name has another form is a sequence of its own.
    """
    frame = parse_frame(file_name)
    return frame[0] if frame else compose(file_name)


def parse_frame(file_name: str) -> tuple[str, int] | None:
    """The sequence key and the frame number in ``file_name``; None if the name is not that of a frame."""
    match = _SEQUENCE_PATTERN.fullmatch(compose(file_name))
    return (match[1], int(match[2])) if match else None


def parse_conditions(file_name: str) -> dict[str, str]:
    """The word in ``file_name`` for each of ``CONDITIONS``, "-" if unknown; {} if the name is not that of a frame."""
    words = compose(file_name.rpartition("/")[2]).split("_")
    if len(words) < _NUM_WORDS or parse_frame(file_name) is None:
        return {}
    return {condition: words[position] for condition, position in _POSITIONS.items()}


def count_conditions(file_names: Iterable[str]) -> dict[str, dict[str, int]]:
    """Count the images that have each value of each of ``CONDITIONS``; the most frequent value comes first.

    Values are in English if a translation is known, and ``UNKNOWN`` if the file name does not tell the value.
    """
    counts: dict[str, Counter] = {key: Counter() for key in CONDITIONS}
    for file_name in file_names:
        words = parse_conditions(file_name)
        for key in CONDITIONS:
            counts[key][_translate(words.get(key, "-"))] += 1
    return {key: dict(sorted(counter.items(), key=lambda item: (-item[1], item[0]))) for key, counter in counts.items()}


def _translate(word: str) -> str:
    if word == "-":
        return UNKNOWN
    return _ENGLISH.get(word) or _ENGLISH.get(_REGION_SUFFIX.sub("", word)) or word
