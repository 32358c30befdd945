import unicodedata

from parking.challenge.condition_counts import count_conditions


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
