import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.ops import box_convert, nms

from parking.layers import box_iou
from parking.modeling import DensePredictions, YOLOPostprocessor, postprocessing
from parking.modeling.postprocessing import nms_per_class


def make(**overrides):
    arguments = {"score_thresh": 0.1, "nms_thresh": 0.5, "max_detections": 100}
    return YOLOPostprocessor(**(arguments | overrides))


def detect(postprocessor, prediction):
    """Boxes, scores and classes of one image, given as (P, 5 + C)."""
    (found,) = postprocessor(to_predictions(prediction[None]), [(1000, 1000)])
    return found.pred_boxes.tensor, found.scores, found.pred_classes


def prediction(*rows):
    """Rows of cx, cy, w, h, objectness, class probabilities."""
    return torch.tensor(rows, dtype=torch.float32)


def to_predictions(table):
    """``table`` (N, P, 5 + C): cx, cy, w, h, objectness, class probabilities."""
    boxes = box_convert(table[..., :4], "cxcywh", "xyxy")
    return DensePredictions(boxes, table[..., 5:] * table[..., 4:5], (table.shape[1],), upper_bound=table[..., 4])


def test_every_class_above_the_threshold():
    boxes, scores, classes = detect(make(), prediction([10, 20, 4, 8, 0.5, 0.4, 0.9]))
    assert_close(boxes, torch.tensor([[8.0, 16, 12, 24]] * 2))
    assert_close(scores, torch.tensor([0.45, 0.2]))
    assert classes.tolist() == [1, 0]


def test_best_class_only():
    _, scores, classes = detect(make(multi_label=False), prediction([10, 20, 4, 8, 0.5, 0.4, 0.9]))
    assert_close(scores, torch.tensor([0.45]))
    assert classes.tolist() == [1]


def test_a_score_must_be_above_the_threshold():
    rows = [[10, 10, 4, 4, 0.1, 1.0], [30, 10, 4, 4, 0.2, 0.5], [50, 10, 4, 4, 0.2, 0.6]]
    boxes, scores, _ = detect(make(), prediction(*rows))
    assert_close(boxes[:, 0], torch.tensor([48.0]))
    assert_close(scores, torch.tensor([0.12]))


@pytest.mark.parametrize("multi_label", [True, False])
def test_an_upper_bound_only_saves_time(multi_label):
    predictions = to_predictions(random_predictions(3))
    sizes = [(640, 640)] * 3
    for with_bound, without in zip(
        make(multi_label=multi_label)(predictions, sizes),
        make(multi_label=multi_label)(predictions._replace(upper_bound=None), sizes),
        strict=True,
    ):
        assert len(with_bound) > 20
        assert torch.equal(with_bound.pred_boxes.tensor, without.pred_boxes.tensor)
        assert torch.equal(with_bound.scores, without.scores)
        assert torch.equal(with_bound.pred_classes, without.pred_classes)


def test_suppression_within_a_class_only():
    # 10 x 10 boxes 2 apart: IoU 80 / 120 = 0.67; 4 apart: 60 / 140 = 0.43.
    rows = [
        [10, 10, 10, 10, 1, 0.9, 0.2],
        [12, 10, 10, 10, 1, 0.8, 0.3],
        [14, 10, 10, 10, 1, 0.7, 0.0],
    ]
    boxes, scores, classes = detect(make(), prediction(*rows))
    assert_close(scores, torch.tensor([0.9, 0.7, 0.3]))
    assert classes.tolist() == [0, 0, 1]
    assert_close(boxes[:, 0], torch.tensor([5.0, 9, 7]))


def test_max_detections_keeps_the_best():
    rows = [[20 * i, 10, 10, 10, 1, 0.2 + 0.1 * i] for i in range(5)]
    _, scores, _ = detect(make(max_detections=2), prediction(*rows))
    assert_close(scores, torch.tensor([0.6, 0.5]))


def test_top_candidates_are_chosen_before_the_suppression():
    # The second suppresses nothing any more: the best two are one object, the third is not looked at.
    rows = [[10, 10, 10, 10, 1, 0.9], [10, 10, 10, 10, 1, 0.8], [50, 10, 10, 10, 1, 0.7]]
    assert len(detect(make(pre_nms_topk=2), prediction(*rows))[1]) == 1
    assert len(detect(make(pre_nms_topk=3), prediction(*rows))[1]) == 2


def test_equal_scores_keep_their_order():
    rows = [[20 * i, 10, 10, 10, 1, 0.5, 0.5] for i in range(40)]
    boxes, _, classes = detect(make(), prediction(*rows))
    assert classes.tolist() == [0, 1] * 40
    assert_close(boxes[::2, 0], torch.arange(40.0) * 20 - 5)


@pytest.mark.parametrize("row", [[np.nan] * 6, [10, 10, np.nan, 4, 1, 1], [10, np.inf, 4, 4, 1, 1]])
def test_what_is_not_finite_is_left_out(row):
    boxes, _, _ = detect(make(), prediction(row, [10, 10, 4, 4, 1, 1]))
    assert_close(boxes, torch.tensor([[8.0, 8, 12, 12]]))


@pytest.mark.parametrize("multi_label", [True, False])
def test_nothing_found(multi_label):
    (instances,) = make(multi_label=multi_label)(to_predictions(torch.zeros(1, 7, 8)), [(20, 30)])
    assert len(instances) == 0
    assert instances.image_size == (20, 30)
    assert instances.pred_boxes.tensor.shape == (0, 4)
    assert instances.pred_classes.dtype == torch.int64


def test_images_do_not_mix():
    predictions = torch.stack([prediction([10, 10, 4, 4, 1, 1]), prediction([10, 10, 4, 4, 0, 1])])
    first, second = make()(to_predictions(predictions), [(20, 20), (20, 20)])
    assert len(first) == 1
    assert len(second) == 0


def greedy(boxes, classes, threshold):
    kept = []
    for i in range(len(boxes)):
        rivals = [k for k in kept if classes[k] == classes[i]]
        if all(box_iou(boxes[i], boxes[k]) <= threshold for k in rivals):
            kept.append(i)
    return kept


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 12)] * 2, st.integers(0, 3)), max_size=15))
def test_suppression_equals_a_greedy_loop(rows):
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    boxes = torch.cat([rows[:, :2], rows[:, :2] + rows[:, 2:4]], dim=1) - 6
    classes, scores = rows[:, 4].long(), torch.linspace(1, 0.5, len(rows))
    # Integers up to 24 shifted by multiples of 8192 are exact; 0.437 is no quotient of small integers.
    assert nms_per_class(boxes, scores, classes, 0.437).tolist() == greedy(boxes, classes, 0.437)


@pytest.mark.parametrize("limit", [0, 7, 100, 10**6])
def test_suppression_in_parts_and_at_once_agree(monkeypatch, limit):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(900, 2, generator=generator) * 200
    boxes = torch.cat([corners, corners + 10 + torch.rand(900, 2, generator=generator) * 50], dim=1)
    scores = torch.linspace(1, 0, 900)
    classes = torch.randint(0, 20, (900,), generator=generator) * 2  # every other class is empty
    at_once = nms_per_class(boxes, scores, classes, 0.5)
    assert 0 < len(at_once) < 900
    monkeypatch.setattr(postprocessing, "_MAX_GROUPS", max(1, limit // 50))
    assert_close(at_once, nms_per_class(boxes, scores, classes, 0.5), rtol=0, atol=0)
    monkeypatch.setattr(postprocessing, "_MAX_BOXES_CPU", limit)
    assert_close(at_once, nms_per_class(boxes, scores, classes, 0.5), rtol=0, atol=0)


def random_predictions(num_images, num_predictions=400, num_classes=5, seed=0):
    """Boxes in heaps, of coordinates with all the bits of float32, some of them far outside and some huge."""
    generator = torch.Generator().manual_seed(seed)
    shape = (num_images, num_predictions)
    heaps = torch.rand(num_images, 8, 2, generator=generator) * 600
    centres = heaps.gather(1, torch.randint(8, (*shape, 1), generator=generator).expand(-1, -1, 2))
    centres = centres + torch.randn(*shape, 2, generator=generator) * 12
    sizes = torch.rand(*shape, 2, generator=generator) * 50 + 20
    sizes[:, ::50] *= 300
    return torch.cat([centres, sizes, torch.rand(*shape, 1 + num_classes, generator=generator)], dim=2)


@pytest.mark.parametrize("multi_label", [True, False])
@pytest.mark.parametrize("overrides", [{}, {"pre_nms_topk": 50}, {"max_detections": 3}, {"score_thresh": 0.9}])
def test_a_batch_has_the_results_of_its_images_bit_for_bit(multi_label, overrides):
    postprocessor = make(multi_label=multi_label, **overrides)
    predictions = random_predictions(5)
    predictions[2, :, 4] = 0  # nothing in the third image
    sizes = [(640, 640), (600, 640), (10, 10), (640, 300), (1, 2)]
    together = postprocessor(to_predictions(predictions), sizes)
    for i, found in enumerate(together):
        (alone,) = postprocessor(to_predictions(predictions[i : i + 1]), sizes[i : i + 1])
        assert found.image_size == sizes[i]
        assert torch.equal(found.pred_boxes.tensor, alone.pred_boxes.tensor)
        assert torch.equal(found.scores, alone.scores) and (found.scores.diff() <= 0).all()
        assert torch.equal(found.pred_classes, alone.pred_classes)
    counts = [len(found) for found in together]
    assert counts[2] == 0 and all(count > 0 for count in counts[:2] + counts[3:])
    assert max(counts) <= overrides.get("max_detections", 100)


def test_no_image_or_no_prediction():
    assert make()(to_predictions(torch.zeros(0, 7, 8)), []) == []
    (found,) = make()(to_predictions(torch.zeros(1, 0, 8)), [(20, 30)])
    assert len(found) == 0


def test_classes_stay_apart_in_huge_images():
    # Twice the usual distance between the classes apart, and still nothing is suppressed.
    boxes = torch.tensor([[0.0, 0, 10, 10], [8192, 8192, 8202, 8202], [20000, 20000, 20010, 20010]])
    kept = nms_per_class(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([1, 0, 0]), 0.5)
    assert kept.tolist() == [0, 1, 2]


def suppress_by_group(boxes, scores, classes, threshold, images):
    kept = torch.zeros(len(boxes), dtype=torch.bool)
    for group in {*zip(images.tolist(), classes.tolist(), strict=True)}:
        (rows,) = torch.where((images == group[0]) & (classes == group[1]))
        kept[rows[nms(boxes[rows].double(), scores[rows].double(), threshold)]] = True
    return torch.where(kept)[0]


def check_exact(boxes, classes, images, threshold):
    scores = torch.linspace(1, 0.01, len(boxes))
    found = nms_per_class(boxes, scores, classes, threshold, images)
    assert found.tolist() == suppress_by_group(boxes, scores, classes, threshold, images).tolist()
    return found


@pytest.mark.parametrize("num_images", [1, 2, 8, 64])
@pytest.mark.parametrize("classes", [(80, 500), (500, 20_000), (19_990, 20_000), (20_000, 10**6)])
def test_many_classes_in_large_images_are_decided_exactly(num_images, classes):
    # Pairs of boxes of one class whose IoU is just below or just above the threshold: of two w x h boxes that are d
    # apart (w - d) / (w + d), so 0.5 for d = w / 3. An error of 0.02 pixels in a coordinate would change decisions.
    generator = torch.Generator().manual_seed(num_images)
    corners = torch.rand(600, 2, generator=generator) * 16000
    sizes = torch.rand(600, 2, generator=generator) * 300 + 3
    first = torch.cat([corners, corners + sizes], dim=1)
    step = torch.zeros(600, 4)
    step[:, 0] = step[:, 2] = sizes[:, 0] / 3 + (torch.rand(600, generator=generator) - 0.5) / 50
    boxes = torch.cat([first, first + step])
    pair = torch.arange(600).repeat(2)
    chosen = torch.randint(*classes, (600,), generator=generator)[pair]
    images = torch.randint(num_images, (600,), generator=generator)[pair]
    found = check_exact(boxes, chosen, images, 0.5)
    assert 700 < len(found) < 1100


COORDINATES = (
    st.floats(0, 16384, width=32) | st.sampled_from([0.0, 1e-30, 1e-3, 0.3, 1e5, 3e9, 1e30]) | st.integers(0, 9)
)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(*[COORDINATES] * 4, st.sampled_from([80, 81, 500, 19_999]), st.integers(0, 3)),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([0.3, 0.5, 0.7]),
)
def test_suppression_equals_that_of_each_class_alone_bit_for_bit(rows, threshold):
    table = torch.tensor([row[:4] for row in rows], dtype=torch.float32)
    boxes = torch.cat([torch.minimum(table[:, :2], table[:, 2:]), torch.maximum(table[:, :2], table[:, 2:])], dim=1)
    classes, images = (torch.tensor([row[i] for row in rows]) for i in (4, 5))
    check_exact(boxes, classes, images, threshold)


@pytest.mark.parametrize("source", ["plain", "tta"])
@pytest.mark.parametrize("settings_", [(0.01, 0.7, 50), (0.001, 0.65, 300), (0.25, 0.45, 1000)])
def test_detections_equal_the_published_ones(parity_data, source, settings_):
    score_thresh, nms_thresh, max_detections = settings_
    numbers = np.load(parity_data / "nms.npz")
    postprocessor = make(
        score_thresh=score_thresh,
        nms_thresh=nms_thresh,
        max_detections=max_detections,
        multi_label=score_thresh != 0.25,
    )
    for image in range(2):
        rows = numbers[f"{source}_conf{score_thresh}_iou{nms_thresh}_max{max_detections}_image{image}"]
        boxes, scores, classes = detect(postprocessor, torch.from_numpy(numbers[f"{source}_image{image}"]))
        assert_close(boxes, torch.from_numpy(rows[:, :4]), rtol=1e-5, atol=1e-3)
        assert_close(scores, torch.from_numpy(rows[:, 4]), rtol=1e-5, atol=1e-6)
        assert classes.tolist() == rows[:, 5].astype(int).tolist()
