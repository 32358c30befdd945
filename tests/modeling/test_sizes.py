"""Every size, built from its yaml, has the published number of parameters at 80 classes."""

from pathlib import Path

import pytest
import torch

from parking.config import get_cfg
from parking.modeling import YOLO

CONFIGS = Path(__file__).resolve().parents[2] / "configs/yolov5"
PARAMETERS = {
    "n": 1_872_157,
    "s": 7_235_389,
    "m": 21_190_557,
    "l": 46_563_709,
    "x": 86_749_405,
    "n6": 3_246_940,
    "s6": 12_626_620,
    "m6": 35_731_932,
    "l6": 76_770_172,
    "x6": 140_794_780,
}


def build(cfg):
    cfg.MODEL.YOLO.NUM_CLASSES = 80
    with torch.device("meta"):  # shapes only: the largest would take a second and half a gigabyte
        return YOLO(cfg)


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_yaml_is_listed():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(PARAMETERS)


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters(size):
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / f"{size}.yaml"))
    model = build(cfg)
    assert num_parameters(model) == PARAMETERS[size]
    assert model.backbone.size_divisibility == (64 if size.endswith("6") else 32)
    assert model.head.strides == [8, 16, 32, 64][: len(model.head_in_features)]


def test_parameters_of_pico():
    cfg = get_cfg()
    cfg.MODEL.YOLO.DEPTH_MULTIPLE, cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.33, 0.125
    assert num_parameters(build(cfg)) == 499_981
