"""One call from a picture to detections: the same as the tool's, for everything that can be a picture."""

import dataclasses
import json
import logging
import re
import runpy
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import parking
from parking.checkpoint import Weights, read_weights, write_weights
from parking.inference import detector
from parking.inference.detector import Detector
from parking.inference.image_detections import ImageDetections
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT / "../shared"
SIZES = ((90, 128), (64, 64), (131, 50))


def make_photo(height, width, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def detect(weights_file):
    return Detector(weights_file, device="cpu")


def assert_same(first, second):
    for column in ("boxes", "scores", "class_ids"):
        np.testing.assert_array_equal(getattr(first, column), getattr(second, column), err_msg=column)


def test_what_comes_back(detect):
    assert (detect.thing_classes, detect.category_ids, detect.device) == (["cat", "dog"], [7, 3], torch.device("cpu"))
    height, width = SIZES[0]
    found = detect(make_photo(height, width))
    assert isinstance(found, ImageDetections) and len(found) > 5
    assert (found.boxes.dtype, found.scores.dtype, found.class_ids.dtype) == (np.float32, np.float32, np.int64)
    assert (found.boxes >= 0).all() and (found.boxes <= [width, height, width, height]).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    # Boxes are in pixels of the picture, not of the 96 pixels that the model sees.
    assert found.boxes[:, 2].max() > 96
    assert (np.diff(found.scores) <= 0).all() and found.scores[-1] >= 0.25
    assert set(found.class_names) == {"cat", "dog"}
    assert {row["category_id"] for row in found.to_coco(1)} == {7, 3}


@pytest.mark.parametrize("views", [False, True])
def test_the_same_as_the_tool(weights_file, tmp_path, monkeypatch, capsys, views):
    folder = tmp_path / "in"
    folder.mkdir()
    for i, (height, width) in enumerate(SIZES):
        Image.fromarray(make_photo(height, width, seed=i)).save(folder / f"{i}.{('png', 'jpg', 'bmp')[i]}")
    argv = ["infer.py", "--input", folder, "--weights", weights_file, "--output", tmp_path / "out"]
    argv += ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "TEST.AUG.ENABLED", views]
    monkeypatch.setattr(sys, "argv", list(map(str, argv)))
    monkeypatch.setattr("parking.inference.command.setup_logging", lambda: None)
    assert runpy.run_path(str(ROOT / "tools/infer.py"))["run"]() == 0
    expected = [r for r in json.loads((tmp_path / "out/predictions.json").read_text()) if r["score"] >= 0.25]
    ids = {row["file_name"]: row["id"] for row in json.loads((tmp_path / "out/images.json").read_text())}

    detect = Detector(weights_file, device="cpu", overrides={"TEST.AUG.ENABLED": views})
    paths = sorted(folder.iterdir())
    results = [row for path in paths for row in detect(path).to_coco(ids[path.name])]
    assert len(results) > 20

    def by_image_and_score(row):
        return row["image_id"], -row["score"], row["category_id"], row["bbox"]

    expected, results = sorted(expected, key=by_image_and_score), sorted(results, key=by_image_and_score)
    for key in ("image_id", "category_id"):
        assert [row[key] for row in results] == [row[key] for row in expected]
    # Files have three and six decimals.
    for key, tolerance in (("bbox", 0.01), ("score", 1e-4)):
        np.testing.assert_allclose([r[key] for r in results], [r[key] for r in expected], rtol=0, atol=tolerance)


def test_paths_arrays_and_pil_images_one_or_many(detect, tmp_path):
    photo = make_photo(*SIZES[0])
    path = tmp_path / "a.png"
    Image.fromarray(photo).save(path)
    expected = detect(photo)
    kinds = [path, str(path), photo, photo[..., ::-1][..., ::-1], Image.open(path), Image.fromarray(photo)]
    for kind in kinds:
        assert_same(detect(kind), expected)
        np.testing.assert_array_equal(detect(kind).image, photo)
    for many in (kinds, tuple(kinds), iter(kinds)):
        results = detect(many)
        assert isinstance(results, list) and len(results) == len(kinds)
        for result in results:
            assert_same(result, expected)
    assert detect([]) == []
    # Red and blue are not the same.
    assert not np.array_equal(detect(photo[..., ::-1]).scores, expected.scores)


def test_results_do_not_depend_on_the_other_images(detect):
    photos = [make_photo(*size, seed=i) for i, size in enumerate(SIZES)]
    for together, photo in zip(detect(photos), photos, strict=True):
        assert_same(together, detect(photo))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_other_pil_modes(detect, mode):
    image = Image.fromarray(make_photo(*SIZES[0])).convert(mode)
    assert_same(detect(image), detect(np.asarray(image.convert("RGB"))))


def test_pictures_are_turned_upright(detect, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = make_photo(*SIZES[0])
    Image.fromarray(photo).rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    expected = detect(photo)
    np.testing.assert_array_equal(detect(tmp_path / "turned.png").image, photo)
    assert_same(detect(tmp_path / "turned.png"), expected)
    assert_same(detect(Image.open(tmp_path / "turned.png")), expected)


def test_score_threshold(weights_file):
    photo = make_photo(*SIZES[0])
    # The threshold is below the 0.05 of the config, which would otherwise decide.
    all_boxes = {"TEST.DETECTIONS_PER_IMAGE": 1000}
    many = Detector(weights_file, device="cpu", score_threshold=0.01, overrides=all_boxes)(photo)
    assert many.scores.min() < 0.05
    for threshold in (0.1, 0.5):
        few = Detector(weights_file, device="cpu", score_threshold=threshold, overrides=all_boxes)(photo)
        assert 0 < len(few) < len(many)
        assert_same(many[many.scores >= threshold], few)


def test_overrides(weights_file, detect):
    small = Detector(weights_file, device="cpu", overrides={"INPUT.SIZE_TEST": 64, "TEST.DETECTIONS_PER_IMAGE": 2})
    assert small.cfg.INPUT.SIZE_TEST == 64 and detect.cfg.INPUT.SIZE_TEST == 96
    assert len(small(make_photo(*SIZES[0]))) == 2


def get_settings():
    names = (None, "parking", "detectron2", "fvcore")
    loggers = [(n.level, n.propagate, n.disabled, list(n.handlers)) for n in map(logging.getLogger, names)]
    return (
        loggers,
        torch.get_num_threads(),
        cv2.getNumThreads(),
        torch.is_grad_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.get_default_dtype(),
        torch.get_rng_state().tolist(),
        np.random.get_state()[1].tolist(),
    )


def test_the_callers_settings_stay(weights_file, tmp_path):
    before = get_settings()
    detect = Detector(weights_file, device="cpu")
    photo = make_photo(*SIZES[0])
    kept = photo.copy()
    with pytest.raises(UserError):
        detect([photo, tmp_path / "nothing.jpg"])
    assert get_settings() == before
    np.testing.assert_array_equal(photo, kept)


@pytest.mark.parametrize(
    ("image", "error", "sentence"),
    [
        (np.zeros((4, 6, 3), np.float32), ValueError, "the image is an array of float32; give uint8 values"),
        (np.zeros((4, 6), np.uint8), ValueError, r"of shape \(4, 6\); give \(H, W, 3\) in RGB order$"),
        (np.zeros((0, 6, 3), np.uint8), ValueError, r"of shape \(0, 6, 3\)"),
        (np.zeros((2, 4, 6, 3), np.uint8), ValueError, "give several images as a list"),
        ([np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)], ValueError, r"^images\[1\] is an array"),
        (torch.zeros((4, 6, 3), dtype=torch.uint8), TypeError, "the image is a Tensor; give a path"),
        (None, TypeError, "the image is a NoneType"),
        ({"a": 1}, TypeError, "the image is a dict"),
        (Image.new("I;16", (6, 4)), ValueError, "PIL image of mode I;16; give one with 8 bits a channel"),
        (Image.new("RGB", (0, 4)), ValueError, r"of shape \(4, 0, 3\)"),
        ("no/such.jpg", UserError, "The image 'no/such.jpg' cannot be opened"),
    ],
)
def test_what_is_no_image(detect, image, error, sentence):
    with pytest.raises(error, match=sentence):
        detect(image)


def test_files_that_are_no_images(detect, tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.jpg' cannot be decoded: it is text"):
        detect(tmp_path / "a.jpg")
    Image.fromarray(make_photo(*SIZES[0])).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:2000])
    with pytest.raises(UserError, match=r"b\.png, cannot be decoded"):
        detect(Image.open(tmp_path / "b.png"))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"score_threshold": 1.5}, ValueError, "score_threshold must lie between 0 and 1, not 1.5"),
        ({"score_threshold": float("nan")}, ValueError, "score_threshold"),
        ({"overrides": {"MODEL.DEVICE": "cpu"}}, ValueError, "MODEL.DEVICE is an argument of Detector"),
        (
            {"overrides": {"INPUT.SIZE_TSET": 64}},
            UserError,
            "overrides: .* INPUT.SIZE_TSET; did you mean INPUT.SIZE_TE",
        ),
        ({"overrides": {"INPUT.SIZE_TEST": 0}}, UserError, "INPUT.SIZE_TEST is 0"),
        ({"device": "gpu"}, UserError, "MODEL.DEVICE is 'gpu'"),
        ({"device": "cuda"}, UserError, "device 'cuda': PyTorch finds no GPU here"),
        ({"config_file": "no/such.yaml"}, UserError, "no/such.yaml"),
        ({"config_file": ROOT / "configs/coco/yolov5n.yaml"}, UserError, "weights.pth"),
    ],
)
def test_wrong_arguments(weights_file, monkeypatch, arguments, error, sentence):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(error, match=sentence):
        Detector(weights_file, **arguments)


def test_without_a_config(weights_file, detect, tmp_path, monkeypatch):
    loaded = read_weights(weights_file)
    bare = tmp_path / "bare.pth"
    write_weights(str(bare), Weights(str(bare), loaded.state_dict, class_names=["cat", "dog"], category_ids=[7, 3]))
    with pytest.raises(UserError, match=r"bare\.pth fit no such model; nearest is .*yolov5"):
        Detector(bare)
    config = tmp_path / "own.yaml"
    yolo = "{WIDTH_MULTIPLE: 0.125, NUM_CLASSES: 2}"
    config.write_text(f"MODEL: {{DEVICE: cpu, YOLO: {yolo}}}\nINPUT: {{SIZE_TEST: 96}}\n")
    photo = make_photo(*SIZES[0])
    assert_same(Detector(bare, config_file=config)(photo), detect(photo))
    monkeypatch.setattr(detector, "_COCO_CONFIGS", tmp_path / "none")
    with pytest.raises(UserError, match=r"carry no config, .*config_file"):
        Detector(bare)


def test_missing_weights():
    with pytest.raises(UserError, match=r"weights no/such\.pth do not exist"):
        Detector("no/such.pth")


def test_a_published_file():
    weights, photo = SHARED / "parity/yolov5n.pt", SHARED / "data/photos/bus.jpg"
    if not (weights.is_file() and photo.is_file()):
        pytest.skip("the published weights or the photograph are not here (../shared)")
    found = Detector(weights, device="cpu")(photo)
    np.testing.assert_allclose(found.scores, [0.8758, 0.8047, 0.7870, 0.5191, 0.4918], rtol=0, atol=0.005)
    assert found.class_names == ["person"] * 4 + ["bus"]
    assert [row["category_id"] for row in found.to_coco(1)] == [1, 1, 1, 1, 6]  # COCO's ids


def test_the_name_of_the_package():
    assert parking.Detector is Detector and "Detector" in dir(parking)


def test_the_examples_of_the_documentation_run(weights_file, tmp_path, monkeypatch, capsys):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/python.md").read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 5 and "from parking import Detector" in blocks[0]
    loaded = read_weights(weights_file)
    # The model's statistics were taken from texture of the size of this photo.
    config = {**loaded.config, "INPUT": {"SIZE_TEST": 320}}
    write_weights(str(tmp_path / "weights.pth"), dataclasses.replace(loaded, config=config))
    Image.fromarray(make_photo(240, 320)).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "supervision", types.SimpleNamespace(Detections=dict))
    names = {}
    for block in blocks:
        exec(compile(block, "docs/python.md", "exec"), names)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"(cat|dog) [01]\.\d\d at \[ *(\d+\. *){4}\]", lines[0])
    assert "['cat', 'dog']" in lines and "[7, 3]" in lines
    assert (tmp_path / "drawn.jpg").is_file() and names["pixels"].shape == (240, 320, 3)
    assert names["results"] and names["tracked"]["xyxy"].shape == names["detections"].boxes.shape
