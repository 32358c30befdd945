"""Compare the time of scoring with that of faster-coco-eval."""

import importlib.util
import statistics
import time
from collections.abc import Iterator

import numpy as np

from parking.evaluation.scorer import score_boxes
from parking.evaluation.truth import make_truth
from parking.structures.detections import Detections
from parking.utils.errors import UserError


def run_score_benchmark(
    num_images: int = 3000, boxes_per_image: int = 50, num_classes: int = 14, num_rounds: int = 5
) -> Iterator[str]:
    """Time ``score_boxes`` and ``COCOeval_faster.run()`` in alternation, on the same made-up boxes.

    The comparison favours faster-coco-eval. ``score_boxes`` also returns matches, and its time includes ``make_truth``;
    the time that faster-coco-eval needs to build its objects before ``run`` does not count.

    Yields:
        Lines to print.

    Raises:
        UserError: faster-coco-eval is not installed.
    """
    if importlib.util.find_spec("faster_coco_eval") is None:
        raise UserError("Scoring is compared with faster-coco-eval, which is not installed: pip install -e .[test]")
    columns, detections = make_boxes(num_images, boxes_per_image, num_classes)
    yield f"{num_images} images with {boxes_per_image} annotated and as many found boxes each, {num_classes} classes"
    ours, theirs = [], []
    for _ in range(num_rounds):
        seconds, scores = _measure(lambda: score_boxes(make_truth(**columns), detections))
        ours.append(seconds)
        coco_eval = _prepare(scores.truth, detections)
        theirs.append(_measure(coco_eval.run)[0])
    difference = np.abs(np.array(list(scores.summarize().values())) - 100 * coco_eval.stats[:12]).max()
    yield f"scores, curves and matches from columns  {statistics.median(ours):6.2f} s"
    yield f"faster-coco-eval, bare run               {statistics.median(theirs):6.2f} s"
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    yield f"{num_rounds} rounds in turn, median ratio {ratio:.2f}, largest difference of a score {difference:.1e} %"


def make_boxes(num_images: int, boxes_per_image: int, num_classes: int) -> tuple[dict, Detections]:
    """Return made-up annotations, as keyword arguments of ``make_truth``, and the same number of made-up detections.

    Most detections lie near an annotated box; these have higher scores than the rest.
    """
    rng = np.random.default_rng(0)
    num = num_images * boxes_per_image
    rows, classes = np.repeat(np.arange(num_images), boxes_per_image), rng.integers(0, num_classes, num)
    boxes, elsewhere = _draw_boxes(rng, num), _draw_boxes(rng, num)
    near = rng.random(num) < 0.7
    moved = boxes + rng.normal(0, 0.08, (num, 4)) * np.tile(boxes[:, 2:], 2)
    found = np.where(near[:, None], moved, elsewhere)
    labels = np.where(rng.random(num) < 0.9, classes, rng.integers(0, num_classes, num))
    scores = np.where(near, rng.beta(3, 2, num), rng.beta(1.5, 4, num))
    columns = {
        "image_ids": range(1, num_images + 1),
        "category_ids": range(1, num_classes + 1),
        "rows": rows,
        "classes": classes,
        "boxes": boxes,
        "areas": [None] * num,
        "crowd": rng.random(num) < 0.01,
    }
    return columns, Detections(rows + 1, labels + 1, found, scores).round()


def _draw_boxes(rng, num):
    sides = np.exp(rng.uniform(np.log(12), np.log(250), (num, 2)))
    return np.concatenate([rng.uniform(0, 1, (num, 2)) * ([1920, 1080] - sides), sides], axis=1).round(3)


def _prepare(truth, detections):
    from faster_coco_eval import COCO
    from faster_coco_eval.core import COCOeval_faster

    columns = (truth.rows + 1, truth.classes + 1, truth.boxes, truth.areas, truth.crowd.astype(int))
    names = ("image_id", "category_id", "bbox", "area", "iscrowd")
    annotations = [
        {"id": i, **dict(zip(names, values, strict=True))}
        for i, values in enumerate(zip(*(column.tolist() for column in columns), strict=True), 1)
    ]
    ground_truth = COCO(
        {
            "images": [{"id": image_id} for image_id in truth.image_ids],
            "categories": [{"id": category_id, "name": str(category_id)} for category_id in truth.category_ids],
            "annotations": annotations,
        }
    )
    # Give each box an empty segmentation; otherwise, loadRes would make a polygon of the box.
    found = [{**row, "segmentation": []} for row in detections.to_coco_results()]
    return COCOeval_faster(ground_truth, ground_truth.loadRes(found), "bbox", print_function=lambda *lines: None)


def _measure(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result
