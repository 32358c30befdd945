import pytest

from parking.challenge.submission.options import parse_class_floors
from parking.utils.errors import UserError

CLASSES = {"sedan": 1, "school bus": 5, "stroller": 13}


@pytest.mark.parametrize(
    ("texts", "floors"),
    [
        ([], {1: 0, 5: 0, 13: 0}),
        (["school bus=7"], {1: 0, 5: 7, 13: 0}),
        ([300], {1: 300, 5: 300, 13: 300}),
        (["stroller=0", "300"], {1: 300, 5: 300, 13: 0}),
    ],
)
def test_floors(texts, floors):
    assert parse_class_floors(texts, CLASSES, option="--class-floor") == floors


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["tram=5"], "'tram'; choose one of sedan, school bus, stroller"),
        (["=5"], "class ''"),
        (["stroller=-5"], "'-5' is not a whole number"),
        (["stroller=1.5"], "sedan=500"),
        (["stroller="], "'' is not a whole number"),
        (["stroller"], "'stroller' is not a whole number"),
        (["²"], "whole number"),
        ([-1], "'-1' is not a whole number"),
        (["sedan=1", "sedan=1"], "the class 'sedan' has a floor already"),
        ([5, "6"], "all classes have a floor already"),
    ],
)
def test_floors_that_mean_nothing(texts, message):
    with pytest.raises(UserError, match=f"^--class-floor .*{message}"):
        parse_class_floors(texts, CLASSES, option="--class-floor")
