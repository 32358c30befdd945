"""Configs of older versions are translated, by the real table and by the table of a made-up later version."""

import copy
import json
import logging
from collections import Counter

import pytest
import safetensors.torch
import torch
from detectron2.utils import logger

from parking.checkpoint import read_weights
from parking.config import compat, get_cfg, get_typed
from parking.config.compat import Upgrade, upgrade_config, upgrade_key, upgrade_tensor_name
from parking.config.plain import flatten
from parking.utils.errors import UserError

LATER = {
    **compat.UPGRADES,
    3: Upgrade(
        keys={"MODEL.YOLO.DEPTH_PERCENT": "MODEL.YOLO.DEPTH_FACTOR", "AUGMENT": "INPUT.AUG"},
        values={"MODEL.YOLO.DEPTH_PERCENT": lambda value: value / 100},
        earlier_behaviour={"TEST.BLENDING.NAME": "wbf"},
        tensors=[(r"trunk\.(\d+)\.(.+)", r"backbone.stage\1.\2")],
    ),
    4: Upgrade(
        keys={"MODEL.YOLO.DEPTH_FACTOR": "MODEL.YOLO.DEPTH_MULTIPLE", "TEST.BLENDING": "TEST.FUSION"},
        tensors=[(r"backbone\.stage1\.(.+)", r"backbone.first.\1")],
    ),
}


@pytest.fixture
def later(monkeypatch):
    """As if this were two versions later, and some keys of today were called otherwise before."""
    monkeypatch.setattr(compat, "UPGRADES", LATER)
    monkeypatch.setattr(compat, "CURRENT_VERSION", 5)
    # Let warnings appear again although other tests caused them before or set up the loggers.
    monkeypatch.setattr(logger, "_LOG_COUNTER", Counter())
    monkeypatch.setattr(logging.getLogger("parking"), "propagate", True)


def test_the_present_table_has_a_row_for_each_version_and_its_keys_exist():
    assert sorted(compat.UPGRADES) == list(range(compat.FIRST_VERSION, compat.CURRENT_VERSION))
    keys = set(dict(flatten(get_cfg())))
    assert set(compat.earlier_behaviour()) <= keys
    for upgrade in compat.UPGRADES.values():
        assert not set(upgrade.keys) & keys
    assert get_cfg().VERSION == compat.CURRENT_VERSION == 3


def test_only_what_is_complete_gets_the_earlier_behaviour():
    assert upgrade_config({"SEED": 1}, "x") == {"SEED": 1, "VERSION": 3}
    upgraded = {"SEED": 1, "INPUT": {"EXIF_ORIENTATION": "ignore"}, "VERSION": 3}
    assert upgrade_config({"SEED": 1}, "x", is_complete=True) == upgraded
    assert upgrade_config(upgraded, "x", is_complete=True) == upgraded
    assert upgrade_config({"VERSION": 3}, "x", is_complete=True) == {"VERSION": 3}
    stated = {"VERSION": 1, "INPUT": {"EXIF_ORIENTATION": "apply"}}
    assert upgrade_config(stated, "x", is_complete=True) == {**stated, "VERSION": 3}
    # A malformed config is refused where it is merged.
    assert upgrade_config({"INPUT": 3}, "x", is_complete=True) == {"INPUT": 3, "VERSION": 3}


@pytest.mark.parametrize(
    "version", [4, "4", 10**5000, 0, -1, True, 2.0, None, "new", [2], {"a": 2}], ids=lambda value: type(value).__name__
)
def test_a_version_that_is_none_or_of_the_future(tmp_path, version):
    path = tmp_path / "c.yaml"
    with pytest.raises(UserError, match=r"^command line: VERSION is ") as raised:
        get_cfg().merge_from_dict({"VERSION": version}, source="command line")
    assert len(str(raised.value)) < 300 and str(raised.value).count(". ") == 0
    if version == 10**5000:
        return
    path.write_text(json.dumps({"VERSION": version}))
    (tmp_path / "top.yaml").write_text("_BASE_: c.yaml\nVERSION: 3\n")
    for name in ("c.yaml", "top.yaml"):
        with pytest.raises(UserError, match=r"^config file \S*c\.yaml: VERSION is "):
            get_cfg().merge_from_file(str(tmp_path / name))
    with pytest.raises(UserError, match=r"^weights \S*m\.pth: VERSION is "):
        torch.save({"model": {"a": torch.zeros(1)}, "config": {"VERSION": version}}, tmp_path / "m.pth")
        read_weights(tmp_path / "m.pth")


def test_files_may_be_of_different_versions(later, tmp_path, caplog):
    old = "MODEL: {YOLO: {DEPTH_PERCENT: 50, NUM_CLASSES: 3}}\nAUGMENT: {SCALE: 0.25, SHEAR: 1}\n"
    (tmp_path / "first.yaml").write_text(old)
    (tmp_path / "second.yaml").write_text(
        "VERSION: 4\n_BASE_: first.yaml\nMODEL: {YOLO: {DEPTH_FACTOR: 0.75}}\nINPUT: {AUG: {SHEAR: 2.0}}\n"
    )
    (tmp_path / "third.yaml").write_text("VERSION: 5\n_BASE_: second.yaml\nINPUT: {AUG: {SCALE: 0.125}}\n")
    expected = {"first": (0.5, 0.25, 1.0), "second": (0.75, 0.25, 2.0), "third": (0.75, 0.125, 2.0)}
    for name, values in expected.items():
        cfg = get_cfg()
        cfg.merge_from_file(str(tmp_path / f"{name}.yaml"))
        yolo, aug = cfg.MODEL.YOLO, cfg.INPUT.AUG
        assert values == (yolo.DEPTH_MULTIPLE, aug.SCALE, aug.SHEAR)
        assert (yolo.NUM_CLASSES, cfg.VERSION, cfg.TEST.FUSION.NAME) == (3, 5, "nms")
    (tmp_path / "wrong.yaml").write_text("VERSION: 5\n" + old)
    with pytest.raises(UserError, match=r"wrong\.yaml: .* MODEL\.YOLO\.DEPTH_PERCENT;"):
        get_cfg().merge_from_file(str(tmp_path / "wrong.yaml"))
    assert (tmp_path / "first.yaml").read_text() == old


def test_what_users_type_is_translated_and_told_once(later, caplog):
    opts = ["MODEL.YOLO.DEPTH_PERCENT", "50", "AUGMENT.SCALE", "0.25", "MODEL.YOLO.DEPTH_FACTOR", "0.75"]
    for _ in range(3):
        cfg = get_cfg()
        cfg.merge_from_list(opts)
        assert (cfg.MODEL.YOLO.DEPTH_MULTIPLE, cfg.INPUT.AUG.SCALE) == (0.75, 0.25)
    assert get_typed(opts[:4], "MODEL.YOLO.DEPTH_MULTIPLE") == 0.5
    assert get_typed(opts, "INPUT.AUG.SCALE") == 0.25
    assert get_typed(opts, "INPUT.AUG.SHEAR") is None
    warnings = sorted(record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    names = [("AUGMENT", "INPUT.AUG"), ("MODEL.YOLO.DEPTH_FACTOR", "MODEL.YOLO.DEPTH_MULTIPLE")]
    names += [("MODEL.YOLO.DEPTH_PERCENT", "MODEL.YOLO.DEPTH_FACTOR")]
    for warning, (old, new) in zip(warnings, names, strict=True):
        assert warning.startswith(f"command line: {old} ") and f" {new} " in warning
    with pytest.raises(UserError, match=r"^command line: MODEL\.YOLO\.DEPTH_PERCENT is 'much'"):
        get_cfg().merge_from_list(["MODEL.YOLO.DEPTH_PERCENT", "much"])
    assert upgrade_key("AUGMENT.SCALE") == "INPUT.AUG.SCALE" and upgrade_key("AUGMENTED.SCALE") == "AUGMENTED.SCALE"
    assert upgrade_key("MODEL.YOLO.DEPTH_PERCENT") == "MODEL.YOLO.DEPTH_MULTIPLE"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"MODEL": {"YOLO": {"DEPTH_PERCENT": 50, "DEPTH_FACTOR": 1.0}}}, r"DEPTH_PERCENT and \S+DEPTH_FACTOR "),
        ({"AUGMENT": {"SCALE": 0.1}, "INPUT": {"AUG": {"SCALE": 0.2}}}, r"AUGMENT\.SCALE and INPUT\.AUG\.SCALE "),
        ({"AUGMENT": 3}, r"INPUT\.AUG must be a mapping"),
        ({"AUGMENT": {"SCALE": 0.1}, "INPUT": 5}, "INPUT must be a mapping"),
    ],
)
def test_a_key_by_both_names_and_groups_that_are_none(later, config, message):
    before = copy.deepcopy(config)
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_dict(config, source="overrides")
    assert config == before


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_have_todays_keys_and_tensors(later, tmp_path, suffix):
    config = {"MODEL": {"YOLO": {"DEPTH_PERCENT": 50}}, "AUGMENT": {"SCALE": 0.25}, "VERSION": 3}
    state = {f"trunk.{i}.conv.weight": torch.full((2,), float(i)) for i in (1, 2)}
    path = tmp_path / f"m{suffix}"
    if suffix == ".pth":
        torch.save({"model": state, "config": config}, path)
    else:
        safetensors.torch.save_file(state, path, {"config": json.dumps(config)})
    weights = read_weights(path)
    assert weights.config == {
        "MODEL": {"YOLO": {"DEPTH_MULTIPLE": 0.5}},
        "INPUT": {"AUG": {"SCALE": 0.25}},
        "TEST": {"FUSION": {"NAME": "wbf"}},
        "VERSION": 5,
    }
    assert list(weights.state_dict) == ["backbone.first.conv.weight", "backbone.stage2.conv.weight"]
    assert weights.state_dict["backbone.stage2.conv.weight"].tolist() == [2.0, 2.0]
    torch.save({"model": {**state, "backbone.first.conv.weight": torch.zeros(2)}}, tmp_path / "two.pth")
    with pytest.raises(UserError, match=r"two\.pth: .* backbone\.first\.conv\.weight .*twice"):
        read_weights(tmp_path / "two.pth")


def test_tensors_are_translated_from_their_version_on(later):
    assert upgrade_tensor_name("trunk.1.a", 1) == upgrade_tensor_name("trunk.1.a", 3) == "backbone.first.a"
    assert upgrade_tensor_name("trunk.1.a", 4) == "trunk.1.a"
    assert upgrade_tensor_name("backbone.stage1.a", 4) == "backbone.first.a"
    assert compat.earlier_behaviour() == {"INPUT.EXIF_ORIENTATION": "ignore", "TEST.FUSION.NAME": "wbf"}


def test_the_head_of_version_2_has_keys_and_tensors_of_its_own_today():
    """In version 2, keys of the whole detector named the parts of the head."""
    old = {
        "ANCHOR_GENERATOR": {"NAME": "YOLOAnchorGenerator"},
        "YOLO": {
            "NUM_CLASSES": 3,
            "ANCHORS": [[[1, 2]]],
            "ANCHORS_FROM_WEIGHTS": False,
            "ASSIGNER": {"NAME": "RatioAssigner", "ANCHOR_RATIO": 2.5},
            "HEAD": {"NAME": "YOLOHead"},
            "LOSS": {"BOX_GAIN": 0.1},
        },
    }
    new = {
        "YOLO": {"NUM_CLASSES": 3},
        "HEAD": {"NAME": "AnchorHead"},
        "ANCHOR_HEAD": {
            "ANCHORS": [[[1, 2]]],
            "ANCHORS_FROM_WEIGHTS": False,
            "ANCHOR_RATIO": 2.5,
            "LOSS": {"BOX_GAIN": 0.1},
        },
    }
    for version in (1, 2):
        assert upgrade_config({"VERSION": version, "MODEL": old}, "x")["MODEL"] == new
        assert upgrade_tensor_name("anchor_generator.anchors", version) == "head.anchors"
    assert upgrade_config({"MODEL": {"YOLO": {"HEAD": {"NAME": "Mine"}}}}, "x")["MODEL"] == {"HEAD": {"NAME": "Mine"}}
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.YOLO.ASSIGNER.NAME", "RatioAssigner", "MODEL.YOLO.LOSS.BOX_GAIN", "0.2"])
    assert cfg.MODEL.ANCHOR_HEAD.LOSS.BOX_GAIN == 0.2
    with pytest.raises(UserError, match=r"MODEL\.ANCHOR_GENERATOR\.NAME is 'Mine'"):
        get_cfg().merge_from_list(["MODEL.ANCHOR_GENERATOR.NAME", "Mine"])
