"""What a data set will show, decided before anything is drawn."""

from collections import Counter

import numpy as np
import pytest

from parking.challenge.classes import CLASS_NAMES
from parking.synthetic.layout import overlap
from parking.synthetic.planning import plan_sequences

SIZE = (960, 540)


@pytest.fixture(scope="module")
def balanced():
    return list(plan_sequences(600, SIZE, seed=0, split=0, balanced=True))


def count_boxes(plans) -> Counter:
    counts = Counter(dict.fromkeys(CLASS_NAMES, 0))
    for plan in plans:
        for item in plan.objects:
            counts[CLASS_NAMES[item.category]] += plan.length
    return counts


def test_the_number_of_images_is_met(balanced):
    assert sum(plan.length for plan in balanced) == 600
    assert all(4 <= plan.length <= 10 for plan in balanced[:-1])


def test_balanced_shares_are_within_a_fifth_of_the_mean(balanced):
    counts = count_boxes(balanced)
    mean = sum(counts.values()) / len(CLASS_NAMES)
    assert {name: n for name, n in counts.items() if not 0.8 * mean <= n <= 1.2 * mean} == {}


def test_long_tail():
    counts = count_boxes(plan_sequences(1200, SIZE, seed=0, split=0, balanced=False))
    assert counts["sedan"] == max(counts.values())
    assert counts["sedan"] >= 100 * counts["stroller"] > 0


def test_a_twentieth_of_the_sequences_is_empty(balanced):
    assert [sum(not plan.objects for plan in balanced[k : k + 20]) for k in (0, 20, 40, 60)] == [1, 1, 1, 1]


def test_all_conditions_occur(balanced):
    seen = Counter()
    for plan in balanced:
        seen.update((plan.name.weather, plan.name.daytime, plan.name.location, plan.name.side))
    assert set(seen) == {
        *("clear", "cloudy", "rain", "snow", "day", "night", "outdoor", "indoor", "front", "rear", "left", "right")
    }
    assert seen["day"] > 2 * seen["night"]


def test_objects_never_share_ground(balanced):
    for plan in balanced:
        for frame in (0, plan.length - 1):
            rooms = [item.footprint(frame) for item in plan.objects]
            assert not any(overlap(a, b) for k, a in enumerate(rooms) for b in rooms[:k])


def test_plans_depend_on_seed_and_split_alone(balanced):
    assert list(plan_sequences(60, SIZE, 0, 0, True))[:5] == balanced[:5]
    first = {key: next(plan_sequences(60, SIZE, *key, True)) for key in ((0, 0), (1, 0), (0, 1))}
    assert first[0, 0].eye != first[1, 0].eye and first[0, 0].eye != first[0, 1].eye


def test_objects_move_a_little_from_frame_to_frame(balanced):
    steps = [np.hypot(*item.step) for plan in balanced for item in plan.objects]
    assert 0 < max(steps) <= 0.25
    assert np.mean(np.array(steps) == 0) > 0.5
