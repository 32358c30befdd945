import hashlib
import json
import random
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
    return [NAME.format(sequence, frame) for sequence, n in enumerate(lengths) for frame in range(n)]


def no_boxes(names):
    return np.zeros((len(names), 1), dtype=int)


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
    in_val = split_by_sequence(names, no_boxes(names), 0.12)
    val_keys = {get_sequence_key(name) for name, chosen in zip(names, in_val, strict=True) if chosen}
    assert in_val.tolist() == [get_sequence_key(name) in val_keys for name in names]
    # The shortest sequence has 10 of the 1,128 images: the greedy choice can come within one sequence's length.
    assert abs(in_val.mean() - 0.12) < 10 / 1128


def test_sequence_split_balances_classes():
    counts = np.random.default_rng(0).multinomial(5, [1000 / 1110, 100 / 1110, 10 / 1110], size=2000)
    in_val = split_by_sequence(make_names([20] * 100), counts, 0.12)
    shares = counts[in_val].sum(axis=0) / counts.sum(axis=0)
    assert (shares > 0.08).all() and (shares < 0.16).all()


def test_sequence_split_has_rare_classes_on_both_sides():
    # Class 1 occurs in two sequences only, class 2 in one.
    counts = np.tile([1, 0, 0], (400, 1))
    counts[2, 1] = counts[54, 1] = counts[103, 2] = 1
    in_val = split_by_sequence(make_names([10] * 40), counts, 0.1)
    assert in_val[2] != in_val[54]
    assert not in_val[103]
    # Limit: 1.5 * 0.1 * 400 images.
    assert 30 <= in_val.sum() <= 60


def test_sequence_split_does_not_depend_on_the_order():
    names, counts = np.array(make_names([7] * 30)), np.eye(3, dtype=int)[np.arange(210) % 3]
    order = np.random.default_rng(1).permutation(210)
    shuffled = split_by_sequence(names[order].tolist(), counts[order], 0.2)
    assert shuffled.tolist() == split_by_sequence(names.tolist(), counts, 0.2)[order].tolist()


@pytest.mark.parametrize("lengths", [[1, 1], [50, 50], [1, 99], [3, 3, 3]])
@pytest.mark.parametrize("fraction", [0.001, 0.12, 0.999])
def test_neither_side_is_empty(lengths, fraction):
    names = make_names(lengths)
    for counts in (no_boxes(names), no_boxes(names) + 2):
        assert 0 < split_by_sequence(names, counts, fraction).sum() < len(names)


def test_one_sequence_cannot_be_split():
    with pytest.raises(UserError, match="one sequence"):
        split_by_sequence(make_names([9]), np.zeros((9, 1), dtype=int), 0.12)


def test_sequence_split_balances_conditions():
    names = []
    for sequence in range(120):
        # A quarter of the sequences at night, a third in rain, half on the left.
        daytime, weather = "야간" if sequence % 4 == 0 else "주간", "비" if sequence % 3 == 0 else "맑음"
        side = "left" if sequence // 12 % 2 else "right"
        start = f"20201102_서울_-_-_{weather}_{daytime}_실외_{side}_{sequence:06d}"
        names += [f"{start}_{frame:07d}.png" for frame in range(10)]
    for seed in range(5):
        in_val = split_by_sequence(names, no_boxes(names), 0.2, seed)
        val = [name for name, chosen in zip(names, in_val, strict=True) if chosen]
        # 1,200 images, a fifth of them 240: one sequence of 10 more or less.
        assert 230 <= len(val) <= 250
        for word, share in (("야간", 1 / 4), ("비", 1 / 3), ("left", 1 / 2)):
            assert abs(sum(word in name for name in val) / len(val) - share) < 0.06


def test_sequence_split_follows_the_seed():
    names, counts = make_names([10] * 50), np.eye(3, dtype=int)[np.arange(500) % 3]
    parts = [split_by_sequence(names, counts, 0.2, seed).tobytes() for seed in (0, 1, 2, 1)]
    assert len(set(parts)) == 3
    assert parts[1] == parts[3]
    assert {sum(part) for part in parts} == {100}


def test_split_images_knows_the_three_kinds():
    """The entry's split draws from all images that the json lists."""
    ids = list(range(1, 4001))
    left = [i for i in ids if i not in (5, 77)]
    names = [NAME.format(i // 100, i) for i in left]
    starts, boxes, classes = np.arange(len(left) + 1), np.zeros((len(left), 4)), np.zeros(len(left), dtype=int)
    columns = Columns(names, names, left, [9], [9], starts, boxes, classes, classes > 0, classes + 0.0, [], ids)
    val = {kind: split_images(kind, columns, 2, val_fraction=0.1, seed=0) for kind in ("all", "entry", "sequence")}
    entry = split_entry(ids)
    assert val["sequence"].tolist() == split_by_sequence(names, np.ones((len(left), 1), dtype=int), 0.1).tolist()
    assert val["entry"].tolist() == [i in entry for i in left] and not val["all"].any()
