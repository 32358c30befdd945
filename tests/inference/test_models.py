import re
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm

from parking.checkpoint import Weights, read_weights
from parking.config import Task, get_cfg
from parking.inference.budget import list_candidates
from parking.inference.models import (
    check_config,
    choose_inference_classes,
    choose_weights,
    find_config_and_weights,
    find_fitting_config,
    resolve_device,
)
from parking.utils.errors import UserError

FOREIGN = [
    (("MODEL", "META_ARCHITECTURE"), "GeneralizedRCNN"),
    (("MODEL", "BACKBONE", "NAME"), "build_transformer_backbone"),
    (("MODEL", "HEAD", "NAME"), "Hydra"),
    (("MODEL", "YOLO", "NORM"), "GN"),
    (("MODEL", "YOLO", "WIDTH_MULTIPLE"), 1e6),
    (("MODEL", "YOLO", "DEPTH_MULTIPLE"), float("inf")),
    (("MODEL", "YOLO", "NUM_CLASSES"), 10**18),
    (("MODEL", "PIXEL_STD"), [0.0, 255.0, 255.0]),
    (("MODEL", "PIXEL_MEAN"), [float("nan"), 0.0, 0.0]),
    (("MODEL", "CSP_DARKNET", "OUT_FEATURES"), ["dark9"]),
    (("MODEL", "PAFPN", "IN_FEATURES"), ["dark3", "dark5"]),
    (("MODEL", "YOLO", "IN_FEATURES"), ["p3", "p4"]),
    (("MODEL", "ANCHOR_HEAD", "ANCHORS"), [[[1.0, 2.0]]]),
    (("INPUT", "SIZE_TEST"), -640),
]


def nest(path, value):
    for part in reversed(path):
        value = {part: value}
    return value


@pytest.mark.parametrize(("path", "value"), FOREIGN, ids=lambda x: str(x)[:40])
def test_what_cannot_work_is_told_by_every_task_and_of_every_origin(path, value, tmp_path):
    cfg = get_cfg()
    cfg.merge_from_dict(nest(path, value), source="test")
    # If there is a level too many or too few, the part that cannot take it is named.
    named = rf"{re.escape('.'.join(path))}|MODEL\.(ANCHOR_HEAD|YOLO\.IN_FEATURES)"
    for task in Task:
        with pytest.raises(UserError, match=named):
            check_config(cfg, task)
    weights_file = tmp_path / "foreign.pth"
    config = nest(path, value)
    torch.save({"model": {"a": torch.zeros(1)}, "config": config, "class_names": ["a"]}, weights_file)
    with pytest.raises(UserError, match=named) as raised:
        find_config_and_weights(None, str(weights_file), [], default_config="not-to-be-read.yaml")
    with pytest.raises(UserError, match=named):
        find_fitting_config(read_weights(str(weights_file)), None, candidates=[])
    if path[-1] in ("META_ARCHITECTURE", "NAME", "PIXEL_STD", "SIZE_TEST", "WIDTH_MULTIPLE"):
        assert "foreign.pth" in str(raised.value)


@pytest.mark.parametrize("width", [65537, 10**9, 10**17])
def test_a_file_may_not_claim_any_width(width, tmp_path):
    """A tensor without elements claims it, at no cost."""
    state = {"head.class_branches.0.0.conv.weight": torch.zeros(width, 0)}
    config = {"MODEL": {"HEAD": {"NAME": "DistributionHead"}}}
    torch.save({"model": state, "config": config, "class_names": ["a"]}, tmp_path / "wide.pth")
    with pytest.raises(UserError, match=rf"MODEL\.DISTRIBUTION_HEAD\.CLASS_CHANNELS is {width} .*wide\.pth"):
        find_fitting_config(read_weights(tmp_path / "wide.pth"), None, candidates=[])


def test_there_may_be_no_config_to_choose_from():
    """Tools do not find configs/coco where the package is installed without the repository."""
    with pytest.raises(UserError, match=r"bare\.pth.*--config-file"):
        find_fitting_config(Weights("bare.pth", {"a": torch.zeros(1)}), None, candidates=[])


def test_what_is_typed_replaces_what_weights_carry(tmp_path):
    weights_file = tmp_path / "m.pth"
    torch.save({"model": {"a": torch.zeros(1)}, "config": {"INPUT": {"SIZE_TEST": 0}}}, weights_file)

    def find(*opts):
        return find_config_and_weights(None, str(weights_file), list(opts), default_config="no.yaml")[0]

    assert find("INPUT.SIZE_TEST", "64").INPUT.SIZE_TEST == 64
    with pytest.raises(UserError, match=r"SIZE_TEST is -1; it must"):
        find("INPUT.SIZE_TEST", "-1")


@pytest.mark.parametrize(("size", "is_sound"), [([64, 96], True), ([64, 100], False), ([31, 32], False)])
def test_samples_of_whole_strides(size, is_sound):
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = size
    for task in (Task.EVAL, Task.INFER):
        check_config(cfg, task)
    if is_sound:
        check_config(cfg, Task.TRAIN)
    else:
        with pytest.raises(UserError, match=r"INPUT\.SIZE_TRAIN is .* 32 pixels"):
            check_config(cfg, Task.TRAIN)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_the_default_config_in_any_number_of_processes(size, monkeypatch):
    """configs/yolo.yaml has two images in a batch."""
    monkeypatch.setattr(comm, "get_world_size", lambda: size)
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(__file__).resolve().parents[2] / "configs" / "yolo.yaml"))
    for task in (Task.EVAL, Task.INFER):
        check_config(cfg, task)
    assert len(list(list_candidates([cfg]))) == 4
    if 2 % size:
        with pytest.raises(UserError, match=r"SOLVER\.IMS_PER_BATCH is 2"):
            check_config(cfg, Task.TRAIN)
    else:
        check_config(cfg, Task.TRAIN)


def test_a_check_leaves_the_config_and_the_random_generator_as_they_are():
    cfg = get_cfg()
    cfg.MODEL.YOLO.NUM_CLASSES = 0
    cfg.freeze()
    state, before = torch.get_rng_state(), cfg.clone()
    check_config(cfg, Task.TRAIN)
    assert torch.equal(torch.get_rng_state(), state) and cfg == before


def test_of_weights_that_are_typed_twice_the_last_count(make_weights, tmp_path):
    first, last = (make_weights(tmp_path / name) for name in ("first.pth", "last.pth"))
    opts = ["MODEL.WEIGHTS", str(first), "INPUT.SIZE_TEST", "64", "MODEL.WEIGHTS", f"'{last}'"]
    cfg = get_cfg()
    cfg.merge_from_list(opts)
    assert choose_weights(cfg, opts) == str(last)
    found, weights = find_config_and_weights(None, None, opts, default_config="not-to-be-read.yaml")
    assert weights.path == str(last) == found.MODEL.WEIGHTS
    # A key in the place of a value is a value.
    assert choose_weights(cfg, ["MODEL.WEIGHTS", str(last), "OUTPUT_DIR", "MODEL.WEIGHTS"]) == str(last)


def test_a_gpu_that_is_not_there(monkeypatch):
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cuda:2"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"MODEL\.DEVICE is 'cuda:2', .* 2 GPUs"):
        resolve_device(cfg)
    cfg.MODEL.DEVICE = "cuda:1"
    resolve_device(cfg)
    assert cfg.MODEL.DEVICE == "cuda:1"


def test_weights_without_class_names_take_those_of_a_data_set(tmp_path):
    cfg = get_cfg()
    cfg.MODEL.YOLO.NUM_CLASSES = 2
    nameless = Weights("nameless.pth", {"a": torch.zeros(1)})
    with pytest.raises(UserError, match=r"nameless\.pth carry no class names.*DATASETS\.COCO"):
        choose_inference_classes(cfg, nameless)
    (tmp_path / "own.json").write_text(
        '{"images": [], "annotations": [], "categories": [{"id": 9, "name": "b"}, {"id": 4, "name": "a"}]}'
    )
    name = tmp_path.name
    cfg.DATASETS.COCO = [[name, str(tmp_path / "own.json"), str(tmp_path)]]
    cfg.DATASETS.TRAIN = (name,)
    assert choose_inference_classes(cfg, nameless) == (["a", "b"], [4, 9])
    cfg.MODEL.YOLO.NUM_CLASSES = 3
    with pytest.raises(UserError, match="NUM_CLASSES"):
        choose_inference_classes(cfg, nameless)
