"""Keys of detectron2's backbones are in a config only while it names one of them."""

import pytest
import torch
from detectron2.config import get_cfg as get_detectron2_cfg

from parking.config import Task, get_cfg, get_typed
from parking.config.backbones import BACKBONE_KEYS, CSP_DARKNET_KEYS
from parking.config.checks import check_values, find_value
from parking.utils.constants import DETECTRON2_BACKBONES, RESNET, RESNET_FPN, RETINANET_FPN
from parking.utils.errors import UserError

CSP = "build_csp_darknet_pafpn_backbone"
FPN_KEYS = {key for key in BACKBONE_KEYS if key.startswith("MODEL.FPN.")}


def make(*opts):
    cfg = get_cfg()
    cfg.merge_from_list(list(opts))
    return cfg


def backbone_keys(cfg):
    return (BACKBONE_KEYS | CSP_DARKNET_KEYS) & set(cfg.keys_in_full())


def test_the_keys_are_detectron2s_and_come_and_go_with_the_name():
    detectron2s = get_detectron2_cfg()
    for key in BACKBONE_KEYS:
        find_value(detectron2s, key)
    expected = {
        CSP: CSP_DARKNET_KEYS,
        RESNET: BACKBONE_KEYS - FPN_KEYS,
        RESNET_FPN: BACKBONE_KEYS,
        RETINANET_FPN: BACKBONE_KEYS,
    }
    cfg = get_cfg()
    for name in (*expected, *reversed(expected), CSP):
        cfg.merge_from_list(["MODEL.BACKBONE.NAME", name])
        assert backbone_keys(cfg) == expected[name]
    assert cfg == get_cfg()
    # Someone's own backbone, registered under any name, may be made of the parts of this project's.
    assert backbone_keys(make("MODEL.BACKBONE.NAME", "build_other_backbone")) == CSP_DARKNET_KEYS
    make("MODEL.BACKBONE.NAME", RESNET).MODEL.RESNETS.OUT_FEATURES.append("x")
    assert make("MODEL.BACKBONE.NAME", RESNET).MODEL.RESNETS.OUT_FEATURES == ["res3", "res4", "res5"]


def test_what_is_typed_may_be_in_any_order_and_beside_a_file(tmp_path):
    opts = ["MODEL.RESNETS.DEPTH", "101", "MODEL.BACKBONE.NAME", f"'{RESNET_FPN}'", "MODEL.FPN.NORM", "GN"]
    cfg = make(*opts)
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.FPN.NORM, cfg.MODEL.BACKBONE.NAME) == (101, "GN", RESNET_FPN)
    assert get_typed(opts[:2], "MODEL.WEIGHTS") is None, "the name may be in a file"
    (tmp_path / "base.yaml").write_text(f"MODEL: {{BACKBONE: {{NAME: {RESNET_FPN}}}, RESNETS: {{DEPTH: 34}}}}\n")
    (tmp_path / "top.yaml").write_text("_BASE_: base.yaml\nMODEL: {FPN: {OUT_CHANNELS: 64}}\n")
    cfg = get_cfg()
    cfg.merge_from_file(str(tmp_path / "top.yaml"))
    cfg.merge_from_list(["MODEL.BACKBONE.FREEZE_AT", "1"])
    assert (cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.FPN.OUT_CHANNELS, cfg.MODEL.BACKBONE.FREEZE_AT) == (34, 64, 1)
    (tmp_path / "dump.yaml").write_text(cfg.dump())
    again = get_cfg()
    again.merge_from_file(str(tmp_path / "dump.yaml"))
    assert again == cfg


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"MODEL": {"RESNETS": {"DEPTH": 18}}}, rf"MODEL\.RESNETS; .*MODEL\.BACKBONE\.NAME.*{RESNET_FPN}"),
        ({"MODEL": {"BACKBONE": {"FREEZE_AT": 0}}}, rf"MODEL\.BACKBONE\.FREEZE_AT; .*{RESNET}"),
        ({"MODEL": {"BACKBONE": {"NAME": CSP}, "FPN": {"NORM": ""}}}, r"MODEL\.FPN; .*MODEL\.BACKBONE\.NAME"),
        ({"MODEL": {"BACKBONE": {"NAME": RESNET}, "FPN": {"NORM": ""}}}, rf"MODEL\.FPN; .*{RETINANET_FPN}"),
        ({"MODEL": {"BACKBONE": {"NAME": "build_mnasnet_backbone"}, "RESNETS": {}}}, r"MODEL\.RESNETS; "),
        ({"MODEL": {"BACKBONE": {"NAME": RESNET}, "RESNETS": {"DEPTHS": 1}}}, r"DEPTHS; did you mean \S+\.DEPTH\?"),
        (
            {"MODEL": {"BACKBONE": {"NAME": RESNET}, "YOLO": {"WIDTH_MULTIPLE": 1.0}}},
            r"WIDTH_MULTIPLE; .*BACKBONE",
        ),
        ({"MODEL": {"BACKBONE": {"NAME": RESNET}, "PAFPN": {}}}, r"MODEL\.PAFPN; MODEL\.BACKBONE\.NAME"),
        ({"MODEL": {"BACKBONE": {"NAME": [RESNET]}}}, r"MODEL\.BACKBONE\.NAME must be of type str"),
        ({"MODEL": {"BACKBONE": {"NAME": None}}}, r"MODEL\.BACKBONE\.NAME must be of type str"),
        ({"MODEL": {"BACKBONE": RESNET}}, r"MODEL\.BACKBONE must be a mapping"),
        ({"MODEL": [1]}, r"MODEL must be a mapping"),
    ],
)
def test_keys_without_their_backbone_are_unknown(config, message):
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_dict(config, source="c.yaml")


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
