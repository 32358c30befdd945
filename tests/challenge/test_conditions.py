import unicodedata

import pytest

from parking.challenge.conditions import CONDITIONS, count_conditions, get_sequence_key, parse_conditions, parse_frame

NAME = "20201102_경기도_-_-_맑음_주간_실외_right_{:06d}_{:07d}.png"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (NAME.format(79, 88055), "20201102_경기도_-_-_맑음_주간_실외_right_000079"),
        ("a/" + NAME.format(79, 1), "a/20201102_경기도_-_-_맑음_주간_실외_right_000079"),
        ("20201102_서울 강남_a_b_비_야간_실내_left_1_2.PNG", "20201102_서울 강남_a_b_비_야간_실내_left_1"),
        ("v00001.jpg", "v00001.jpg"),
        ("IMG_2020_0001.jpg", "IMG_2020_0001.jpg"),
        ("0a3f5a9e-1111-2222.png", "0a3f5a9e-1111-2222.png"),
    ],
)
def test_sequence_key(name, key):
    assert get_sequence_key(name) == key


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("folder", ["", "a_b/"])
def test_conditions_and_frame(form, folder):
    name = folder + unicodedata.normalize(form, NAME.format(79, 88055))
    assert parse_conditions(name) == dict(zip(CONDITIONS, ("경기도", "맑음", "주간", "실외", "right"), strict=True))
    assert parse_frame(name) == (folder + "20201102_경기도_-_-_맑음_주간_실외_right_000079", 88055)


def test_a_place_of_several_words():
    name = "20201102_서울_강남_역_앞_비_야간_실내_left_000001_0000002.jpg"
    assert list(parse_conditions(name).values()) == ["서울", "비", "야간", "실내", "left"]


@pytest.mark.parametrize("name", ["a.png", "20201102_서울_1_2.png", "1_2_3_4_5_6_7_8_9_10.png", ""])
def test_names_of_another_form_tell_no_conditions(name):
    assert parse_conditions(name) == {}


def test_conditions_are_counted_in_english():
    names = [
        "20201102_경기도_-_-_맑음_주간_실외_right_000079_0088055.png",
        unicodedata.normalize("NFD", "sub/20201102_서울특별시_-_-_맑음_야간_실내_left_000079_0088056.png"),
        "20201102_달나라_-_-_-_주간_실외_right_000079_0088057.png",
        "0a3f5a9e.png",
    ]
    counts = count_conditions(names)
    assert counts["region"] == {"Gyeonggi": 1, "Seoul": 1, "unknown": 1, "달나라": 1}
    assert counts["weather"] == {"clear": 2, "unknown": 2}
    assert counts["daytime"] == {"day": 2, "night": 1, "unknown": 1}
    assert counts["location"] == {"outdoors": 2, "indoors": 1, "unknown": 1}
    assert list(counts["side"].items()) == [("right", 2), ("left", 1), ("unknown", 1)]
