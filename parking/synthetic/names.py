"""File names of training images, which state the conditions of the scene."""

from dataclasses import dataclass

WEATHER = {"clear": "맑음", "cloudy": "흐림", "rain": "비", "snow": "눈"}
DAYTIME = {"day": "주간", "night": "야간"}
LOCATION = {"outdoor": "실외", "indoor": "실내"}
SIDES = ("front", "rear", "left", "right")
REGIONS = ("서울", "경기도", "인천", "부산", "대전", "강원도", "제주도")


@dataclass(frozen=True)
class FrameName:
    """The parts of a file name such as ``20201102_경기도_-_-_맑음_주간_실외_right_000079_0088055.png``.

    Attributes:
        date: YYYYMMDD.
        region: a Korean word.
        weather, daytime, location: keys of WEATHER, DAYTIME and LOCATION.
        side: side of the car to which the camera looks, one of SIDES.
        sequence, frame: numbers; six and seven digits in the name.
    """

    date: str
    region: str
    weather: str
    daytime: str
    location: str
    side: str
    sequence: int
    frame: int

    def __str__(self) -> str:
        conditions = (WEATHER[self.weather], DAYTIME[self.daytime], LOCATION[self.location])
        words = (self.date, self.region, "-", "-", *conditions, self.side)  # place and spot are unknown
        return "_".join((*words, f"{self.sequence:06d}", f"{self.frame:07d}")) + ".png"
