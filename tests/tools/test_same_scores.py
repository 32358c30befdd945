"""A training, train_net.py --eval-only and infer.py --annotations score the same boxes of the same data alike."""

import dataclasses
import json
import unicodedata

import cv2
import numpy as np
import pytest

NAMES = ["cat", "\u00e9lan", "dog", "zebra"]
CPU = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0")
HEIGHT, WIDTH = 60, 96


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "day").mkdir(parents=True)
    # The order of the names is not that of the ids.
    for seed, name in enumerate(("z.png", "day/b.png", "y.png", "day/a.png", "x.png")):
        small = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def weights(make_weights, tmp_path):
    from parking.checkpoint import read_weights, write_weights

    path = str(make_weights(tmp_path / "weights.pth", "MODEL.YOLO.NUM_CLASSES", str(len(NAMES)), std=0.01))
    write_weights(path, dataclasses.replace(read_weights(path), class_names=NAMES, category_ids=[1, 2, 3, 4]))
    return path


@pytest.fixture
def scores(monkeypatch, run_here, images, weights, tmp_path):
    """``scores(content, *opts)``: COCO's twelve numbers of both tools, to the last digit."""
    from parking.evaluation.annotations_file import AnnotationsFile
    from parking.evaluation.coco_evaluation import COCOBoxEvaluator
    from parking.evaluation.scorer import METRICS, BoxScores

    given = []

    def spy(original, pick):
        def call(*args, **kwargs):
            result = original(*args, **kwargs)
            given.append([pick(result)[name] for name in METRICS])
            return result

        return call

    monkeypatch.setattr(COCOBoxEvaluator, "evaluate", spy(COCOBoxEvaluator.evaluate, lambda result: result["bbox"]))
    monkeypatch.setattr(AnnotationsFile, "score", spy(AnnotationsFile.score, BoxScores.summarize))

    def scores(content, *opts, unreadable=False):
        number = len(given)
        path = tmp_path / f"truth-{number}.json"
        path.write_text(json.dumps(content))
        config = tmp_path / "config.yaml"
        config.write_text("MODEL: {YOLO: {WIDTH_MULTIPLE: 0.125}}\nINPUT: {SIZE_TEST: 96}\n")
        code, _, err = run_here(
            *("train_net.py", "--eval-only", "--config-file", config, "MODEL.WEIGHTS", weights),
            *("DATASETS.COCO", f"[['same_{number}', '{path}', '{images}']]", "DATASETS.TEST", f"('same_{number}',)"),
            *("OUTPUT_DIR", tmp_path / "eval", "MODEL.YOLO.NUM_CLASSES", "0", *CPU, *opts),
        )
        assert code == 0, err
        code, out, err = run_here(
            *("infer.py", "--input", images, "--weights", weights, "--output", tmp_path / "infer"),
            *("--annotations", path, *CPU, *opts),
        )
        assert code == (3 if unreadable else 0), err
        evaluated, inferred = given[number:]
        assert f"AP {inferred[0]:.2f}" in out
        return evaluated, inferred

    return scores


def make_content(images, found):
    """Annotations that are made of what was ``found``, moved a little, with all that may be wrong with such."""
    names = ["x.png", "y.png", "z.png", "day/a.png", "day/b.png"]
    ids = dict(zip(names, (2**63 + 5, 40, -3, 7, 2**53 + 1), strict=True))
    categories = [
        {"id": 90, "name": "dog "},
        {"id": 17, "name": "cow"},
        {"id": 2**63 + 9, "name": unicodedata.normalize("NFD", NAMES[1])},
        {"id": 5, "name": "c\u200bat"},
    ]
    category_ids = {1: 5, 2: 2**63 + 9, 3: 90}
    areas = [0, -100, 1e12, None, "large", 60.0, float("nan")]
    annotations = []
    for number, row in enumerate(found):
        name = row["file_name"]
        if row["category_id"] not in category_ids or name == "y.png":  # zebras and an image without boxes
            continue
        x, y, w, h = row["bbox"]
        entry = {
            "id": number,
            "image_id": ids[name],
            "category_id": category_ids[row["category_id"]],
            "bbox": [x + number % 3, y + number % 2, w, h],
            "area": areas[number % len(areas)],
            "iscrowd": int(number % 11 == 5),
        }
        if number % 5 == 0:
            entry["bbox"] = [x - 4, y - 4, w + 200, h + 200]  # beyond the picture
        if number % 4 == 0:
            entry["ignore"] = 1
        if number % 7 == 3:
            del entry["area"]
        annotations.append(entry)
    annotations.append({"id": 999, "image_id": 40, "category_id": 17, "bbox": [1, 1, 9, 9], "iscrowd": 1})
    annotations.append({"id": 998, "image_id": 7, "category_id": 17, "bbox": [1, 1, 9, 9]})
    sized = [{"id": ids[name], "file_name": name, "width": WIDTH, "height": HEIGHT} for name in names]
    return {"images": sized, "annotations": annotations, "categories": categories}


def test_the_scores_of_both_tools_are_equal(scores, run_here, images, weights, tmp_path):
    code, _, err = run_here(
        *("infer.py", "--input", images, "--weights", weights, "--output", tmp_path / "first"),
        *("TEST.DETECTIONS_PER_IMAGE", "30", *CPU),
    )
    assert code == 0, err
    names = {row["id"]: row["file_name"] for row in json.loads((tmp_path / "first" / "images.json").read_text())}
    found = json.loads((tmp_path / "first" / "predictions.json").read_text())
    found = [{**row, "file_name": names[row["image_id"]]} for row in found]
    content = make_content(images, found)
    assert len(content["annotations"]) > 40

    evaluated, inferred = scores(content)
    assert inferred == evaluated
    assert 1 < evaluated[0] < 75, "one of four classes is not found, and the rest not everywhere"

    # The limit of boxes in an image counts all of the model's classes, also those that the json lacks.
    evaluated, inferred = scores(content, "TEST.DETECTIONS_PER_IMAGE", "10")
    assert inferred == evaluated

    # Without sizes, the files' headers say where the pictures end.
    for image in content["images"]:
        del image["width"], image["height"]
    again, inferred = scores(content, "TEST.DETECTIONS_PER_IMAGE", "10")
    assert again == inferred == evaluated

    # Boxes and images that cannot be used, which DATASETS.POLICY repair leaves out.
    bad = [[200, 5, 10, 10], [5, 5, -3, 4], [5, 5, 0, 4], content["annotations"][0]["bbox"], [float("nan"), 1, 2, 3]]
    entry = content["annotations"][0]
    content["annotations"] += [{**entry, "id": 2000 + i, "bbox": box} for i, box in enumerate(bad)]
    content["annotations"].append({**entry, "id": 3000, "category_id": 1234})
    path = images / "day" / "b.png"
    path.write_bytes(path.read_bytes()[:-200])
    evaluated, inferred = scores(content, "DATASETS.POLICY", "repair", unreadable=True)
    assert inferred == evaluated != again


def test_the_last_score_of_a_training_is_that_of_its_weights(run_here, images, weights, tmp_path):
    code, _, err = run_here(
        *("infer.py", "--input", images, "--weights", weights, "--output", tmp_path / "first"),
        *("TEST.DETECTIONS_PER_IMAGE", "30", *CPU),
    )
    assert code == 0, err
    rows = json.loads((tmp_path / "first" / "images.json").read_text())
    found = json.loads((tmp_path / "first" / "predictions.json").read_text())
    annotations = [
        {"id": number, "image_id": row["image_id"], "category_id": row["category_id"], "bbox": [x, y, w, h]}
        for number, row in enumerate(found, start=1)
        for x, y, w, h in [[row["bbox"][0] + number % 3, row["bbox"][1] + number % 2, *row["bbox"][2:]]]
        if w > 1 and h > 1
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(NAMES, start=1)]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": rows, "annotations": annotations, "categories": categories}))
    config = tmp_path / "config.yaml"
    config.write_text(
        "MODEL: {YOLO: {WIDTH_MULTIPLE: 0.125, NUM_CLASSES: 0}}\n"
        f"DATASETS: {{COCO: [[trained, {truth}, {images}]], TRAIN: [trained], TEST: [trained], POLICY: repair}}\n"
        "INPUT: {SIZE_TRAIN: [64, 96], SIZE_TEST: 96}\n"
        f"OUTPUT_DIR: {tmp_path}/training\n"
        "SOLVER: {IMS_PER_BATCH: 2, MAX_ITER: 4, BASE_LR: 0.0001, WARMUP_BIAS_LR: 0.0001, WARMUP_ITERS: 2}\n"
    )
    opts = ("MODEL.WEIGHTS", weights, "TEST.IMS_PER_BATCH", 3, "TEST.EVAL_PERIOD", 2, *CPU)
    code, _, err = run_here("train_net.py", "--config-file", config, *opts)
    assert code == 0, err
    logged = [json.loads(line) for line in (tmp_path / "training" / "metrics.json").read_text().splitlines()]
    last = {name: value for name, value in logged[-1].items() if name.startswith("bbox/")}
    assert 1 < last["bbox/AP"] < 99 and not any(name.startswith("raw/") for name in logged[-1])
    folder = tmp_path / "training" / "inference" / "trained"
    boxes = (folder / "coco_instances_results.json").read_bytes()

    from parking.evaluation.coco_evaluation import COCOBoxEvaluator

    given = []
    with pytest.MonkeyPatch.context() as patch:
        evaluate = COCOBoxEvaluator.evaluate
        patch.setattr(COCOBoxEvaluator, "evaluate", lambda self: given.append(evaluate(self)) or given[-1])
        for file, batch in (("model_final.pth", 1), ("model_final.pth", 2), ("model_0000003.pth", 5)):
            opts = ("MODEL.WEIGHTS", tmp_path / "training" / file, "TEST.IMS_PER_BATCH", batch, *CPU)
            code, out, err = run_here("train_net.py", "--eval-only", "--config-file", config, *opts)
            assert code == 0, err
            scores = {f"bbox/{name}": value for name, value in given[-1]["bbox"].items() if value == value}
            assert scores == last
            assert (folder / "coco_instances_results.json").read_bytes() == boxes
    code, out, err = run_here(
        *("infer.py", "--input", images, "--weights", tmp_path / "training" / "model_final.pth"),
        *("--output", tmp_path / "last", "--annotations", truth, *CPU),
    )
    assert code == 0 and f"AP {last['bbox/AP']:.2f}, AP50 {last['bbox/AP50']:.2f}" in out, err
