"""The conditions of a picture, which the challenge's file names tell."""

import re
from collections import Counter
from collections.abc import Iterable

from .conditions import CONDITIONS, parse_conditions

UNKNOWN = "unknown"

#: What a chart calls each condition.
TITLES = {
    "region": "Region",
    "weather": "Weather",
    "daytime": "Day or night",
    "location": "Indoors or outdoors",
    "side": "Camera's side of the car",
}
# Charts are in English; a word that is not here stays as it is.
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


def count_conditions(file_names: Iterable[str]) -> dict[str, dict[str, int]]:
    """How many of the names have each value of each of ``CONDITIONS``, the most frequent first.

    Values are in English where known, and ``UNKNOWN`` where the name does not tell.
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
