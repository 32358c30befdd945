"""File names of training images."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parking.synthetic.names import DAYTIME, LOCATION, REGIONS, SIDES, WEATHER, FrameName

EXAMPLE = "20201102_경기도_-_-_맑음_주간_실외_right_000079_0088055.png"


def test_the_documented_example():
    name = FrameName.parse(EXAMPLE)
    assert name == FrameName(
        "20201102", "경기도", "-", "-", "clear", "day", "outdoor", "right", sequence=79, frame=88055
    )
    assert str(name) == EXAMPLE


@given(
    st.builds(
        FrameName,
        date=st.dates().map("{:%Y%m%d}".format),
        region=st.sampled_from(REGIONS),
        place=st.sampled_from(("-", "수원")),
        spot=st.sampled_from(("-", "마트")),
        weather=st.sampled_from(sorted(WEATHER)),
        daytime=st.sampled_from(sorted(DAYTIME)),
        location=st.sampled_from(sorted(LOCATION)),
        side=st.sampled_from(SIDES),
        sequence=st.integers(0, 999_999),
        frame=st.integers(0, 9_999_999),
    )
)
def test_round_trip(name):
    assert FrameName.parse(str(name)) == name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("6f1f.png", "1 parts"),
        (EXAMPLE.replace("맑음", "안개"), "안개"),
        (EXAMPLE.replace("right", "up"), "up"),
        (EXAMPLE.replace("0088055", "x"), "invalid literal"),
    ],
)
def test_a_foreign_name_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        FrameName.parse(wrong)


def test_names_of_consecutive_frames_sort_in_order():
    first = FrameName.parse(EXAMPLE)
    names = [str(dataclasses.replace(first, frame=first.frame + k)) for k in range(12)]
    assert names == sorted(names)
