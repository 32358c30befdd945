import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from parking.data.datasets.splits import get_sequence_key, split_by_sequence, split_entry
from parking.utils.errors import UserError

PARITY = Path(__file__).resolve().parents[3] / "../shared/parity/split_expected.json"
NAME = "20201102_경기도_-_-_맑음_주간_실외_right_{:06d}_{:07d}.png"


def make_names(lengths):
    names = [NAME.format(sequence, frame) for sequence, n in enumerate(lengths) for frame in range(n)]
    return dict(enumerate(names, start=1))


def test_entry_split_is_the_original():
    if not PARITY.exists():
        pytest.skip("the parity data is not here")
    expected = json.loads(PARITY.read_text())
    val_ids = split_entry(range(1, 24651))
    joined = ",".join(map(str, sorted(val_ids)))
    assert hashlib.sha256(joined.encode()).hexdigest() == expected["sha256_of_sorted_ids_joined_by_comma"]
    assert set(expected["first_10_drawn"]) <= val_ids


def test_entry_split_depends_on_file_order_and_leaves_the_global_generator_alone():
    random.seed(5)
    state = random.getstate()
    ids = list(range(10, 4010))
    assert split_entry(ids) == set(random.Random(100).sample(tuple(ids), 3000))
    assert split_entry(ids) != split_entry(ids[::-1])
    assert random.getstate() == state


@pytest.mark.parametrize("num_images", [0, 240, 3000])
def test_entry_split_of_a_small_set_is_refused(num_images):
    with pytest.raises(UserError, match=rf"3000 images.*only {num_images} "):
        split_entry(range(num_images))


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


def test_sequence_split_keeps_sequences_whole_and_hits_the_fraction():
    names = make_names([10 + 3 * (i % 7) for i in range(60)])
    val_ids = split_by_sequence(names, {}, 0.12)
    val_keys = {get_sequence_key(names[i]) for i in val_ids}
    assert val_ids == {i for i, name in names.items() if get_sequence_key(name) in val_keys}
    # The shortest sequence has 10 of the 1,128 images: the greedy choice can come within one sequence's length.
    assert abs(len(val_ids) / len(names) - 0.12) < 10 / 1128


def test_sequence_split_balances_classes():
    rng = random.Random(0)
    names = make_names([20] * 100)
    weights = {0: 1000, 1: 100, 2: 10}
    counts = {i: Counter(rng.choices(list(weights), list(weights.values()), k=5)) for i in names}
    val_ids = split_by_sequence(names, counts, 0.12)
    total, val = Counter(), Counter()
    for i, c in counts.items():
        total.update(c)
        if i in val_ids:
            val.update(c)
    for c in weights:
        assert 0.08 < val[c] / total[c] < 0.16


def test_sequence_split_has_rare_classes_on_both_sides():
    names = make_names([10] * 40)
    # Class 1 occurs in two sequences only, class 2 in one: image ids 1..10, 51..60 and 101..110.
    counts = {i: Counter({0: 1}) for i in names}
    counts[3][1] = counts[55][1] = counts[104][2] = 1
    val_ids = split_by_sequence(names, counts, 0.1)
    assert len({3, 55} & val_ids) == 1
    assert 104 not in val_ids
    # Limit: 1.5 * 0.1 * 400 images.
    assert 30 <= len(val_ids) <= 60


def test_sequence_split_does_not_depend_on_the_order():
    names = make_names([7] * 30)
    counts = {i: Counter({i % 3: 1}) for i in names}
    ids = list(names)
    random.Random(1).shuffle(ids)
    shuffled = split_by_sequence({i: names[i] for i in ids}, {i: counts[i] for i in reversed(ids)}, 0.2)
    assert shuffled == split_by_sequence(names, counts, 0.2)


@pytest.mark.parametrize("lengths", [[1, 1], [50, 50], [1, 99], [3, 3, 3]])
@pytest.mark.parametrize("fraction", [0.001, 0.12, 0.999])
def test_neither_side_is_empty(lengths, fraction):
    names = make_names(lengths)
    counts = {i: Counter({0: 2}) for i in names}
    for class_counts in ({}, counts):
        assert 0 < len(split_by_sequence(names, class_counts, fraction)) < len(names)


def test_one_sequence_cannot_be_split():
    with pytest.raises(UserError, match="one sequence"):
        split_by_sequence(make_names([9]), {}, 0.12)
