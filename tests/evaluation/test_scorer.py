import contextlib
import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from parking.evaluation.scorer import AREAS, CLASS_METRICS, METRICS, score_boxes
from parking.evaluation.truth import make_truth
from parking.structures.detections import Detections


def compare(truth, detections):
    """pycocotools on the same columns; the ids of annotations and detections are their rows plus 1."""
    ground_truth = COCO()
    columns = (truth.rows, truth.classes, truth.boxes, truth.areas, truth.crowd.astype(int))
    names = ("image_id", "category_id", "bbox", "area", "iscrowd")
    ground_truth.dataset = {
        "images": [{"id": row} for row in range(len(truth.image_ids))],
        "categories": [{"id": k} for k in range(len(truth.category_ids))],
        "annotations": [
            {"id": i, **dict(zip(names, values, strict=True))}
            for i, values in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1)
        ],
    }
    image_rows = {image_id: row for row, image_id in enumerate(truth.image_ids)}
    classes = {category_id: k for k, category_id in enumerate(truth.category_ids)}
    columns = (detections.image_ids, detections.category_ids, detections.boxes, detections.scores)
    found = [
        {"image_id": image_rows[image], "category_id": classes[category], "bbox": box, "score": score}
        for image, category, box, score in zip(*(column.tolist() for column in columns), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
        coco_eval = COCOeval(ground_truth, ground_truth.loadRes(found) if found else COCO(), "bbox")
        coco_eval.evaluate()
        coco_eval.accumulate()
        coco_eval.summarize()
    return coco_eval


def collect_matches(coco_eval, num_truths, num_detections):
    """What pycocotools matches in each area range: by detection, by annotated box, and which detections it ignores."""
    shape = (4, 10)
    truths, ignored = np.full((*shape, num_detections), -1), np.ones((*shape, num_detections), dtype=bool)
    found = np.full((*shape, num_truths), -1)
    areas = [tuple(area) for area in coco_eval.params.areaRng]
    for result in filter(None, coco_eval.evalImgs):
        a = areas.index(tuple(result["aRng"]))
        rows, truth_rows = np.array(result["dtIds"], dtype=int) - 1, np.array(result["gtIds"], dtype=int) - 1
        truths[a][:, rows], found[a][:, truth_rows] = result["dtMatches"] - 1, result["gtMatches"] - 1
        ignored[a][:, rows] = result["dtIgnore"]
    return truths, found, ignored


def make_random(seed, *, num_images, num_classes, num_truths, num_detections, decimals, step):
    """Boxes on a grid of ``step`` pixels, so that IoUs tie as well; images and classes without boxes."""
    rng = np.random.default_rng(seed)

    def draw_boxes(num):
        sides = np.exp(rng.uniform(np.log(12), np.log(160), (num, 2)))
        return (np.concatenate([rng.uniform(0, 150, (num, 2)), sides], axis=1) / step).round() * step

    rows, classes = rng.integers(0, num_images, num_truths), rng.integers(0, num_classes, num_truths)
    boxes = draw_boxes(num_truths)
    areas = np.where(rng.random(num_truths) < 0.4, rng.uniform(2, 12000, num_truths), math.nan).tolist()
    image_ids, category_ids = rng.permutation(1000)[:num_images].tolist(), [7 * k + 3 for k in range(num_classes)]
    crowd = rng.random(num_truths) < 0.2
    truth = make_truth(image_ids, category_ids, rows=rows, classes=classes, boxes=boxes, areas=areas, crowd=crowd)

    of_truth = rng.integers(0, max(num_truths, 1), num_detections)
    images, labels = rng.integers(0, num_images, num_detections), rng.integers(0, num_classes, num_detections)
    found = draw_boxes(num_detections)
    if num_truths:
        near = rng.random(num_detections) < 0.7
        moved = boxes[of_truth] * (1 + (rng.normal(0, 0.08, (num_detections, 4)) * 8 / step).round() * step / 8)
        found[near], images[near], labels[near] = moved[near], rows[of_truth][near], classes[of_truth][near]
    scores = rng.random(num_detections).round(decimals)
    detections = Detections.from_columns(np.array(image_ids)[images], np.array(category_ids)[labels], found, scores)
    return truth, detections


DATA = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**32 - 1),
        "num_images": st.integers(1, 12),
        "num_classes": st.integers(1, 4),
        "num_truths": st.integers(0, 90),
        "num_detections": st.integers(0, 500),
        "decimals": st.sampled_from([1, 2, 9]),
        "step": st.sampled_from([0.001, 1, 8]),
    }
)


@settings(max_examples=60, deadline=None)
@given(DATA)
def test_equals_pycocotools(data):
    truth, detections = make_random(**data)
    scores, expected = score_boxes(truth, detections), compare(truth, detections)
    stats = [math.nan if value == -1 else 100 * value for value in expected.stats.tolist()]
    np.testing.assert_array_equal(list(scores.summarize().values()), stats)
    np.testing.assert_array_equal(np.nan_to_num(scores.precision, nan=-1), expected.eval["precision"][..., 2])
    np.testing.assert_array_equal(np.nan_to_num(scores.recall, nan=-1), expected.eval["recall"])
    matched = collect_matches(expected, len(truth.rows), len(detections))
    for area, truths, found, ignored in zip(AREAS, *matched, strict=True):
        np.testing.assert_array_equal(scores.matched_truths(area), truths)
        np.testing.assert_array_equal(scores.matched_detections(area), found)
        np.testing.assert_array_equal(scores.ignored(area), ignored)


def test_detections_of_unknown_images_and_classes_do_not_count():
    ids = ["a", 2**64, "b"]  # numbers come before texts
    box = [0, 0, 50, 50]
    truth = make_truth(
        ids, [7, None, 9], rows=[0, 1, 1], classes=[0, 2, 1], boxes=[box] * 3, areas=[None] * 3, crowd=[0] * 3
    )
    assert truth.image_ids == [2**64, "a", "b"] and truth.num_boxes.tolist() == [1, 1, 1]
    rows = [("a", 7, 0.9), ("c", 7, 0.95), (2**64, 8, 0.95), (2**64, 9, 0.5)]
    images, categories, values = zip(*rows, strict=True)
    scores = score_boxes(truth, Detections.from_columns(images, categories, [box] * 4, values))
    assert scores.ranks.tolist() == [0, -1, -1, 0] and scores.ignored()[0].tolist() == [False, True, True, False]
    assert scores.matched_truths()[-1].tolist() == [0, -1, -1, 1]
    assert scores.matched_detections()[-1].tolist() == [0, 3, -1]
    np.testing.assert_allclose(scores.ap[:, :, 0], [[1, 0, 1]] * 10)
    assert scores.summarize_classes().tolist() == [pytest.approx([x] * len(CLASS_METRICS)) for x in (100, 0, 100)]

    left = truth.without_images([2**64])
    assert left.image_ids == ["a", "b"] and left.rows.tolist() == [0] and left.num_boxes.tolist() == [1, 0, 0]


@pytest.mark.parametrize("category_ids", [[], [1, 2]])
def test_nothing_at_all(category_ids):
    truth = make_truth([], category_ids, rows=[], classes=[], boxes=[], areas=[], crowd=[])
    for found in ([], [[0, 0, 5, 5]]):
        scores = score_boxes(
            truth, Detections.from_columns([1] * len(found), [1] * len(found), found, [0.5] * len(found))
        )
        assert list(scores.summarize()) == list(METRICS) and np.isnan(list(scores.summarize().values())).all()
        assert scores.summarize_classes().shape == (len(category_ids), 3)
