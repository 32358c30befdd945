"""convert_weights.py, and that what it writes is enough to infer with."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors
import torch

from parking.checkpoint import read_weights
from parking.checkpoint.formats import yolov5, yolov5u, yolox
from parking.config import get_cfg
from parking.config.plain import describe_config
from parking.modeling import YOLO

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared"
NAMES = ["cat", "개"]
CPU = ("MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0")
ENDINGS = [".pth", ".safetensors"]
# COCO's ids run from 1 to 90; these ten were never given to a class that has boxes.
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


@pytest.fixture(scope="module")
def tiny():
    """Config and state of a model of two classes, too small for any published size."""
    torch.manual_seed(0)
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.YOLO.WIDTH_MULTIPLE", "0.125", "MODEL.YOLO.NUM_CLASSES", "2"])
    cfg.merge_from_list(["INPUT.SIZE_TEST", "64", "MODEL.YOLO.SCORE_THRESH_TEST", "1e-6"])
    return cfg, YOLO(cfg).state_dict()


@pytest.fixture
def own(tiny, tmp_path):
    """Weights as a training of ours leaves them."""
    cfg, state = tiny
    path = tmp_path / "own.pth"
    content = {"model": state, "config": describe_config(cfg), "class_names": NAMES, "category_ids": [3, 7]}
    torch.save({**content, "metric": "bbox/AP75"}, path)
    return path


@pytest.fixture
def bare(tiny, tmp_path):
    """The same model under published names, without a config, and a yaml that fits."""
    path = tmp_path / "bare.pth"
    torch.save({"model": yolov5.to_published(tiny[1]), "class_names": NAMES}, path)
    config = tmp_path / "tiny.yaml"
    # The config may have another number of classes, as those of configs/coco have: that of the weights is taken.
    config.write_text("MODEL:\n  YOLO:\n    WIDTH_MULTIPLE: 0.125\n    NUM_CLASSES: 80\n")
    return path, config


@pytest.fixture
def yolov5n():
    if not (SHARED / "parity").is_dir():
        pytest.skip("there are no published weights here (../shared/parity)")
    return SHARED / "parity" / "yolov5n.pt"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_same_state(actual, expected):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and torch.equal(actual[name], tensor), name


def infer(run_here, output, *args):
    code, _, err = run_here("infer.py", "--output", output, *args)
    assert code == 0, err
    return json.loads((output / "predictions.json").read_text())


def assert_refused(result, code, message, output):
    got, _, err = result
    assert message in err
    assert got == code
    if code == 1:
        assert err.startswith("error: ") and err.count("\n") == 1
    assert not output.exists() and not list(output.parent.glob(".*")), "nothing half written stays"


@pytest.mark.parametrize("ending", ENDINGS)
def test_own_weights(run_here, tiny, own, tmp_path, ending):
    before, output = own.read_bytes(), tmp_path / f"converted{ending}"
    code, out, err = run_here("convert_weights.py", own, output)
    assert code == 0, err
    weights = read_weights(output)
    assert_same_state(weights.state_dict, tiny[1])
    assert (weights.class_names, weights.category_ids) == (NAMES, [3, 7])
    assert weights.config == describe_config(tiny[0])
    assert weights.origin == {"file": "own.pth", "sha256": sha256(own), "format": "weights of this project"}
    assert f"all {len(tiny[1])} tensors of IN" in out and str(output) in out and sha256(own) in out
    assert own.read_bytes() == before


def test_metadata_of_safetensors_are_texts_that_others_can_read(run_here, own, tmp_path):
    run_here("convert_weights.py", own, tmp_path / "c.safetensors")
    with safetensors.safe_open(tmp_path / "c.safetensors", framework="pt") as file:
        texts = file.metadata()
    assert texts.keys() == {"format", "config", "class_names", "category_ids", "origin"}
    assert texts["format"] == "pt" and json.loads(texts["class_names"]) == NAMES
    assert json.loads(texts["config"])["MODEL"]["YOLO"]["NUM_CLASSES"] == 2


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_origin_survives_a_second_conversion(run_here, tiny, own, tmp_path, ending):
    first, second = tmp_path / "first.safetensors", tmp_path / f"second{ending}"
    for source, output in ((own, first), (first, second)):
        assert run_here("convert_weights.py", source, output)[0] == 0
    assert_same_state(read_weights(second).state_dict, tiny[1])
    assert read_weights(second).origin["file"] == "own.pth"
    assert read_weights(second).origin["sha256"] == sha256(own)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_converted_file_finds_the_same_boxes(run_here, own, tmp_path, ending):
    image, output = tmp_path / "noise.png", tmp_path / f"converted{ending}"
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    assert run_here("convert_weights.py", own, output)[0] == 0
    expected = infer(run_here, tmp_path / "a", "--input", image, "--weights", own, *CPU)
    assert infer(run_here, tmp_path / "b", "--input", image, "--weights", output, *CPU) == expected
    assert len(expected) > 10 and {box["category_id"] for box in expected} == {3, 7}


def test_foreign_weights_of_a_size_of_ones_own(run_here, tiny, bare, tmp_path):
    source, config = bare
    output = tmp_path / "c.pth"
    code, out, err = run_here("convert_weights.py", source, output, "--config-file", config)
    assert code == 0, err
    assert str(config) in out
    weights = read_weights(output)
    assert_same_state(weights.state_dict, tiny[1])
    assert weights.family is None, "converted weights have our names"
    assert weights.config["MODEL"]["YOLO"]["NUM_CLASSES"] == 2
    assert weights.category_ids is None, "numbers that were made up would look as if they were somebody's"
    assert weights.origin["format"] == "published YOLOv5 checkpoint"


def test_weights_of_no_known_size(run_here, bare, tmp_path):
    result = run_here("convert_weights.py", bare[0], tmp_path / "c.pth")
    assert_refused(result, 1, "fit no such model; nearest is ", tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("layout", "config", "for_coco"),
    [
        (yolov5, "yolov5/n6.yaml", "yolov5n6.yaml"),
        (yolov5u, "yolov5u/n6.yaml", "yolov5n6u.yaml"),
        (yolox, "yolox/nano.yaml", "yolox_nano.yaml"),
    ],
)
def test_a_published_size_is_recognised(run_here, tmp_path, layout, config, for_coco):
    """With the classes of the file, whatever their number, and the width of branches that follows from it."""
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs" / config))
    cfg.MODEL.DEVICE, cfg.MODEL.YOLO.NUM_CLASSES, cfg.MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS = "cpu", 2, 0
    state = YOLO(cfg).state_dict()
    torch.save({"model": layout.to_published(state), "class_names": NAMES}, tmp_path / "m.pth")
    code, out, err = run_here("convert_weights.py", tmp_path / "m.pth", tmp_path / "c.pth")
    assert code == 0, err
    assert f"configs/coco/{for_coco}" in out
    weights = read_weights(tmp_path / "c.pth")
    assert weights.state_dict.keys() == state.keys()
    assert weights.config["MODEL"]["YOLO"]["NUM_CLASSES"] == 2
    assert weights.config["INPUT"]["SIZE_TEST"] == cfg.INPUT.SIZE_TEST
    width = weights.config["MODEL"]["DISTRIBUTION_HEAD"]["CLASS_CHANNELS"]
    assert width == (64 if layout is yolov5u else 0)


def test_values_that_no_detector_can_use_are_refused(run_here, tiny, tmp_path):
    cfg, state = tiny
    content = {"model": {**state, "head.anchors": torch.zeros(3, 3, 2)}, "config": describe_config(cfg)}
    torch.save({**content, "class_names": NAMES}, tmp_path / "flat.pth")
    result = run_here("convert_weights.py", tmp_path / "flat.pth", tmp_path / "c.pth")
    assert_refused(result, 1, "head.anchors", tmp_path / "c.pth")


def test_an_existing_file_is_replaced_only_when_asked(run_here, own, tmp_path):
    output = tmp_path / "precious.pth"
    output.write_bytes(b"precious")
    code, _, err = run_here("convert_weights.py", own, output)
    assert code == 1 and "precious.pth exists already" in err and "--overwrite" in err
    assert output.read_bytes() == b"precious"
    assert run_here("convert_weights.py", own, output, "--overwrite")[0] == 0
    assert read_weights(output).class_names == NAMES


def test_the_input_is_never_replaced(run_here, own):
    before = own.read_bytes()
    code, _, err = run_here("convert_weights.py", own, own, "--overwrite")
    assert code == 1 and "own.pth is IN itself" in err
    assert own.read_bytes() == before


def test_another_ending_is_wrong_usage(run_here, own, tmp_path):
    assert_refused(run_here("convert_weights.py", own, tmp_path / "c.pt"), 2, "c.pt must end in", tmp_path / "c.pt")


def test_weights_without_class_names(run_here, tiny, tmp_path):
    torch.save({"model": tiny[1], "config": describe_config(tiny[0])}, tmp_path / "nameless.pth")
    result = run_here("convert_weights.py", tmp_path / "nameless.pth", tmp_path / "c.pth")
    assert_refused(result, 1, "nameless.pth carry no class names", tmp_path / "c.pth")


@pytest.mark.parametrize(
    ("source", "output", "message"),
    [
        ("none.pt", "c.pth", "none.pt do not exist"),
        ("https://example.org/yolov5n.pt", "c.pth", "nothing is downloaded"),
        ("own.pth", "own.pth/c.pth", "c.pth cannot be written"),
    ],
)
def test_wrong_paths(run_here, own, tmp_path, source, output, message):
    source = source if "://" in source else tmp_path / source
    assert_refused(run_here("convert_weights.py", source, tmp_path / output), 1, message, tmp_path / output)


@pytest.mark.parametrize("ending", ENDINGS)
def test_published_weights(run_here, yolov5n, tmp_path, ending):
    before, output = yolov5n.read_bytes(), tmp_path / f"n{ending}"
    code, out, err = run_here("convert_weights.py", yolov5n, output)
    assert code == 0, err
    assert "configs/coco/yolov5n.yaml" in out and "tensors:   all 349 tensors of IN" in out
    published, weights = read_weights(yolov5n), read_weights(output)
    assert_same_state(weights.state_dict, published.state_dict)
    assert weights.class_names == published.class_names
    assert weights.category_ids == sorted(set(range(1, 91)) - COCO_GAPS)
    # The first and last ids, and two that follow gaps: person 1, stop sign 13, backpack 27, toothbrush 90.
    ids = dict(zip(weights.class_names, weights.category_ids, strict=True))
    assert [ids[name] for name in ("person", "stop sign", "backpack", "toothbrush")] == [1, 13, 27, 90]
    assert weights.origin == {
        "file": "yolov5n.pt",
        "sha256": hashlib.sha256(before).hexdigest(),
        "format": "published YOLOv5 checkpoint",
    }
    assert weights.origin["sha256"].startswith("4f180cf2")
    yolo = weights.config["MODEL"]["YOLO"]
    assert (yolo["NUM_CLASSES"], yolo["SCORE_THRESH_TEST"], yolo["NMS_THRESH_TEST"]) == (80, 0.001, 0.65)
    assert weights.config["TEST"]["DETECTIONS_PER_IMAGE"] == 300 and not weights.config["TEST"]["AUG"]["ENABLED"]
    assert yolov5n.read_bytes() == before

    if not (SHARED / "data/photos").is_dir():
        return
    pictures = ("--input", SHARED / "data/photos/bus.jpg")
    small = ("INPUT.SIZE_TEST", "320", *CPU)
    config = ROOT / "configs/coco/yolov5n.yaml"
    args = (*pictures, "--weights", yolov5n, "--config-file", config, *small)
    expected = infer(run_here, tmp_path / "a", *args)
    assert infer(run_here, tmp_path / "b", *pictures, "--weights", output, *small) == expected
    assert len(expected) == 300
    assert [box["category_id"] for box in expected if box["score"] > 0.5].count(1) >= 3, "persons"


def test_a_published_file_alone_is_not_enough_to_infer(run_here, yolov5n, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((8, 8, 3), np.uint8))
    result = run_here("infer.py", "--input", tmp_path / "a.png", "--weights", yolov5n, "--output", tmp_path / "o")
    assert_refused(result, 1, "--config-file (configs/coco/yolov5n.yaml)", tmp_path / "o")
