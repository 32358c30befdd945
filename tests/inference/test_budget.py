import logging
import math

import pytest

from parking.config import get_cfg
from parking.inference import budget as time_budget
from parking.inference.budget import (
    Candidate,
    TimeBudget,
    choose_candidate,
    list_candidates,
)
from parking.utils.errors import UserError

NOW = 1000.0
CANDIDATES = [Candidate("best", []), Candidate("fair", []), Candidate("fast", [])]


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(time_budget.time, "monotonic", lambda: NOW)


@pytest.fixture
def choose(tmp_path):
    """``choose(*seconds an image)``: the choice for 100 images in an hour, half of it over, and what was measured."""

    def choose(*speeds, recipe="a"):
        measured = []

        def measure(candidate):
            measured.append(candidate.title)
            return speeds[CANDIDATES.index(candidate)]

        chosen = choose_candidate(
            CANDIDATES,
            measure,
            num_images=100,
            budget=TimeBudget(1.0, NOW - 1800),
            record=tmp_path / "journal" / "budget.json",
            recipe=recipe,
        )
        return chosen.title, measured

    return choose


def test_the_first_that_fits_is_chosen(choose, tmp_path, caplog):
    record = tmp_path / "journal" / "budget.json"
    # 100 images in 95 % of 1800 s: 17.1 s an image.
    with caplog.at_level(logging.INFO):
        assert choose(17.2, 17.0, 1.0) == ("fair", ["best", "fair"])
    assert "best takes 17.2 s an image, 28.7 min in all; 30.0 min are left: too slow" in caplog.text
    assert "fair takes 17 s an image, 28.3 min in all; 30.0 min are left: chosen" in caplog.text
    record.unlink()
    assert choose(17.0, 1.0, 1.0) == ("best", ["best"])


def test_where_none_fits_the_last_is_used(choose, caplog):
    """By the order of the list: what was measured may be off, and that by much on a busy machine."""
    assert choose(500, 90, 100) == ("fast", ["best", "fair", "fast"])
    assert "--max-hours 1 is too little even for fast, the last of TEST.FALLBACKS" in caplog.text
    assert "no image is left out" in caplog.text


@pytest.mark.parametrize("speed", [500, math.inf])
def test_nothing_is_measured_when_no_time_is_left(choose, monkeypatch, caplog, speed):
    times = iter([NOW, NOW] + [NOW + 1801] * 10)
    monkeypatch.setattr(time_budget.time, "monotonic", lambda: next(times))
    assert choose(speed, 1, math.inf) == ("fast", ["best"])
    assert "no time is left to measure more" in caplog.text


def test_what_cannot_be_run_is_not_chosen(choose, caplog):
    """Such as for lack of memory."""
    with caplog.at_level(logging.INFO):
        assert choose(math.inf, math.inf, 1) == ("fast", ["best", "fair", "fast"])
    assert "fair takes inf s an image, forever in all; 30.0 min are left: too slow" in caplog.text
    with pytest.raises(UserError, match=r"the last of TEST\.FALLBACKS cannot be run"):
        choose(math.inf, math.inf, math.inf, recipe="b")


def test_an_interrupted_run_goes_on_with_its_choice(choose, tmp_path, caplog):
    assert choose(18, 17, 1) == ("fair", ["best", "fair"])
    with caplog.at_level(logging.INFO):
        assert choose(1, 1, 1) == ("fair", [])
    assert "going on with what the interrupted run had chosen, fair" in caplog.text
    assert choose(1, 1, 1, recipe="b") == ("best", ["best"])
    (tmp_path / "journal" / "budget.json").write_bytes(b"[]")  # damaged
    assert choose(18, 17, 1) == ("fair", ["best", "fair"])


def test_the_slowest_process_decides(choose, monkeypatch):
    monkeypatch.setattr(time_budget.comm, "get_world_size", lambda: 2)
    # The other process has nothing remembered, is twice as slow, and has 100 s less.
    monkeypatch.setattr(time_budget.comm, "all_gather", lambda x: [x, x * 2 if x == 17 else x - 100 if x else x])
    # 50 images each: 17 * 2 * 50 = 1700 s of 1700 left are too many; 1 * 50 are not.
    assert choose(17, 1, 1) == ("fair", ["best", "fair"])


def test_candidates_are_the_config_and_what_the_fallbacks_change():
    cfgs = [get_cfg(), get_cfg()]
    for cfg in cfgs:
        cfg.TEST.AUG.ENABLED = True
        cfg.TEST.FALLBACKS = [
            ["TEST.AUG.ENABLED", False],
            ["INPUT.SIZE_TEST", 640],  # no change
            ["TEST.AUG.ENABLED", False, "INPUT.SIZE_TEST", 320],
        ]
    cfgs[1].INPUT.SIZE_TEST = 960
    candidates = list(list_candidates(cfgs))
    assert [c.title for c in candidates] == [
        "the config as it is",
        "TEST.AUG.ENABLED False",
        "INPUT.SIZE_TEST 640",
        "TEST.AUG.ENABLED False INPUT.SIZE_TEST 320",
    ]
    states = [[(cfg.TEST.AUG.ENABLED, cfg.INPUT.SIZE_TEST) for cfg in c.cfgs] for c in candidates]
    assert states == [
        [(True, 640), (True, 960)],
        [(False, 640), (False, 960)],
        [(True, 640), (True, 640)],
        [(False, 320), (False, 320)],
    ]
    # One that changes nothing is left out.
    assert len(list(list_candidates(cfgs[:1]))) == 3
    assert cfgs[0].TEST.AUG.ENABLED and cfgs[0].INPUT.SIZE_TEST == 640


@pytest.mark.parametrize(
    ("fallback", "sentence"),
    [
        (["TEST.AUG.ENABLED"], r"TEST\.FALLBACKS is"),
        (["TEST.AUG.ENABLE", False], "no config key TEST.AUG.ENABLE"),
        (["INPUT.SIZE_TEST", 10**6], "INPUT.SIZE_TEST is 1000000"),
    ],
)
def test_a_wrong_fallback_is_told(fallback, sentence):
    cfg = get_cfg()
    cfg.TEST.FALLBACKS = [fallback]
    with pytest.raises(UserError, match=sentence):
        list(list_candidates([cfg]))
