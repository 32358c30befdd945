"""Every size, built from its yaml, has the published number of parameters at 80 classes."""

from pathlib import Path

import pytest
import torch

from parking.config import get_cfg
from parking.modeling import YOLO

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
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
    "yolov5u/n": 2_654_816,
    "yolov5u/s": 9_153_152,
    "yolov5u/m": 25_111_456,
    "yolov5u/l": 53_225_024,
    "yolov5u/x": 97_276_448,
    "yolov5u/n6": 4_334_896,
    "yolov5u/s6": 15_309_328,
    "yolov5u/m6": 41_222_064,
    "yolov5u/l6": 86_099_920,
    "yolov5u/x6": 155_544_432,
    "yolox/nano": 912_159,
    "yolox/tiny": 5_055_855,
    "yolox/s": 8_968_255,
    "yolox/m": 25_326_495,
    "yolox/l": 54_208_895,
    "yolox/x": 99_071_455,
}
# Constants that the published numbers count as parameters: the bins of the distribution head.
CONSTANTS = {"yolov5u": 16}
#: The config for the published weights with COCO's classes, by family.
COCO = {"yolov5": "coco/yolov5{}.yaml", "yolov5u": "coco/yolov5{}u.yaml", "yolox": "coco/yolox_{}.yaml"}


def build(cfg):
    cfg.MODEL.YOLO.NUM_CLASSES = 80
    with torch.device("meta"):  # shapes only: the largest would take a second and half a gigabyte
        return YOLO(cfg)


def read(file):
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / file))
    return cfg


def num_parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_every_yaml_is_listed():
    found = {f"{family}/{path.stem}" for family in COCO for path in (CONFIGS / family).glob("*.yaml")}
    assert found == set(PARAMETERS)
    for_coco = {COCO[family].format(size) for family, size in (name.split("/") for name in PARAMETERS)}
    assert {f"coco/{path.name}" for path in (CONFIGS / "coco").glob("*.yaml")} == for_coco


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    family, size = name.split("/")
    own, for_coco = read(f"{name}.yaml"), read(COCO[family].format(size))
    assert for_coco.MODEL.YOLO.NUM_CLASSES == 80
    for cfg in (own, for_coco):
        model = build(cfg)
        assert num_parameters(model) + CONSTANTS.get(family, 0) == PARAMETERS[name]
        assert model.backbone.size_divisibility == (64 if size.endswith("6") else 32)
        assert model.head.strides == [8, 16, 32, 64][: len(model.head_in_features)]
        assert (416 if size in ("nano", "tiny") else 1280 if size.endswith("6") else 640) == cfg.INPUT.SIZE_TEST
    assert for_coco.MODEL.WEIGHTS.rpartition(".")[0] == f"weights/{Path(COCO[family].format(size)).stem}"


def test_test_time_settings_are_the_published_ones():
    for name in PARAMETERS:
        yolo, test = read(f"{name}.yaml").MODEL.YOLO, read(f"{name}.yaml").TEST
        assert (0.7 if name.startswith("yolov5u/") else 0.65) == yolo.NMS_THRESH_TEST
        assert (yolo.SCORE_THRESH_TEST, yolo.MULTI_LABEL_TEST, test.DETECTIONS_PER_IMAGE) == (0.001, True, 300)


@pytest.mark.parametrize("size", ["n", "n6", "s", "x"])
def test_weights_of_80_classes_fit_any_number_of_classes(size):
    """All but the rows of the classes have one shape."""
    shapes = []
    for num_classes in (80, 1, 150):
        cfg = read(f"yolov5u/{size}.yaml")
        cfg.MODEL.YOLO.NUM_CLASSES = num_classes
        with torch.device("meta"):
            model = YOLO(cfg)
        rows = {f"head.{name}" for name in model.head.class_rows()}
        shapes.append({name: tensor.shape for name, tensor in model.state_dict().items() if name not in rows})
    assert shapes[0] == shapes[1] == shapes[2]


def test_parameters_of_pico():
    cfg = get_cfg()
    cfg.MODEL.YOLO.DEPTH_MULTIPLE, cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.33, 0.125
    assert num_parameters(build(cfg)) == 499_981
