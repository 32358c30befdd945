import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parking.challenge.submission.check import check_submission
from parking.challenge.submission.selection import SubmissionOptions, write_submission
from parking.structures.detections import Detections


def make(*rows):
    """Detections of (image_id, category_id, [x, y, w, h], score)."""
    return Detections.from_columns(*zip(*rows, strict=True)) if rows else Detections.from_columns([], [], [], [])


def write(tmp_path, detections, **kwargs):
    path = tmp_path / "submission.json"
    report = write_submission(detections, path, SubmissionOptions(**kwargs))
    data = path.read_bytes()
    assert report.num_bytes == len(data)
    return report, json.loads(data, parse_constant=pytest.fail), data


def test_exact_text(tmp_path):
    _, _, data = write(tmp_path, make((7, 3, [10.04, 20.06, 30, 40], 0.87654), (12, 14, [0, 0, 5, 5.5], 1.0)))
    # x 10.04 -> 10.0; right 40.04 -> 40.0, so w 30.0; y 20.06 -> 20.1; bottom 60.06 -> 60.1, so h 40.0
    assert data == (
        b'[{"image_id":7,"category_id":3,"bbox":[10.0,20.1,30.0,40.0],"score":0.8765,"segmentation":[]},'
        b'{"image_id":12,"category_id":14,"bbox":[0.0,0.0,5.0,5.5],"score":1.0,"segmentation":[]}]'
    )


def test_corners_are_rounded_not_sides(tmp_path):
    _, rows, _ = write(tmp_path, make((1, 1, [1.26, 0.08, 20.13, 99.92], 0.5)))
    # x: 1.26 -> 1.3, 21.39 -> 21.4, so w 20.1; y: 0.08 -> 0.1, 100.00 -> 100.0, so h 99.9
    assert rows[0]["bbox"] == [1.3, 0.1, 20.1, 99.9]
    _, rows, _ = write(tmp_path, make((1, 1, [0.35, 0, 99.65, 9], 0.5)))
    # 0.35 -> 0.4 (3.5 to the even 4) and 99.65 -> 99.6 or 99.7; the right edge is 100.0 whatever happens
    assert round(10 * (rows[0]["bbox"][0] + rows[0]["bbox"][2])) == 1000


@pytest.mark.parametrize(
    ("box", "score"),
    [
        ([0, 0, 10, 10], 0.00004),  # rounds to 0.0000
        ([0, 0, 10, 10], 0.0),
        ([0, 0, 10, 10], -0.5),
        ([0, 0, 10, 10], 1.5),
        ([0, 0, 10, 10], np.nan),
        ([0, 0, 10, np.inf], 0.5),
        ([np.nan, 0, 10, 10], 0.5),
        ([1e300, 0, 10, 10], 0.5),
        ([0, 0, 0.04, 10], 0.5),  # 0.04 px wide rounds to 0.0
        ([0, 0, 10, -3], 0.5),
    ],
)
def test_invalid_boxes_are_left_out_and_counted(tmp_path, box, score):
    report, rows, _ = write(tmp_path, make((1, 1, [0, 0, 10, 10], 0.5), (1, 1, box, score)))
    assert (report.num_kept, report.num_left_out, report.num_invalid) == (1, 0, 1)
    assert [row["score"] for row in rows] == [0.5]


def test_smallest_expressible_values_are_kept(tmp_path):
    _, rows, _ = write(tmp_path, make((1, 1, [3, 3, 0.06, 0.06], 0.00006)))
    assert rows[0]["bbox"] == [3.0, 3.0, 0.1, 0.1] and rows[0]["score"] == 0.0001


def test_limit_by_hand(tmp_path):
    # '{"image_id":1,"category_id":1,"bbox":[0.0,0.0,9.0,9.0],"score":0.5,"segmentation":[]}' has 85 characters;
    # two rows, a comma and two brackets make 2 * 85 + 1 + 2 = 173 bytes.
    detections = make(*[(1, 1, [0, 0, 9, 9], score) for score in (0.1, 0.5, 0.3)])
    report, rows, _ = write(tmp_path, detections, max_bytes=173)
    assert [row["score"] for row in rows] == [0.5, 0.3]
    assert (report.num_kept, report.num_left_out, report.threshold, report.num_bytes) == (2, 1, 0.3, 173)
    report, rows, _ = write(tmp_path, detections, max_bytes=172)
    assert [row["score"] for row in rows] == [0.5]
    assert (report.num_kept, report.num_left_out, report.threshold, report.num_bytes) == (1, 2, 0.5, 87)


def test_nothing_to_write(tmp_path):
    report, rows, data = write(tmp_path, make(), max_bytes=2)
    assert rows == [] and data == b"[]" and report.threshold is None
    report, rows, _ = write(tmp_path, make((1, 1, [0, 0, 9, 9], 0.5)), max_bytes=50)
    assert rows == [] and (report.num_kept, report.num_left_out, report.threshold) == (0, 1, None)


def test_string_ids(tmp_path):
    _, rows, data = write(tmp_path, make(("b\"'é", 1, [0, 0, 9, 9], 0.5), ("a", 1, [0, 0, 9, 9], 0.4)))
    assert [row["image_id"] for row in rows] == ["a", "b\"'é"]
    assert data == json.dumps(rows, separators=(",", ":")).encode()


def test_input_is_not_changed(tmp_path):
    detections = make((1, 1, [0.123, 0, 9, 9], 0.5))
    boxes = detections.boxes.copy()
    write(tmp_path, detections)
    np.testing.assert_array_equal(detections.boxes, boxes)


def test_needs_no_torch():
    modules = "parking.challenge.submission.selection, parking.visualization.drawing"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


coordinates = st.floats(-20, 3000, allow_nan=False)
rows = st.tuples(
    st.sampled_from([1, 9, 10, 123456, 2**40]),
    st.integers(1, 14),
    st.tuples(coordinates, coordinates, st.floats(0, 2000), st.floats(0, 2000)),
    st.one_of(st.floats(0, 1), st.sampled_from([0.5, 0.25, 0.1, 1.0, 0.0001])),
)


@settings(deadline=None, max_examples=150)
@given(rows=st.lists(rows, max_size=30), max_bytes=st.integers(2, 3200))
def test_any_boxes_under_any_limit(tmp_path_factory, rows, max_bytes):
    folder = tmp_path_factory.mktemp("submission")
    detections = make(*rows)
    report, everything, data = write(folder, detections, max_bytes=10**6)
    assert data == json.dumps(everything, separators=(",", ":")).encode()
    assert report.num_kept + report.num_invalid == len(rows) and report.num_left_out == 0

    report, kept, data = write(folder, detections, max_bytes=max_bytes)
    assert len(data) <= max_bytes
    left_out = [json.dumps(row) for row in everything]
    for row in kept:
        assert 0 < row["score"] <= 1 and min(row["bbox"][2:]) > 0 and row["segmentation"] == []
        left_out.remove(json.dumps(row))
    assert len(left_out) == report.num_left_out
    if kept:
        assert report.threshold == pytest.approx(min(row["score"] for row in kept), abs=0.00005001)


BOX = [0, 0, 9, 9]


def test_original_spacing_is_that_of_json_dump(tmp_path):
    detections = make((7, 3, [10.04, 20.06, 30, 40], 0.87654), (12, 14, [0, 0, 5, 5.5], 1.0))
    _, rows, data = write(tmp_path, detections, spacing="original")
    assert data == json.dumps(rows).encode()
    assert data.startswith(
        b'[{"image_id": 7, "category_id": 3, "bbox": [10.0, 20.1, 30.0, 40.0], "score": 0.8765, "segmentation": []}, {'
    )
    # One byte less, and the last box does not fit: the separators of two characters are counted right.
    for max_bytes, num_kept in ((len(data), 2), (len(data) - 1, 1)):
        assert write(tmp_path, detections, spacing="original", max_bytes=max_bytes)[0].num_kept == num_kept


def test_boxes_of_an_image_are_limited_to_the_best(tmp_path):
    crowded = [(image, 1, BOX, score) for image in (1, 2) for score in (0.1, 0.4, 0.3, 0.2)]
    detections = make(*crowded, (3, 1, BOX, 0.05))
    report, rows, _ = write(tmp_path, detections, max_per_image=2)
    assert [(row["image_id"], row["score"]) for row in rows] == [(1, 0.4), (1, 0.3), (2, 0.4), (2, 0.3), (3, 0.05)]
    assert (report.num_kept, report.num_left_out, report.num_over_image_limit) == (5, 0, 4)
    fifty_one = make(*[(1, 1, [x, 0, 9, 9], 0.5) for x in range(51)])
    assert write(tmp_path, fifty_one)[0].num_over_image_limit == 1


def test_an_invalid_box_takes_no_place_of_an_image(tmp_path):
    _, rows, _ = write(tmp_path, make((1, 1, [0, 0, 0, 9], 0.9), (1, 1, BOX, 0.5)), max_per_image=1)
    assert [row["score"] for row in rows] == [0.5]


def test_floors_by_hand(tmp_path):
    # A row is 85 bytes; class 13 has one character more than class 1. Two of class 1 and one of 13: 85 + 85 + 86 + 2
    # separators + 2 brackets = 260.
    detections = make(*[(1, 1, BOX, s) for s in (0.9, 0.8, 0.7)], *[(1, 13, BOX, s) for s in (0.3, 0.2)])
    report, rows, _ = write(tmp_path, detections, max_bytes=260)
    assert [(row["category_id"], row["score"]) for row in rows] == [(1, 0.9), (1, 0.8), (1, 0.7)]
    report, rows, _ = write(tmp_path, detections, max_bytes=260, class_floors={13: 1})
    assert [(row["category_id"], row["score"]) for row in rows] == [(1, 0.9), (1, 0.8), (13, 0.3)]
    assert (report.threshold, report.num_below_threshold, report.num_left_out, report.num_bytes) == (0.8, 1, 2, 260)
    assert report.describe() == [
        "3 boxes, scores from 0.8000, 0.00 MB",
        "2 boxes that score lowest did not fit into the size limit; all that score at least 0.8000 did",
        "1 boxes that score lower are in because of their class's floor",
    ]
    np.testing.assert_array_equal(report.kept, [0, 1, 3])


def test_floors_that_do_not_fit_themselves(tmp_path):
    detections = make(*[(1, 1, BOX, s) for s in (0.9, 0.8, 0.7)])
    report, _, _ = write(tmp_path, detections, max_bytes=173, class_floors={1: 3})
    assert (report.num_kept, report.num_left_out, report.num_floored_left_out, report.threshold) == (2, 1, 1, None)
    assert "lower the floors" in report.describe()[-1]


@pytest.mark.parametrize("limits", [{"max_bytes": 1}, {"max_per_image": 0}, {"class_floors": {1: -1}}])
def test_impossible_limits(tmp_path, limits):
    with pytest.raises(ValueError, match="max_"):
        write(tmp_path, make(), **limits)


def cut_slowly(rows, *, max_bytes, max_per_image, class_floors, separators):
    """What a submission should hold, one box after the other, measured by json itself."""
    ranked = sorted(rows, key=lambda row: (-row[3], row[0], row[1], row[2]))
    seen, first, rest = Counter(), [], []
    for row in ranked:
        seen[row[1]] += 1
        (first if seen[row[1]] <= class_floors.get(row[1], 0) else rest).append(row)
    per_image, allowed = Counter(), []
    for row in first + rest:
        per_image[row[0]] += 1
        if per_image[row[0]] <= max_per_image:
            allowed.append(row)
    while True:
        listed = sorted(allowed, key=lambda row: (row[0], ranked.index(row)))
        keys = ("image_id", "category_id", "bbox", "score")
        submission = [{**dict(zip(keys, row, strict=True)), "segmentation": []} for row in listed]
        text = json.dumps(submission, separators=separators)
        if len(text) <= max_bytes:
            return text
        allowed.pop()


# Values that rounding does not change, and few enough of them for many ties.
few = st.tuples(
    st.sampled_from([1, 9, 10, 123456]),
    st.sampled_from([1, 2, 13]),
    st.tuples(*[st.sampled_from([0.0, 0.5, 12.0, 1000.5])] * 2, *[st.sampled_from([0.5, 7.0, 100.0])] * 2).map(list),
    st.sampled_from([0.0001, 0.1234, 0.25, 0.3, 0.5, 1.0]),
)


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(few, max_size=25),
    max_bytes=st.integers(2, 3000),
    max_per_image=st.integers(1, 6),
    class_floors=st.dictionaries(st.sampled_from([1, 2, 13]), st.integers(0, 8)),
    spacing=st.sampled_from(["compact", "original"]),
    seed=st.randoms(use_true_random=False),
)
def test_cut_like_the_slow_way(tmp_path_factory, rows, max_bytes, max_per_image, class_floors, spacing, seed):
    limits = {"max_bytes": max_bytes, "max_per_image": max_per_image, "class_floors": class_floors}
    separators = {"compact": (",", ":"), "original": (", ", ": ")}[spacing]
    expected = cut_slowly(rows, separators=separators, **limits)
    seed.shuffle(rows)
    folder = tmp_path_factory.mktemp("submission")
    report, written, data = write(folder, make(*rows), spacing=spacing, **limits)
    assert data.decode() == expected
    assert report.num_kept == len(written) == len(report.kept)
    assert report.num_kept + report.num_left_out + report.num_over_image_limit == len(rows)
    assert [rows[i][3] for i in report.kept] == [row["score"] for row in written]
    check = check_submission(folder / "submission.json", max_per_image=max_per_image, max_bytes=max_bytes)
    assert check.problems == [] and check.num_boxes == report.num_kept
