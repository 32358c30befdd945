"""Keys of detectron2's backbones, and features that do not go together."""

import re

import pytest
import torch

from parking.config import Task, get_cfg
from parking.config.checks import check_values
from parking.utils.constants import DETECTRON2_BACKBONES, RESNET, RESNET_FPN, RETINANET_FPN
from parking.utils.errors import UserError

CSP = "build_csp_darknet_pafpn_backbone"


def make(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(list(opts))
    return cfg


@pytest.mark.parametrize(
    ("key", "value", "readers"),
    [
        ("MODEL.RESNETS.NUM_GROUPS", "2", DETECTRON2_BACKBONES),
        ("MODEL.BACKBONE.FREEZE_AT", "2", DETECTRON2_BACKBONES),
        ("MODEL.FPN.FUSE_TYPE", "avg", (RESNET_FPN, RETINANET_FPN)),
        ("MODEL.YOLO.WIDTH_MULTIPLE", "1.0", (CSP,)),
        ("MODEL.YOLO.DEPTH_MULTIPLE", "1.0", (CSP,)),
        ("MODEL.CSP_DARKNET.LAYOUT", "yolox", (CSP,)),
        ("MODEL.PAFPN.IN_FEATURES", "['dark4','dark5']", (CSP,)),
    ],
)
def test_keys_that_the_backbone_does_not_read_are_refused(key, value, readers):
    # Someone's own backbone, registered under any name, may be made of the parts of others.
    for name in (CSP, *DETECTRON2_BACKBONES, "build_other_backbone"):
        cfg = make(key, value, "MODEL.BACKBONE.NAME", name)
        if name in (*readers, "build_other_backbone"):
            check_values(cfg, Task.INFER)
            continue
        for task in Task:
            with pytest.raises(UserError, match=rf"{re.escape(key)} is .*MODEL\.BACKBONE\.NAME.*{readers[0]}"):
                check_values(cfg, task)


def test_a_carried_config_brings_its_keys(tmp_path):
    from parking.config.plain import describe_config
    from parking.inference.models import find_config_and_weights

    cfg = make("MODEL.BACKBONE.NAME", RESNET_FPN, "MODEL.RESNETS.DEPTH", "101", "MODEL.YOLO.NUM_CLASSES", "2")
    path = str(tmp_path / "m.pth")
    torch.save({"model": {"a": torch.zeros(1)}, "config": describe_config(cfg)}, path)
    found, _ = find_config_and_weights(None, path, ["MODEL.FPN.FUSE_TYPE", "avg"], default_config="not-read.yaml")
    assert (found.MODEL.RESNETS.DEPTH, found.MODEL.FPN.FUSE_TYPE) == (101, "avg")


@pytest.mark.parametrize(
    ("name", "opts", "message"),
    [
        (RESNET_FPN, {"MODEL.FPN.IN_FEATURES": "['res2','res3','res4','res5']"}, r"names res2.*RESNETS\.OUT_FEATURES"),
        (RESNET_FPN, {"MODEL.FPN.IN_FEATURES": "['res3','res4']"}, r"MODEL\.FPN\.IN_FEATURES .*up to res5"),
        (RETINANET_FPN, {"MODEL.FPN.IN_FEATURES": "['res3','res5']"}, r"MODEL\.FPN\.IN_FEATURES .*up to res5"),
        (RESNET_FPN, {"MODEL.FPN.IN_FEATURES": "['res5','res4']"}, r"MODEL\.FPN\.IN_FEATURES .*up to res5"),
        (RESNET_FPN, {"MODEL.RESNETS.RES5_DILATION": "2"}, r"MODEL\.RESNETS\.RES5_DILATION is 2"),
        (RESNET_FPN, {"MODEL.RESNETS.NORM": "FrozenBN"}, r"MODEL\.RESNETS\.NORM is 'FrozenBN'"),
        (RESNET_FPN, {"MODEL.YOLO.IN_FEATURES": "['p3','p4']"}, r"MODEL\.YOLO\.IN_FEATURES .*lacks p5"),
        (RETINANET_FPN, {}, r"MODEL\.YOLO\.IN_FEATURES .*lacks p6"),
        (RESNET, {"MODEL.YOLO.IN_FEATURES": "['res3','res4']"}, r"MODEL\.YOLO\.IN_FEATURES .*lacks res5"),
    ],
)
def test_features_that_do_not_go_together(name, opts, message):
    cfg = make("MODEL.BACKBONE.NAME", name, *(text for pair in opts.items() for text in pair))
    with pytest.raises(UserError, match=message):
        check_values(cfg, Task.TRAIN)


def test_only_a_training_needs_a_gradient_for_every_level():
    for name in DETECTRON2_BACKBONES:
        cfg = make("MODEL.BACKBONE.NAME", name, "MODEL.YOLO.IN_FEATURES", "['p4']")
        for task in (Task.EVAL, Task.INFER):
            check_values(cfg, task)
