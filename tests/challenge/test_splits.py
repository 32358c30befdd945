import hashlib
import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from parking.challenge.conditions import get_sequence_key
from parking.challenge.splits import split_by_sequence, split_entry, split_images
from parking.data.datasets.columns import Columns
from parking.utils.errors import UserError

PARITY = Path(__file__).resolve().parents[2] / "tests/data/parity/split_expected.json"
NAME = "20201102_경기도_-_-_맑음_주간_실외_right_{:06d}_{:07d}.png"


def make_names(lengths):
    names = [NAME.format(sequence, frame) for sequence, n in enumerate(lengths) for frame in range(n)]
    return dict(enumerate(names, start=1))


def test_entry_split_is_the_original():
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


def test_sequence_split_balances_conditions():
    names = {}
    for sequence in range(120):
        # A quarter of the sequences at night, a third in rain, half on the left.
        daytime, weather = "야간" if sequence % 4 == 0 else "주간", "비" if sequence % 3 == 0 else "맑음"
        side = "left" if sequence // 12 % 2 else "right"
        for frame in range(10):
            names[len(names)] = f"20201102_서울_-_-_{weather}_{daytime}_실외_{side}_{sequence:06d}_{frame:07d}.png"
    for seed in range(5):
        val = [names[i] for i in split_by_sequence(names, {}, 0.2, seed)]
        # 1,200 images, a fifth of them 240: one sequence of 10 more or less.
        assert 230 <= len(val) <= 250
        for word, share in (("야간", 1 / 4), ("비", 1 / 3), ("left", 1 / 2)):
            assert abs(sum(word in name for name in val) / len(val) - share) < 0.06


def test_sequence_split_follows_the_seed():
    names = make_names([10] * 50)
    counts = {i: Counter({i % 3: 1}) for i in names}
    parts = [frozenset(split_by_sequence(names, counts, 0.2, seed)) for seed in (0, 1, 2, 1)]
    assert len(set(parts)) == 3
    assert parts[1] == parts[3]
    assert {len(part) for part in parts} == {100}


def test_split_images_knows_the_three_kinds():
    """The entry's split draws from all images that the json lists."""
    ids = list(range(1, 4001))
    left = [i for i in ids if i not in (5, 77)]
    names = [NAME.format(i // 100, i) for i in left]
    starts, boxes, classes = np.arange(len(left) + 1), np.zeros((len(left), 4)), np.zeros(len(left), dtype=int)
    columns = Columns(names, names, left, [9], [9], starts, boxes, classes, classes > 0, classes + 0.0, [], ids)
    val = {kind: split_images(kind, columns, 2, val_fraction=0.1, seed=0) for kind in ("all", "entry", "sequence")}
    val = {kind: {left[row] for row in np.flatnonzero(mask)} for kind, mask in val.items()}
    counts = {i: {0: 1} for i in left}
    assert val["sequence"] == split_by_sequence(dict(zip(left, names, strict=True)), counts, 0.1)
    assert val["entry"] == split_entry(ids) - {5, 77} and val["all"] == set()
