"""File names of training images."""

from datetime import date

from hypothesis import given
from hypothesis import strategies as st

from parking.challenge.conditions import parse_conditions, parse_frame
from parking.synthetic.names import DAYTIME, LOCATION, REGIONS, SIDES, WEATHER, FrameName


def test_the_documented_example():
    name = FrameName("20201102", "경기도", "clear", "day", "outdoor", "right", sequence=79, frame=88055)
    assert str(name) == "20201102_경기도_-_-_맑음_주간_실외_right_000079_0088055.png"


@given(
    st.builds(
        FrameName,
        date=st.dates(min_value=date(1970, 1, 1)).map("{:%Y%m%d}".format),
        region=st.sampled_from(REGIONS),
        weather=st.sampled_from(sorted(WEATHER)),
        daytime=st.sampled_from(sorted(DAYTIME)),
        location=st.sampled_from(sorted(LOCATION)),
        side=st.sampled_from(SIDES),
        sequence=st.integers(0, 999_999),
        frame=st.integers(0, 9_999_998),
    )
)
def test_names_are_read_like_the_challenges(name):
    conditions = (name.region, WEATHER[name.weather], DAYTIME[name.daytime], LOCATION[name.location], name.side)
    assert tuple(parse_conditions(str(name)).values()) == conditions
    sequence, frame = parse_frame(str(name))
    assert sequence.endswith(f"_{name.sequence:06d}") and frame == name.frame
