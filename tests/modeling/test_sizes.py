"""Every size, built from its yaml, has the published number of parameters at 80 classes."""

from pathlib import Path

import pytest
import torch

from parking.config import get_cfg
from parking.modeling import YOLO

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# By family and size: files of configs/, and how the config of the published weights in configs/coco/ is called.
PARAMETERS = {
    "yolov5/n": 1_872_157,
    "yolov5/s": 7_235_389,
    "yolov5/m": 21_190_557,
    "yolov5/l": 46_563_709,
    "yolov5/x": 86_749_405,
    "yolov5/n6": 3_246_940,
    "yolov5/s6": 12_626_620,
    "yolov5/m6": 35_731_932,
    "yolov5/l6": 76_770_172,
    "yolov5/x6": 140_794_780,
    "yolox/nano": 912_159,
    "yolox/tiny": 5_055_855,
    "yolox/s": 8_968_255,
    "yolox/m": 25_326_495,
    "yolox/l": 54_208_895,
    "yolox/x": 99_071_455,
}
COCO_NAMES = {"yolov5": "yolov5{}", "yolox": "yolox_{}"}


def build(cfg):
    cfg.MODEL.YOLO.NUM_CLASSES = 80
    with torch.device("meta"):  # shapes only: the largest would take a second and half a gigabyte
        return YOLO(cfg)


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_yaml_is_listed():
    found = {f"{family}/{path.stem}" for family in COCO_NAMES for path in (CONFIGS / family).glob("*.yaml")}
    assert found == set(PARAMETERS)
    named = {COCO_NAMES[family].format(size) for family, _, size in (key.partition("/") for key in PARAMETERS)}
    assert {path.stem for path in (CONFIGS / "coco").glob("*.yaml")} == named


@pytest.mark.parametrize("key", PARAMETERS)
def test_parameters(key):
    family, _, size = key.partition("/")
    for file in (f"{key}.yaml", f"coco/{COCO_NAMES[family]}.yaml".format(size)):
        cfg = get_cfg()
        cfg.merge_from_file(str(CONFIGS / file))
        model = build(cfg)
        assert num_parameters(model) == PARAMETERS[key]
        assert model.backbone.size_divisibility == (64 if size.endswith("6") else 32)
        assert model.head.strides == [8, 16, 32, 64][: len(model.head_in_features)]
    assert cfg.MODEL.WEIGHTS.startswith(f"weights/{COCO_NAMES[family]}.pt".format(size))
    assert (416 if size in ("nano", "tiny") else 1280 if size.endswith("6") else 640) == cfg.INPUT.SIZE_TEST


def test_parameters_of_pico():
    cfg = get_cfg()
    cfg.MODEL.YOLO.DEPTH_MULTIPLE, cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.33, 0.125
    assert num_parameters(build(cfg)) == 499_981
