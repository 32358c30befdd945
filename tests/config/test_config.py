import ast
import contextlib
import json
import os
import re
import sys
import types
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml
from detectron2.config import get_cfg as get_detectron2_cfg

from parking.checkpoint import read_weights
from parking.config import CfgNode, get_cfg
from parking.config.checks import find_value
from parking.config.plain import flatten
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_yaml_loads_and_survives_the_round_trip_through_a_dump(path, tmp_path):
    cfg, again = get_cfg(), get_cfg()
    cfg.merge_from_file(str(path))
    assert cfg.MODEL.META_ARCHITECTURE == "YOLO"
    again.merge_from_file(write(tmp_path / "dump.yaml", cfg.dump()))
    assert again == cfg


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def attribute_chains(source: str) -> set[str]:
    """All dotted reads such as ``solver.EMA.DECAY``."""
    chains = set()
    for node in ast.walk(ast.parse(source)):
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if parts:
            chains.add(".".join(reversed(parts)))
    return chains


def test_every_key_is_read_somewhere():
    chains = set()
    for path in [*(ROOT / "parking").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]:
        if path.parent.name != "config" or path.name == "stages.py":
            chains |= attribute_chains(path.read_text(encoding="utf-8"))
    # detectron2 reads these itself: build_backbone, build_model.
    by_detectron2 = {f"MODEL.{key}" for key in ("BACKBONE.NAME", "META_ARCHITECTURE")}
    by_compat = {"VERSION"}
    unread = []
    for key, _ in flatten(get_cfg()):
        if key.startswith(("MODEL.RESNETS.", "MODEL.FPN.")):
            find_value(get_detectron2_cfg(), key)  # detectron2's backbones read it under this name
            continue
        *parents, last = key.split(".")
        tail = ".".join([*parents[-1:], last])
        # A key counts as read through its group (`solver.EMA.DECAY`) or a variable that holds the group (`aug.SCALE`).
        if key in by_detectron2 | by_compat or any(c == tail or c.endswith(f".{tail}") for c in chains):
            continue
        if last in chains and parents and any(c.endswith(parents[-1]) for c in chains):
            continue
        unread.append(key)
    assert not unread


def test_every_key_has_a_comment_or_a_neighbour_that_has_one():
    source = (ROOT / "parking" / "config" / "defaults.py").read_text(encoding="utf-8")
    uncovered, covered = [], False
    for line in map(str.strip, source.splitlines()):
        if line.startswith("#"):
            covered = True
        elif re.match(r"cfg\.[A-Z0-9_.]+ = (?!CN)", line) and not covered:
            uncovered.append(line)
        elif not line:
            covered = False
    assert not uncovered


def test_get_cfg_gives_a_new_object_each_time():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 5.0
    assert get_cfg().SOLVER.BASE_LR == 0.01
    assert all(isinstance(group, CfgNode) for group in (cfg.SOLVER, cfg.SOLVER.EMA, cfg.INPUT.AUG))


@pytest.mark.parametrize(
    ("opts", "key", "value"),
    [
        (["SOLVER.BASE_LR", "1"], "SOLVER.BASE_LR", 1.0),
        (["SOLVER.BASE_LR", "1e-3"], "SOLVER.BASE_LR", 0.001),
        (["DATASETS.TRAIN", "('a', 'b')"], "DATASETS.TRAIN", ("a", "b")),
        (["DATASETS.COCO", "[['v', 'v.json', 'images']]"], "DATASETS.COCO", [["v", "v.json", "images"]]),
        (["SOLVER.AMP.ENABLED", "True"], "SOLVER.AMP.ENABLED", True),
        (["OUTPUT_DIR", "out put"], "OUTPUT_DIR", "out put"),
    ],
)
def test_command_line_values(opts, key, value):
    cfg = get_cfg()
    cfg.merge_from_list(opts)
    for part in key.split("."):
        cfg = cfg[part]
    assert cfg == value
    assert type(cfg) is type(value)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.YOLO.NUM_CLASES", "3"], r" MODEL\.YOLO\.NUM_CLASES; .* MODEL\.YOLO\.NUM_CLASSES\?"),
        (["NUM_CLASSES", "3"], r" NUM_CLASSES; .* MODEL\.YOLO\.NUM_CLASSES\?"),
        (["INPUT.MIN_SIZE_TRAIN", "3"], r"INPUT\.MIN_SIZE_TRAIN"),
        (["SOLVER.MAX_ITER", "many"], r"SOLVER\.MAX_ITER .*int, such as 40000, not 'many'"),
        (["SOLVER.MAX_ITER", "1.5"], r"SOLVER\.MAX_ITER .*int"),
        (["SOLVER.MAX_ITER", "None"], r"SOLVER\.MAX_ITER .*int"),
        (["SOLVER.AMP.ENABLED", "1"], r"SOLVER\.AMP\.ENABLED .*bool"),
        (["DATASETS.TRAIN", "data"], r"DATASETS\.TRAIN .*tuple"),
        (["MODEL.YOLO", "3"], r"MODEL\.YOLO .*mapping"),
        (["MODEL.YOLOX_HEAD.LOSS.L1_GAIN", "2"], r"MODEL\.YOLOX_HEAD\.LOSS\.L1_GAIN .*AnchorHead"),
        (["MODEL.ANCHOR_HEAD.ANCHOR_RATIO", "2", "MODEL.HEAD.NAME", "YOLOXHead"], r"ANCHOR_RATIO .*YOLOXHead"),
        (["SOLVER.MAX_ITER"], r"'SOLVER\.MAX_ITER' has no value"),
    ],
)
def test_mistakes_on_the_command_line(opts, message):
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_list(opts)


HOSTILE_TAGS = [
    "!!python/object/apply:os.mkdir ['{marker}']",
    "!!python/object/new:hostile.New ['{marker}']",
    "!!python/object:hostile.State {{path: '{marker}'}}",
    "!!python/module:on_import ''",
]


@pytest.fixture
def marker(tmp_path, monkeypatch) -> Path:
    """A path that exists once a yaml has run code; ``hostile`` and ``on_import`` are modules that the code may use."""
    marker = tmp_path / "ran"
    hostile = types.ModuleType("hostile")
    hostile.New = type("New", (), {"__new__": lambda cls, path: os.mkdir(path)})
    hostile.State = type("State", (), {"__setstate__": lambda self, state: os.mkdir(state["path"])})
    monkeypatch.setitem(sys.modules, "hostile", hostile)
    (tmp_path / "on_import.py").write_text(f"import os\nos.mkdir({str(marker)!r})\nx = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield marker
    sys.modules.pop("on_import", None)


@pytest.mark.parametrize("tag", HOSTILE_TAGS)
@pytest.mark.parametrize("place", ["SEED: {}", "{}", "_BASE_: {}", "{}: 1"])
def test_yaml_tags_run_no_code(tmp_path, marker, tag, place):
    hostile = place.format(tag.format(marker=marker)) + "\n"
    # The same file does run code where yaml is loaded without care.
    with contextlib.suppress(yaml.YAMLError):
        yaml.unsafe_load(hostile)
    assert marker.exists()
    marker.rmdir()
    sys.modules.pop("on_import", None)
    direct = write(tmp_path / "direct.yaml", hostile)
    write(tmp_path / "sound.yaml", "SEED: 1\n")
    through_list = write(tmp_path / "listed.yaml", "_BASE_: [sound.yaml, direct.yaml]\n")
    through_two = write(tmp_path / "twice.yaml", "_BASE_: listed.yaml\n")
    for path in (direct, through_list, through_two):
        with pytest.raises(UserError, match=r"not plain yaml: .*tag:yaml\.org,2002:python/"):
            get_cfg().merge_from_file(path)
        assert not marker.exists()
    with pytest.raises(ValueError, match="yaml"):
        get_cfg().merge_from_file(direct, allow_unsafe=True)
    assert not marker.exists()
    assert "on_import" not in sys.modules


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: none.yaml\n", r"none\.yaml .*No such file"),
        ("_BASE_: c.yaml\n", r"c\.yaml: _BASE_ .*back"),
        ("SEED: [1\n", r"c\.yaml is not plain yaml"),
        ("- 1\n- 2\n", r"c\.yaml: the top level must be a mapping"),
        ("", r"c\.yaml is empty"),
        ("SOLVER: 3\n", r"c\.yaml: SOLVER must be a mapping"),
        ("SOLVER:\n  MAX_ITERS: 3\n", r"c\.yaml: .* SOLVER\.MAX_ITERS; .* SOLVER\.MAX_ITER\?"),
    ],
)
def test_mistakes_in_files(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_file(write(tmp_path / "c.yaml", text))


def carry(folder: Path, suffix: str, config) -> str:
    """A weights file that carries ``config``."""
    path = folder / f"m{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"config": json.dumps(config)})
    else:
        torch.save({"model": {"a": torch.zeros(1)}, "config": config}, path)
    return str(path)


def configure_from(weights_file: str) -> CfgNode:
    from parking.inference.models import find_config_and_weights

    return find_config_and_weights(None, weights_file, [], default_config="not-to-be-read.yaml")[0]


CARRIED = (".pth", ".pt", ".safetensors")


@pytest.mark.parametrize("suffix", CARRIED)
def test_a_carried_config_is_plain_values(tmp_path, marker, suffix):
    hostile = f"!!python/object/apply:os.mkdir ['{marker}']"
    write(tmp_path / "hostile.yaml", f"SEED: {hostile}\n")
    for config, message in [
        (f"SEED: {hostile}", r"m\..*config is not a mapping"),
        ([hostile], r"m\..*config is not a mapping"),
        ({"SEED": hostile}, "SEED must be of type int"),
        ({"_BASE_": "hostile.yaml"}, "key _BASE_"),
        ({"_BASE_": ["hostile.yaml"], "SEED": 1}, "key _BASE_"),
        ({"MODEL": {"_BASE_": "hostile.yaml"}}, r"key MODEL\._BASE_"),
        ({"MODEL": {"YOLO": hostile}}, r"MODEL\.YOLO must be a mapping"),
        ({"SEED": "__import__('os').mkdir('" + str(marker) + "')"}, "SEED must be of type int"),
    ]:
        with pytest.raises(UserError, match=message):
            configure_from(carry(tmp_path, suffix, config))
        assert not marker.exists()
    # A text key may hold such a text. OUTPUT_DIR and DATASETS.ROOT of the weights do not count.
    cfg = configure_from(carry(tmp_path, suffix, {"OUTPUT_DIR": hostile, "DATASETS": {"ROOT": hostile}, "SEED": 3}))
    assert (str(tmp_path), get_cfg().DATASETS.ROOT, -1) == (cfg.OUTPUT_DIR, cfg.DATASETS.ROOT, cfg.SEED)
    assert not marker.exists()


def test_merge_keys_are_refused(tmp_path):
    # Nine lines of this kind would stand for a thousand million keys.
    for text in ("<<: {X: 1}\n", "SOLVER: {<<: [{}, {}]}\n", "SOLVER: {!!merge x: {}}\n"):
        with pytest.raises(UserError, match="merge keys"):
            get_cfg().merge_from_file(write(tmp_path / "merge.yaml", text))
    get_cfg().merge_from_file(write(tmp_path / "fine.yaml", "OUTPUT_DIR: 'a << b'  # << here\n"))


@pytest.mark.parametrize("address", ["https://example.org/x", "detectron2://x"])
@pytest.mark.parametrize(
    "config",
    [
        lambda a: {"MODEL": {"WEIGHTS": a}},
        lambda a: {"OUTPUT_DIR": a},
        lambda a: {"DATASETS": {"COCO": [["name", "v.json", "images"], ["other", "v.json", a]]}},
        lambda a: {"DATASETS": {"COCO": [{"json": a}]}},
        lambda a: {"DATASETS": {"COCO": [{a: "json"}]}},
    ],
)
def test_addresses_are_refused_wherever_they_stand(tmp_path, config, address):
    config = config(address)
    with pytest.raises(UserError, match=r"c\.yaml: \S+ holds an address"):
        get_cfg().merge_from_file(write(tmp_path / "c.yaml", yaml.safe_dump(config)))
    with pytest.raises(UserError, match=r"based\.yaml: \S+ holds an address"):
        get_cfg().merge_from_file(write(tmp_path / "based.yaml", "_BASE_: [c.yaml]\n"))
    for suffix in CARRIED:
        with pytest.raises(UserError, match=rf"the config in .*m{suffix}: \S+ holds an address"):
            configure_from(carry(tmp_path, suffix, config))
    (group, values) = next(iter(config.items()))
    key, value = (group, values) if isinstance(values, str) else (f"{group}.{next(iter(values))}", values.popitem()[1])
    with pytest.raises(UserError, match=rf"command line: {key} holds an address"):
        get_cfg().merge_from_list([key, str(value)])


@pytest.mark.parametrize("name", ["x.yaml", "m.pt", "m.pth", "m.safetensors"])
@pytest.mark.parametrize("scheme", ["https://example.org/", "s3://bucket/", "file:///tmp/", "://"])
def test_addresses_of_files_are_refused(tmp_path, name, scheme):
    from parking.inference.models import find_config_and_weights

    address = scheme + name
    message = rf"{re.escape(address)}.*(not opened|nothing is downloaded)"
    one = write(tmp_path / "one.yaml", f"_BASE_: '{address}'\n")
    listed = write(tmp_path / "listed.yaml", f"_BASE_: ['{address}']\n")
    for path in (address, one, listed):
        with pytest.raises(UserError, match=message):
            get_cfg().merge_from_file(path)
    with pytest.raises(UserError, match=message):
        read_weights(address)
    with pytest.raises(UserError, match=message):
        find_config_and_weights(None, address, [], default_config="not-to-be-read.yaml")
    with pytest.raises(UserError, match=message):
        find_config_and_weights(address, None, [], default_config="not-to-be-read.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "SEED: 2001-99-99",
        "SEED: !!int many",
        "SEED: !!int ''",
        "SEED: !!float x",
        "SEED: !!bool x",
        f"SEED: {'9' * 5000}",
        "SEED: '{[]: 1}'",
        f"OUTPUT_DIR: '{'-' * 100_000}1'",
        pytest.param(
            f"OUTPUT_DIR: '{'1+' * 100_000}1'",
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="a mere text to the parser of Python 3.10"),
        ),
        "SEED: {a: 1}",
        "? [1]\n: 2",
        "1: 2",
        f"? 0x{'f' * 9000}\n: 2",
        "_BASE_: 5",
        "_BASE_: [5]",
        "_BASE_: {a: 1}",
        "_BASE_: null",
        '_BASE_: "a\\0b"',
        "_BASE_: .",
        f"DATASETS: {{COCO: {'[' * 3000}{']' * 3000}}}",
    ],
    ids=lambda text: text[:40],
)
def test_damaged_and_greedy_yaml(tmp_path, text):
    with pytest.raises(UserError, match=r"^config file "):
        get_cfg().merge_from_file(write(tmp_path / "c.yaml", text + "\n"))


@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_nested_values_in_a_carried_config(tmp_path, suffix):
    circle = []
    circle.append(circle)
    shared = ["x"]
    for _ in range(5):
        shared = [shared] * 10
    for value in (circle, shared):
        with pytest.raises(UserError, match=rf"m{suffix}"):
            configure_from(carry(tmp_path, suffix, {"DATASETS": {"COCO": value}}))


@pytest.mark.parametrize(
    "value",
    ["{[]: 1}", "-" * 100_000 + "1", "1+" * 100_000 + "1", "1" * 9000],
    ids=lambda value: value[:8],
)
def test_strange_values_on_the_command_line(value):
    with pytest.raises(UserError, match=r"command line: SEED"):
        get_cfg().merge_from_list(["SEED", value])


def test_files_that_do_not_exist():
    for name in ("nowhere", "a\0b"):
        with pytest.raises(UserError, match=r"(nowhere|a\\x00b)\.yaml cannot be opened"):
            get_cfg().merge_from_file(f"{name}.yaml")
        with pytest.raises(UserError, match=r"(nowhere|a\\x00b)\.pt do"):
            read_weights(f"{name}.pt")


def test_keys_of_heads_that_a_head_of_the_users_may_read():
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.HEAD.NAME", "PointHead", "MODEL.ANCHOR_HEAD.ANCHOR_RATIO", "2"])
    cfg.merge_from_list(["MODEL.HEAD.NAME", "YOLOXHead", "MODEL.YOLOX_HEAD.LOSS.L1_GAIN", "2"])
    assert (cfg.MODEL.ANCHOR_HEAD.ANCHOR_RATIO, cfg.MODEL.YOLOX_HEAD.LOSS.L1_GAIN) == (2, 2)
