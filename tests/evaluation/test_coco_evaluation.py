import json
import logging

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances

from parking.evaluation.coco_evaluation import COCOBoxEvaluator
from parking.evaluation.scorer import METRICS
from parking.structures.detections import Detections

CLASSES = ["car", "person", "cart"]
ORIGINAL_IDS = [1, 5, 7]


@pytest.fixture
def register():
    names = []

    def register(dataset_dicts):
        name = f"evaluation_test_{len(names)}"
        names.append(name)
        DatasetCatalog.register(name, lambda: dataset_dicts)
        MetadataCatalog.get(name).set(
            thing_classes=CLASSES, thing_dataset_id_to_contiguous_id={c: i for i, c in enumerate(ORIGINAL_IDS)}
        )
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def image(image_id, *annotations):
    """Annotations are (class, [x, y, w, h]) or (class, [x, y, w, h], iscrowd)."""
    return {
        "file_name": f"{image_id}.png",
        "image_id": image_id,
        "height": 500,
        "width": 500,
        "annotations": [
            {"category_id": c, "bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "iscrowd": crowd[0] if crowd else 0}
            for c, box, *crowd in annotations
        ],
    }


def prediction(*detections):
    """Detections are (class, [x, y, w, h], score)."""
    instances = Instances((500, 500))
    boxes = torch.tensor([box for _, box, _ in detections], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    instances.pred_boxes = Boxes(boxes)
    instances.scores = torch.tensor([score for *_, score in detections], dtype=torch.float32)
    instances.pred_classes = torch.tensor([c for c, *_ in detections], dtype=torch.int64)
    return {"instances": instances}


def evaluate(name, predictions, **kwargs):
    """``predictions``: {image id: what prediction() returns}."""
    evaluator = COCOBoxEvaluator(name, **kwargs)
    evaluator.reset()
    for image_id, output in predictions.items():
        evaluator.process([{"image_id": image_id}], [output])
    return evaluator.evaluate()["bbox"]


def test_by_hand(register):
    # IoU of [0, 0, 100, 100] with [0, 0, 100, 80] is 0.8: a hit at 0.5, 0.55, ... 0.8, 7 of 10 thresholds.
    name = register([image(1, (0, [0, 0, 100, 100])), image(2, (1, [10, 10, 20, 20]))])
    results = evaluate(name, {1: prediction((0, [0, 0, 100, 80], 0.9)), 2: prediction((1, [10, 10, 20, 20], 0.3))})
    assert results["AP-car"] == pytest.approx(70) and results["AP75-car"] == pytest.approx(100)
    assert results["AP-person"] == pytest.approx(100)
    assert results["AP"] == pytest.approx((70 + 100) / 2)
    # 100 x 100 is large, 20 x 20 is small, nothing is medium.
    assert results["APl"] == pytest.approx(70) and results["APs"] == pytest.approx(100)
    for key in ("APm", "ARm", "AP-cart", "AP50-cart", "AP75-cart"):
        assert np.isnan(results[key])


def test_limit_is_100_per_class_and_image(register):
    name = register([image(1, (0, [0, 0, 50, 50]))])
    background = [(0, [200, 200, 10, 10], 0.9 - 0.001 * i) for i in range(100)]
    assert evaluate(name, {1: prediction(*background[:99], (0, [0, 0, 50, 50], 0.1))})["AP50"] == pytest.approx(1)
    assert evaluate(name, {1: prediction(*background, (0, [0, 0, 50, 50], 0.1))})["AP50"] == 0


def test_crowds_neither_count_nor_hurt(register):
    name = register([image(1, (0, [0, 0, 50, 50]), (0, [100, 100, 200, 200], 1), (2, [0, 0, 9, 9], 1))])
    in_crowd = [(0, [110 + 30 * i, 110, 20, 20], 0.95) for i in range(3)]
    results = evaluate(name, {1: prediction(*in_crowd, (0, [0, 0, 50, 50], 0.5), (2, [0, 0, 9, 9], 0.5))})
    assert results["AP-car"] == pytest.approx(100)
    assert np.isnan(results["AP-cart"])  # only a crowd


def test_nothing_predicted(register):
    name = register([image(1, (0, [0, 0, 50, 50])), image(2)])
    for predictions in ({}, {1: prediction(), 2: prediction()}):
        results = evaluate(name, predictions)
        assert results["AP"] == results["AP75"] == results["AR100"] == results["AP75-car"] == 0
        assert np.isnan(results["AP75-person"])


@pytest.mark.parametrize("dataset_dicts", [[], [image(1), image(2, (0, [0, 0, 9, 9], 1))]])
def test_nothing_annotated(register, caplog, dataset_dicts):
    name = register(dataset_dicts)
    predictions = {d["image_id"]: prediction((0, [0, 0, 9, 9], 0.5)) for d in dataset_dicts}
    with caplog.at_level(logging.WARNING):
        results = evaluate(name, predictions)
    assert len(results) == len(METRICS) + 3 * len(CLASSES) and np.isnan(list(results.values())).all()
    assert "no annotated boxes" in caplog.text


def test_images_without_boxes_count_as_places_for_errors(register):
    name = register([image(1, (0, [0, 0, 50, 50])), image(2)])
    hit, error = prediction((0, [0, 0, 50, 50], 0.5)), prediction((0, [0, 0, 50, 50], 0.9))
    # One error ranks before the only hit: precision 1/2 at every recall.
    assert evaluate(name, {1: hit, 2: error})["AP50"] == pytest.approx(50)


def test_repeats_and_resets(register):
    name = register([image(1, (0, [0, 0, 50, 50])), image(2, (0, [0, 0, 50, 50]))])
    evaluator = COCOBoxEvaluator(name)
    hit, miss = prediction((0, [0, 0, 50, 50], 0.5)), prediction((0, [300, 300, 50, 50], 0.9))
    evaluator.reset()
    evaluator.process([{"image_id": 1}, {"image_id": 2}], [hit, hit])
    evaluator.process([{"image_id": 2}], [hit])  # a sampler that pads may show an image twice
    first = evaluator.evaluate()["bbox"]
    assert first["AP50"] == pytest.approx(100)
    np.testing.assert_equal(evaluator.evaluate()["bbox"], first)
    evaluator.reset()
    evaluator.process([{"image_id": 1}, {"image_id": 2}], [miss, miss])
    assert evaluator.evaluate()["bbox"]["AP50"] == 0
    evaluator.process([{"image_id": 3}], [hit])
    with pytest.raises(ValueError, match=rf"image 3 .*{name}"):
        evaluator.evaluate()


def test_table_and_results_file(register, caplog, tmp_path):
    name = register([image(11, (1, [0, 0, 50, 50]), (1, [100, 100, 50, 50]))])
    with caplog.at_level(logging.INFO):
        evaluate(name, {11: prediction((1, [0, 0, 50, 50], 0.5), (0, [1, 2, 3, 4], 0.25))}, output_dir=tmp_path / "new")
    # One of two found, without error: precision 1 up to recall 0.5, at 51 of 101 points; 5100 / 101 = 50.495.
    row = next(line for line in caplog.text.splitlines() if line.startswith("| person"))
    assert [cell.strip() for cell in row.strip("|").split("|")] == ["person", "50.50", "50.50", "50.50", "2"]
    assert json.loads((tmp_path / "new" / "coco_instances_results.json").read_text()) == [
        {"image_id": 11, "category_id": 5, "bbox": [0.0, 0.0, 50.0, 50.0], "score": 0.5},
        {"image_id": 11, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.25},
    ]


def test_string_ids_and_xyxy_annotations(register):
    record = image("b", (0, [10, 10, 60, 60]))
    record["annotations"][0]["bbox_mode"] = BoxMode.XYXY_ABS
    results = evaluate(register([record, image("a")]), {"b": prediction((0, [10, 10, 50, 50], 0.5))})
    assert results["AP"] == pytest.approx(100)


def test_mistakes_are_named(register):
    name = register([image(1, (0, [0, 0, 50, 50]))])
    with pytest.raises(ValueError, match=r"class 3\b.* 3 classes"):
        evaluate(name, {1: prediction((3, [0, 0, 50, 50], 0.5))})


def test_boxes_that_are_not_finite_are_dropped_with_a_warning(register, caplog):
    name = register([image(1, (0, [0, 0, 50, 50]))])
    evaluator = COCOBoxEvaluator(name)
    evaluator.reset()
    output = prediction((0, [0, 0, 50, 50], 0.5), (0, [0, 0, 50, 50], float("nan")))
    evaluator.process([{"image_id": 1}], [output])
    assert evaluator.evaluate()["bbox"]["AP50"] == pytest.approx(100)
    assert "1 of 2 boxes" in caplog.text


def test_processes_are_gathered_on_the_main_one(register, monkeypatch):
    name = register([image(i, (0, [0, 0, 50, 50])) for i in (1, 2)])
    elsewhere = {2: Detections.from_columns([2], [ORIGINAL_IDS[0]], [[0, 0, 50, 50]], [0.5])}
    # Another process has predictions for image 2, and has left out no image.
    monkeypatch.setattr(
        "detectron2.utils.comm.gather", lambda data, dst=0: [data, elsewhere if isinstance(data, dict) else set()]
    )
    hit = prediction((0, [0, 0, 50, 50], 0.5))
    assert evaluate(name, {1: hit})["AP50"] == pytest.approx(100)

    monkeypatch.setattr("detectron2.utils.comm.gather", lambda data, dst=0: [])
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    evaluator = COCOBoxEvaluator(name)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [hit])
    assert evaluator.evaluate() == {}


def test_an_image_that_is_left_out_is_not_missed(register):
    name = register([image(i, (0, [0, 0, 50, 50])) for i in (1, 2)])
    evaluator = COCOBoxEvaluator(name)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [prediction((0, [0, 0, 50, 50], 0.5))])
    assert evaluator.evaluate()["bbox"]["AR100"] == pytest.approx(50), "one of two boxes is found"
    evaluator.leave_out(2)
    assert evaluator.evaluate()["bbox"]["AR100"] == pytest.approx(100)
    evaluator.reset()
    evaluator.process([{"image_id": 1}], [prediction((0, [0, 0, 50, 50], 0.5))])
    assert evaluator.evaluate()["bbox"]["AR100"] == pytest.approx(50)


def test_classes_of_the_model_are_found_by_name(register, tmp_path):
    """CLASSES are car, person, cart with the ids 1, 5, 7; the model has another order and more of them."""
    name = register([image(1, (0, [0, 0, 50, 50]), (1, [100, 100, 40, 40]))])
    of_model = ["bus", "person", "cart", "car", "dog"]
    output = prediction((3, [0, 0, 50, 50], 0.9), (1, [100, 100, 40, 40], 0.8), (0, [0, 0, 50, 50], 0.95))
    before = output["instances"].pred_classes.clone()
    results = evaluate(name, {1: output}, class_names=of_model, output_dir=tmp_path)
    assert results["AP-car"] == results["AP-person"] == pytest.approx(100)
    assert json.loads((tmp_path / "coco_instances_results.json").read_text()) == [
        {"image_id": 1, "category_id": 1, "bbox": [0.0, 0.0, 50.0, 50.0], "score": pytest.approx(0.9)},
        {"image_id": 1, "category_id": 5, "bbox": [100.0, 100.0, 40.0, 40.0], "score": pytest.approx(0.8)},
    ]
    assert torch.equal(output["instances"].pred_classes, before), "another evaluator may want them as they are"


def test_classes_that_the_data_do_not_have_neither_count_nor_hurt(register):
    name = register([image(1, (0, [0, 0, 50, 50]))])
    hit = (1, [0, 0, 50, 50], 0.5)
    errors = [(0, [0, 0, 50, 50], 0.9), (0, [100, 100, 50, 50], 0.8)]
    results = evaluate(name, {1: prediction(*errors, hit)}, class_names=["dog", "car"])
    assert results["AP"] == pytest.approx(100) and results["AR1"] == 100
    # As false detections of a class that the data have, they would at least halve the AP.
    assert evaluate(name, {1: prediction(*[(1, *rest) for _, *rest in errors[1:]], hit)}, class_names=["dog", "car"])[
        "AP"
    ] == pytest.approx(50)
    # Detections of unknown classes only, and no detections.
    for output in (prediction(*errors), prediction()):
        assert evaluate(name, {1: output}, class_names=["dog", "cat"])["AP"] == 0


@pytest.mark.parametrize("content", [b'[{"image_id":1,"category_id":2}]', b"mine"])
def test_results_of_the_version_before_are_replaced_and_others_stay(register, tmp_path, caplog, content):
    """A training goes on either way."""
    path = tmp_path / "coco_instances_results.json"
    path.write_bytes(content)
    name = register([image(11, (1, [0, 0, 50, 50]))])
    for _ in range(2):
        assert evaluate(name, {11: prediction((1, [0, 0, 50, 50], 0.5))}, output_dir=tmp_path)["AP"] > 0
    assert (path.read_bytes() == content) == (content == b"mine")
    warnings = " ".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)
    assert ("coco_instances_results.json" in warnings) == (content == b"mine")
