import math

from parking.evaluation.score_table import format_scores

SCORES = {"bbox": {"AP": 41.26, "AP75": 50.04, "AP-sedan": 1.0, "AP75-sedan": 60.08, "AP50-bus": 2.0, "AP75-bus": 40.0}}


def cells(text):
    """The words of each line, without the rules of dashes and empty lines."""
    return [line.split() for line in text.splitlines() if line.strip("- ")]


def test_one_data_set():
    # Rounded to one decimal: 41.26 -> 41.3, 50.04 -> 50.0, 60.08 -> 60.1. For classes, only AP75 is shown.
    assert cells(format_scores(SCORES)) == [
        ["AP", "AP75"],
        ["41.3", "50.0"],
        ["class", "AP75"],
        ["sedan", "60.1"],
        ["bus", "40.0"],
    ]


def test_several_data_sets_stand_under_their_names():
    other = {"bbox": {"AP": 7.0, "AP75": 8.0, "AP75-sedan": 9.0}}
    text = format_scores({"val": SCORES, "other": other})
    assert text == f"val\n{format_scores(SCORES)}\n\nother\n{format_scores(other)}"
    assert ["sedan", "9.0"] in cells(text) and ["sedan", "60.1"] in cells(text)


def test_scores_that_do_not_exist_are_nan():
    text = format_scores({"bbox": {"AP": 10.0, "APs": math.nan, "AP75-sedan": math.nan, "AP75-bus": 20.0}})
    assert cells(text)[1:] == [["10.0", "nan"], ["class", "AP75"], ["sedan", "nan"], ["bus", "20.0"]]


def test_class_names_with_dashes_and_spaces():
    text = format_scores({"bbox": {"AP": 10.0, "AP75-pick-up": 30.0, "AP75-school bus": 20.0}})
    assert cells(text) == [["AP"], ["10.0"], ["class", "AP75"], ["pick-up", "30.0"], ["school", "bus", "20.0"]]


def test_class_names_stay_texts_and_are_cut():
    names = ["10", "10.0", "1e3", "nan", "x" * 5000]
    text = format_scores({"bbox": {"AP": 10.0, **{f"AP75-{name}": 30.0 for name in names}}})
    assert [row[0] for row in cells(text)[3:]] == ["10", "10.0", "1e3", "nan", "x" * 57 + "..."]
