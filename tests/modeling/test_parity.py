"""Equal numbers: whole networks from published files against what the published implementation computed with them.

The numbers are in float32. "Within 1e-4 relative" means: of every single value, or of what is typical of its kind
where a value is nearer to zero than that (a raw output: the mean size of its level; a box: one pixel; a score has no
such floor). The ratio of the norms of difference and expectation is a tighter measure, and is below 1e-6.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torchvision.ops import box_convert

from parking.checkpoint import load_weights, read_weights
from parking.config import get_cfg
from parking.data.build import build_inference_loader
from parking.inference.build import build_inference_model, build_model
from parking.layers import fuse_conv_norm
from parking.modeling import YOLOWithTTA
from parking.modeling.postprocessing import YOLOPostprocessor
from parking.utils.constants import PAD_VALUE

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = ROOT / "../shared/data/photos"
# Weights, numbers, number of classes, and config of one published file and of one with four levels.
CASES = {
    "n": ("yolov5n.pt", "yolov5n_forward.npz", 80, "yolov5/n.yaml"),
    "n6": ("yolov5n6_random_14.pt", "yolov5n6_forward.npz", 14, "yolov5/n6.yaml"),
}
# The same with the distribution head, and random weights. CLASS_CHANNELS is as published for that number of classes.
CASES_U = {
    "nu": ("yolov5nu_random_80.pt", "yolov5nu_random_80_forward.npz", 80, "yolov5u/n.yaml"),
    "n6u": ("yolov5n6u_random_14.pt", "yolov5n6u_random_14_forward.npz", 14, "yolov5u/n6.yaml"),
}
FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


@pytest.fixture(scope="module")
def build(parity_dir):
    """``build(size, fused=..., memory_format=...)``: the model in eval mode, made once."""
    made = {}

    def build(size, *, fused=False, memory_format="contiguous"):
        key = size, fused, memory_format
        if key not in made:
            file, _, num_classes, config = {**CASES, **CASES_U}[size]
            cfg = get_cfg()
            cfg.merge_from_file(str(ROOT / "configs" / config))
            cfg.MODEL.DEVICE, cfg.MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS = "cpu", 0
            cfg.MODEL.YOLO.NUM_CLASSES = num_classes
            model = build_model(cfg)
            load_weights(model, read_weights(parity_dir / file))
            model = model.eval().to(memory_format=FORMATS[memory_format])
            made[key] = fuse_conv_norm(model) if fused else model
        return made[key]

    return build


@pytest.fixture(scope="module")
def numbers(parity_dir):
    """``numbers(file)``: its arrays as tensors."""

    def load(file):
        with np.load(parity_dir / file) as data:
            return {key: torch.from_numpy(data[key]) for key in data}

    return load


def images_of(data, model, memory_format):
    return model.normalize(data["image_rgb_uint8"].float()).to(memory_format=FORMATS[memory_format])


def relative_error(actual, expected) -> float:
    return ((actual.double() - expected.double()).norm() / expected.double().norm()).item()


def assert_raw_equal(actual, expected):
    assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.abs().mean().item())
    assert relative_error(actual, expected) < 1e-6


def assert_decoded_equal(actual, expected):
    """``expected``: (N, P, 5 + C) cx, cy, w, h, objectness, probability of each class."""
    boxes = box_convert(actual.boxes, "xyxy", "cxcywh")
    assert_close(boxes, expected[..., :4], rtol=1e-4, atol=1e-4)
    assert relative_error(boxes, expected[..., :4]) < 1e-6
    scores = expected[..., 4:5] * expected[..., 5:]
    for ours, published in ((actual.upper_bound, expected[..., 4]), (actual.scores, scores)):
        assert_close(ours, published, rtol=1e-4, atol=0)
        # Scores are small, the sigmoid steep there: measured 1.5e-6.
        assert relative_error(ours, published) < 5e-6


every_form = pytest.mark.parametrize(
    ("fused", "memory_format"),
    [(False, "contiguous"), (False, "channels_last"), (True, "contiguous"), (True, "channels_last")],
)


@every_form
@pytest.mark.parametrize("size", CASES)
@torch.no_grad()
def test_network_and_decoding(build, numbers, size, fused, memory_format):
    model, data = build(size, fused=fused, memory_format=memory_format), numbers(CASES[size][1])
    features = model.backbone(images_of(data, model, memory_format))
    raw = model.head([features[name] for name in model.head_in_features])
    assert [f"raw_{name}" for name in model.head_in_features] == [key for key in data if key.startswith("raw_")]
    for name, level in zip(model.head_in_features, raw, strict=True):
        assert_raw_equal(level, data[f"raw_{name}"])
    assert_decoded_equal(model.head.decode(raw), data["decoded"])


@pytest.mark.parametrize("size", CASES)
def test_decoding_alone(build, numbers, size, monkeypatch):
    """From the published raw outputs: nothing but the anchors in the file has a part in it."""
    # As cx, cy, w, h: corners are sums, whose error in proportion to them has no bound.
    monkeypatch.setattr("parking.modeling.dense_heads.anchor.head.box_convert", lambda boxes, *_: boxes)
    model, expected = build(size), numbers(CASES[size][1])
    found = model.head.decode([expected[f"raw_{name}"] for name in model.head_in_features])
    decoded = expected["decoded"]
    assert_close(found.boxes, decoded[..., :4], rtol=1e-6, atol=1e-5)
    assert_close(found.upper_bound, decoded[..., 4], rtol=1e-6, atol=0)
    assert_close(found.scores, decoded[..., 4:5] * decoded[..., 5:], rtol=1e-6, atol=0)


def assert_decoded_u_equal(actual, expected):
    """``expected``: (N, P, 4 + C) cx, cy, w, h, probability of each class."""
    boxes = box_convert(actual.boxes, "xyxy", "cxcywh")
    assert_close(boxes, expected[..., :4], rtol=1e-4, atol=1e-4)
    assert_close(actual.scores, expected[..., 4:], rtol=1e-4, atol=0)
    assert relative_error(boxes, expected[..., :4]) < 1e-6
    assert relative_error(actual.scores, expected[..., 4:]) < 5e-6


@every_form
@pytest.mark.parametrize("size", CASES_U)
@torch.no_grad()
def test_network_and_decoding_of_the_distribution_head(build, numbers, size, fused, memory_format):
    model, data = build(size, fused=fused, memory_format=memory_format), numbers(CASES_U[size][1])
    features = model.backbone(images_of(data, model, memory_format))
    raw = model.head([features[name] for name in model.head_in_features])
    for kind, levels in zip(("boxes", "scores"), zip(*raw, strict=True), strict=True):
        assert_raw_equal(torch.cat([level.flatten(2) for level in levels], dim=2), data[f"{kind}_raw"])
    assert_decoded_u_equal(model.head.decode(raw), data["decoded"])


@pytest.mark.parametrize(("fused", "memory_format"), [(False, "contiguous"), (True, "channels_last")])
@pytest.mark.parametrize("size", CASES_U)
@torch.no_grad()
def test_joined_views_of_the_distribution_head(build, numbers, size, fused, memory_format):
    model, data = build(size, fused=fused, memory_format=memory_format), numbers(CASES_U[size][1])
    assert_decoded_u_equal(YOLOWithTTA(model).predict(images_of(data, model, memory_format)), data["augmented"])


@pytest.mark.parametrize(("conf", "iou"), [("0.25", "0.45"), ("0.001", "0.7")])
@pytest.mark.parametrize("size", CASES_U)
@torch.no_grad()
def test_boxes_of_the_distribution_head(build, numbers, size, conf, iou):
    """From pixels to boxes: the same ones, in the same order."""
    model, data = build(size), numbers(CASES_U[size][1])
    images = images_of(data, model, "contiguous")
    postprocessor = YOLOPostprocessor(
        score_thresh=float(conf), nms_thresh=float(iou), max_detections=300, multi_label=conf == "0.001"
    )
    for i, found in enumerate(postprocessor(model.predict(images), [tuple(images.shape[-2:])] * len(images))):
        rows = data[f"nms_conf{conf}_iou{iou}_max300_image{i}"]
        assert found.pred_classes.tolist() == rows[:, 5].tolist()
        assert_close(found.scores, rows[:, 4], rtol=1e-4, atol=0)
        assert_close(found.pred_boxes.tensor, rows[:, :4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("fused", "memory_format"), [(False, "contiguous"), (True, "channels_last")])
@torch.no_grad()
def test_joined_views(build, numbers, fused, memory_format):
    model = build("n", fused=fused, memory_format=memory_format)
    images = images_of(numbers("yolov5n_forward.npz"), model, memory_format)
    assert_decoded_equal(YOLOWithTTA(model).predict(images), numbers("yolov5n_tta.npz")["augmented"])


@torch.no_grad()
def test_boxes_of_the_whole_chain(build, numbers):
    """From pixels to boxes, best class above 0.25: of thousands of faint boxes, two nearly equal ones could swap."""
    model, expected = build("n"), numbers("yolov5n_nms.npz")
    images = images_of(numbers("yolov5n_forward.npz"), model, "contiguous")
    postprocessor = YOLOPostprocessor(score_thresh=0.25, nms_thresh=0.45, max_detections=1000, multi_label=False)
    for i, found in enumerate(postprocessor(model.predict(images), [tuple(images.shape[-2:])] * len(images))):
        boxes, scores, classes = found.pred_boxes.tensor, found.scores, found.pred_classes
        rows = expected[f"plain_conf0.25_iou0.45_max1000_image{i}"]
        assert classes.tolist() == rows[:, 5].tolist()
        assert_close(scores, rows[:, 4], rtol=1e-4, atol=0)
        assert_close(boxes, rows[:, :4], rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def detect(parity_dir):
    """``detect(photo)``: what inference with the published config finds: [(class name, score)], best first."""
    if not PHOTOS.is_dir():
        pytest.skip("the photographs are not here (../shared/data/photos)")
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/coco/yolov5n.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "MODEL.YOLO.MULTI_LABEL_TEST", "False"])
    cfg.merge_from_list(["MODEL.YOLO.SCORE_THRESH_TEST", "0.25", "MODEL.YOLO.NMS_THRESH_TEST", "0.45"])
    weights = read_weights(parity_dir / "yolov5n.pt")
    model = build_inference_model(cfg, weights)

    def detect(photo, *, rows_above=0):
        (batch,) = build_inference_loader(cfg, [[{"file_name": str(PHOTOS / photo), "image_id": 1}]], [0])
        batch[0]["image"] = F.pad(batch[0]["image"], (0, 0, rows_above, 0), value=PAD_VALUE)
        with torch.no_grad():
            found = model(batch)[0]["instances"]
        names = [weights.class_names[c] for c in found.pred_classes.tolist()]
        return list(zip(names, found.scores.tolist(), strict=True))

    return detect


def test_a_photograph_with_a_bus(detect):
    # 810 x 1080 becomes 480 x 640, whole strides: no padding, whose place could make a difference.
    found = detect("bus.jpg")
    assert [name for name, _ in found] == ["person"] * 4 + ["bus"]
    np.testing.assert_allclose([score for _, score in found], [0.876, 0.805, 0.787, 0.519, 0.492], rtol=0, atol=0.005)


def test_a_photograph_of_two_persons(detect):
    # 1280 x 720 becomes 640 x 360, which needs 24 rows of padding. Ours are below; there a third find is too faint.
    assert [name for name, _ in detect("zidane.jpg")] == ["person", "person"]
    # The published pipeline has 12 above and 12 below, and finds "2 persons and more" so.
    found = [name for name, _ in detect("zidane.jpg", rows_above=12)]
    assert found[:2] == ["person", "person"] and len(found) > 2 and "person" not in found[2:]
