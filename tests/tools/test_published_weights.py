"""Evaluating and training from a published file, as a user would."""

import itertools
import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from parking.config import get_cfg
from parking.modeling import YOLO

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared"
# The classes of the vehicles set, by COCO's ids and names, and by its own.
COCO_IDS = {"bus": 6, "car": 3, "motorcycle": 4, "person": 1, "truck": 8}
COCO_NAMES = ["bus", "car", "motorcycle", "person", "truck"]
OWN_NAMES = ["bus", "car", "motorbike", "person", "truck"]
OWN = [{"id": i, "name": name} for i, name in enumerate(OWN_NAMES, start=1)]
# Two buses; a motorbike; a truck and two cars; a bus, two trucks and a person.
IMAGE_IDS = (1, 3, 10, 11)
numbers = itertools.count()
# What the class map of the competition recipe makes of COCO's classes.
SOURCES = (
    "sedan, SUV, van, taxi from car; bus, school bus from bus; truck from truck; adult, child from person; "
    "motorcycle from motorcycle; kickboard from skateboard; bicycle from bicycle; "
    "stroller, cart "
)
CPU = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0")


@pytest.fixture(scope="module")
def yolov5n():
    if not (SHARED / "parity").is_dir():
        pytest.skip("there are no published weights here (../shared/parity)")
    return SHARED / "parity" / "yolov5n.pt"


@pytest.fixture
def write_json(tmp_path):
    """``write_json(categories)``: four photographs of streets, their boxes under the ids of ``categories``."""
    folder = SHARED / "data/vehicles"
    if not folder.is_dir():
        pytest.skip("the photographs are not here (../shared/data/vehicles)")
    content = json.loads((folder / "val.json").read_text())

    def write(categories):
        ids = {category["name"]: category["id"] for category in categories}
        names = dict(enumerate(COCO_NAMES, start=1))
        own = {i: ids.get(name, ids.get("motorbike")) for i, name in names.items()}
        annotations = [a for a in content["annotations"] if a["image_id"] in IMAGE_IDS]
        path = tmp_path / "val.json"
        path.write_text(
            json.dumps(
                {
                    "images": [image for image in content["images"] if image["id"] in IMAGE_IDS],
                    "annotations": [{**a, "category_id": own[a["category_id"]]} for a in annotations],
                    "categories": categories,
                }
            )
        )
        return path

    return write


@pytest.fixture
def evaluate(run_here, yolov5n, tmp_path):
    """``evaluate(json, *opts)``: exit code, stderr, the table of scores by class, and the boxes, with yolov5n."""

    def evaluate(json_file, *opts):
        name = f"v{next(numbers)}"  # one that no earlier test has registered
        code, out, err = run_here(
            *("train_net.py", "--eval-only", "--config-file", ROOT / "configs/coco/yolov5n.yaml"),
            *("DATASETS.COCO", f"[['{name}', '{json_file}', '{SHARED}/data/vehicles/images']]"),
            *("MODEL.WEIGHTS", yolov5n, "OUTPUT_DIR", tmp_path / "out", "INPUT.SIZE_TEST", "320", *CPU),
            # So few boxes that the limit of 300 an image, for all classes together, does not matter.
            *("MODEL.YOLO.SCORE_THRESH_TEST", "0.05", *opts),
        )
        if code:
            return code, err, {}, []
        # | class | AP | AP50 | AP75 | boxes |
        rows = re.findall(r"^\| ([\w ]+?) +" + r"\| +([\d.]+|nan) *" * 3 + r"\| +(\d+) \|$", out, re.MULTILINE)
        scores = {name: tuple(map(float, values)) for name, *values in rows}
        results = tmp_path / "out/inference" / name / "coco_instances_results.json"
        return code, err, scores, json.loads(results.read_text())

    return evaluate


def coco_categories():
    from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

    return [{"id": c["id"], "name": c["name"]} for c in COCO_CATEGORIES if c["isthing"]]


def parking_class_map():
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/yolo.yaml"))
    return cfg.MODEL.YOLO.CLASS_MAP


def boxes_by_name(results, names):
    return sorted((r["image_id"], names[r["category_id"]], r["score"], *r["bbox"]) for r in results)


def test_other_class_lists_have_the_same_scores(write_json, evaluate):
    categories = coco_categories()
    names = {category["id"]: category["name"] for category in categories}
    code, err, all_80, results = evaluate(write_json(categories))
    assert code == 0, err
    assert len(all_80) == 80
    expected = {name: all_80[name] for name in COCO_NAMES}
    # AP, AP50, AP75, boxes: counted in the json for the four images.
    assert {name: int(row[3]) for name, row in expected.items()} == {
        "bus": 3,
        "car": 2,
        "motorcycle": 1,
        "person": 1,
        "truck": 3,
    }
    assert sum(row[1] > 50 for row in expected.values()) >= 2, "something is found: the scores mean something"
    found = boxes_by_name(results, names)
    assert {name for _, name, *_ in found} > set(COCO_NAMES), "also of classes that are not annotated here"
    shared = [box for box in found if box[1] in COCO_NAMES]

    # Some of COCO's classes, listed in another order, with COCO's ids; then with ids that reverse the order.
    for ids in (COCO_IDS, {name: 10 - i for i, name in enumerate(COCO_NAMES)}):
        subset = [{"id": ids[name], "name": name} for name in reversed(COCO_NAMES)]
        code, err, scores, results = evaluate(write_json(subset))
        assert code == 0, err
        assert scores == expected
        assert boxes_by_name(results, {i: name for name, i in ids.items()}) == shared

    # A model of the data's own classes, one of them called otherwise in the weights. No other class competes for the
    # 300 boxes of an image, and each class is suppressed by itself: the same scores.
    class_map = ("MODEL.YOLO.CLASS_MAP", "[['motorbike', 'motorcycle']]")
    code, err, scores, results = evaluate(write_json(OWN), "MODEL.YOLO.NUM_CLASSES", "0", *class_map)
    assert code == 0, err
    assert scores == {ours: expected[theirs] for ours, theirs in zip(OWN_NAMES, COCO_NAMES, strict=True)}
    assert {result["category_id"] for result in results} == {1, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        ("[['motorbike', 'motorcicle']]", "MODEL.YOLO.CLASS_MAP names 'motorcicle', which is no class of the weights"),
        ("[['moped', 'motorcycle']]", "MODEL.YOLO.CLASS_MAP names 'moped', which is no class of the data"),
    ],
)
def test_a_class_map_with_an_unknown_class(write_json, evaluate, class_map, message):
    code, err, *_ = evaluate(write_json(OWN), "MODEL.YOLO.NUM_CLASSES", "0", "MODEL.YOLO.CLASS_MAP", class_map)
    assert code == 1
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def test_data_of_other_classes_need_a_number(write_json, evaluate):
    code, err, *_ = evaluate(write_json(OWN))
    assert code == 1
    message = (
        r"error: weights .* have no class motorbike, which the data set v\d+ has; say in MODEL.YOLO.CLASS_MAP .*\n"
    )
    assert re.fullmatch(message, err)


def test_a_parking_detector_before_any_training(run_here, yolov5n, tiny_scenes, tmp_path):
    photo = SHARED / "data/photos/bus.jpg"
    if not photo.is_file():
        pytest.skip("the photograph is not here (../shared/data/photos)")
    code, out, err = run_here(
        *("infer.py", "--config-file", ROOT / "configs/yolov5/n.yaml", "--weights", yolov5n, "--input", photo),
        *("--output", tmp_path, "DATASETS.ROOT", tiny_scenes, "MODEL.YOLO.CLASS_MAP", parking_class_map(), *CPU),
        *("MODEL.YOLO.SCORE_THRESH_TEST", "0.4", "MODEL.YOLO.NMS_THRESH_TEST", "0.45"),
    )
    assert code == 0, err
    assert SOURCES in out
    found = json.loads((tmp_path / "predictions.json").read_text())
    boxes = {i: [(box["bbox"], box["score"]) for box in found if box["category_id"] == i] for i in range(1, 15)}
    # Category ids of the challenge. 4 bus and 5 school bus are COCO's bus, 8 adult and 9 child are its person: four
    # persons and a bus, as in COCO's own classes (0.876, 0.805, 0.787, 0.519 and 0.492).
    assert boxes[4] == boxes[5] and boxes[8] == boxes[9]
    assert [round(score, 2) for _, score in boxes[4]] == [0.49]
    assert [round(score, 2) for _, score in boxes[8]] == [0.88, 0.80, 0.79, 0.52]
    assert {i for i, of_class in boxes.items() if of_class} == {4, 5, 8, 9}


def test_training_from_a_published_file(run_here, yolov5n, tiny_scenes, tmp_path):
    weights, output_dir = tmp_path / "yolov5n.pt", tmp_path / "out"
    shutil.copy(yolov5n, weights)
    args = [
        *("DATASETS.ROOT", tiny_scenes, "OUTPUT_DIR", output_dir, "MODEL.WEIGHTS", weights, *CPU),
        *("MODEL.YOLO.CLASS_MAP", parking_class_map(), "MODEL.YOLO.SCORE_THRESH_TEST", "0.01"),
        *("INPUT.SIZE_TRAIN", "[64, 64]", "INPUT.SIZE_TEST", "64", "SOLVER.IMS_PER_BATCH", "2", "SEED", "0"),
        # A warm-up in which the weights hardly change, and an evaluation between two iterations.
        *("SOLVER.WARMUP_ITERS", "100", "SOLVER.WARMUP_BIAS_LR", "0.0", "SOLVER.NOMINAL_BATCH_SIZE", "0"),
        *("SOLVER.CHECKPOINT_PERIOD", "1", "TEST.EVAL_PERIOD", "1"),
    ]
    config = ("--config-file", ROOT / "configs/yolov5/n.yaml")
    code, out, err = run_here("train_net.py", *config, *args, "SOLVER.MAX_ITER", "2")
    assert code == 0, err
    assert f"Loaded all 349 tensors of {weights}; class outputs of head.predictors.0.weight, " in out
    assert f"head.predictors.2.bias: {SOURCES}" in out

    with torch.device("meta"):
        cfg = get_cfg()
        cfg.merge_from_file(str(config[1]))
        names = YOLO(cfg).state_dict().keys()
    for file in ("model_0000000.pth", "model_0000001.pth", "model_best.pth", "model_final.pth"):
        state = torch.load(output_dir / file, weights_only=True)["model"]
        assert state.keys() == names, f"{file}: norms folded?"
    # The biases are near their start: COCO's third class for the first of 14, the prior for the last two.
    rows = state["head.predictors.0.bias"].view(3, 19)
    theirs = published_bias(yolov5n).view(3, 85)
    torch.testing.assert_close(rows[:, :6], theirs[:, [0, 1, 2, 3, 4, 5 + 2]], rtol=0, atol=0.02)
    torch.testing.assert_close(rows[:, 17:], torch.full((3, 2), -3.0758), rtol=0, atol=0.02)  # log(0.6 / 13.00001)

    weights.unlink()
    (output_dir / "finished").unlink()
    (output_dir / "last_checkpoint").write_text("model_0000000.pth")  # as if it had been stopped there
    code, out, err = run_here("train_net.py", *config, "--resume", *args, "SOLVER.MAX_ITER", "2")
    assert code == 0, err
    assert "iterations 1 to 2" in out and "class outputs" not in out


def published_bias(path):
    from parking.checkpoint import read_weights

    return read_weights(path).state_dict["head.predictors.0.bias"]


@pytest.mark.long
def test_yolox_nano_scores_what_the_published_code_scores(run_here, tmp_path):
    """On 200 photographs, without any training; a minute on two cores."""
    data, weights = SHARED / "data/vehicles", SHARED / "parity/yolox_nano.pth"
    if not (data.is_dir() and weights.is_file()):
        pytest.skip("the photographs or the published weights are not here (../shared)")
    code, out, err = run_here(
        *("train_net.py", "--eval-only", "--config-file", ROOT / "configs/coco/yolox_nano.yaml"),
        *("DATASETS.COCO", f"[['vehicles', '{data}/val.json', '{data}/images']]", "DATASETS.TEST", "('vehicles',)"),
        *("MODEL.WEIGHTS", weights, "OUTPUT_DIR", tmp_path, "MODEL.YOLO.NUM_CLASSES", "0", *CPU),
        *("MODEL.YOLO.CLASS_MAP", "[['motorbike', 'motorcycle']]"),
    )
    assert code == 0, err
    ap, ap50, ap75 = re.search(r"^\| +([\d.]+) \| +([\d.]+) \| +([\d.]+) \|", out, re.MULTILINE).groups()
    assert [float(ap), float(ap50), float(ap75)] == pytest.approx([59.0, 80.0, 64.6], abs=1.0)
