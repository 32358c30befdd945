import ast
import re
from pathlib import Path

import pytest
import yaml

from parking.config import CfgNode, get_cfg
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
YAMLS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_every_yaml_loads(path):
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    assert cfg.MODEL.META_ARCHITECTURE == "YOLO"


@pytest.mark.parametrize("path", YAMLS, ids=lambda p: str(p.relative_to(ROOT / "configs")))
def test_a_yaml_survives_the_round_trip_through_a_dump(path, tmp_path):
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    (tmp_path / "dump.yaml").write_text(cfg.dump())
    again = get_cfg()
    again.merge_from_file(str(tmp_path / "dump.yaml"))
    assert again == cfg


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
        if path.parent.name != "config":
            chains |= attribute_chains(path.read_text(encoding="utf-8"))
    # Read by detectron2 itself: build_backbone, build_anchor_generator, build_model, default_setup.
    by_detectron2 = {
        "CUDNN_BENCHMARK",
        "MODEL.BACKBONE.NAME",
        "MODEL.ANCHOR_GENERATOR.NAME",
        "MODEL.META_ARCHITECTURE",
    }
    unread = []
    for key in get_cfg().keys_in_full():
        *parents, last = key.split(".")
        tail = ".".join([*parents[-1:], last])
        # A key counts as read through its group (`solver.EMA.DECAY`) or a variable that holds the group (`aug.SCALE`).
        if key in by_detectron2 or any(c == tail or c.endswith(f".{tail}") for c in chains):
            continue
        if last in chains and parents and any(c.endswith(parents[-1]) for c in chains):
            continue
        unread.append(key)
    assert not unread


def test_every_key_has_a_comment_or_a_neighbour_that_has_one():
    source = (ROOT / "parking" / "config" / "defaults.py").read_text(encoding="utf-8")
    ours = set(re.findall(r"^    cfg\.([A-Z_.]+) = (?!CN)", source, flags=re.M))
    commented = set()
    covered = False
    for line in source.splitlines():
        stripped = line.strip()
        if stripped.startswith("#"):
            covered = True
        elif match := re.match(r"cfg\.([A-Z0-9_.]+) = ", stripped):
            if covered:
                commented.add(match[1])
        elif not stripped:
            covered = False
    detectron2s = {"DATASETS.TRAIN", "DATASETS.TEST", "SOLVER.BASE_LR", "SOLVER.MOMENTUM", "SOLVER.NESTEROV"}
    detectron2s |= {key for key in ours if key.startswith("MODEL.") and key.count(".") == 1}
    detectron2s |= {"MODEL.BACKBONE.NAME", "MODEL.ANCHOR_GENERATOR.NAME", "TEST.DETECTIONS_PER_IMAGE"}
    assert ours - commented - detectron2s == set()


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
        (["MODEL.YOLO.NUM_CLASES", "3"], r"no config key MODEL.YOLO.NUM_CLASES; did you mean MODEL.YOLO.NUM_CLASSES\?"),
        (["NUM_CLASSES", "3"], r"no config key NUM_CLASSES; did you mean MODEL.YOLO.NUM_CLASSES\?"),
        (["INPUT.MIN_SIZE_TRAIN", "3"], r"no config key INPUT.MIN_SIZE_TRAIN"),
        (["SOLVER.MAX_ITER", "many"], r"SOLVER.MAX_ITER must be of type int, such as 40000, not 'many'"),
        (["SOLVER.MAX_ITER", "1.5"], r"SOLVER.MAX_ITER must be of type int"),
        (["SOLVER.AMP.ENABLED", "1"], r"SOLVER.AMP.ENABLED must be of type bool"),
        (["MODEL.YOLO", "3"], r"MODEL.YOLO must be a mapping"),
        (["SOLVER.MAX_ITER", "None"], r"SOLVER.MAX_ITER must be of type int"),
        (["SOLVER.MAX_ITER"], r"'SOLVER.MAX_ITER' has no value"),
    ],
)
def test_mistakes_on_the_command_line(opts, message):
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_list(opts)


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_yaml_tags_run_no_code(tmp_path):
    marker = tmp_path / "ran"
    hostile = f"SEED: !!python/object/apply:os.mkdir ['{marker}']\n"
    # The same file does run code where yaml is loaded without care.
    yaml.unsafe_load(hostile)
    assert marker.exists()
    marker.rmdir()
    direct = write(tmp_path / "direct.yaml", hostile)
    through_base = write(tmp_path / "based.yaml", "_BASE_: direct.yaml\n")
    for path in (direct, through_base):
        with pytest.raises(UserError, match="not plain yaml"):
            get_cfg().merge_from_file(path)
        assert not marker.exists()
    with pytest.raises(ValueError, match="never loaded"):
        get_cfg().merge_from_file(direct, allow_unsafe=True)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: https://example.org/a.yaml\n", "addresses are not opened"),
        ("_BASE_: ['http://example.org/a.yaml']\n", "addresses are not opened"),
        ("_BASE_: none.yaml\n", r"none.yaml cannot be read \(No such file"),
        ("_BASE_: c.yaml\n", "leads back to itself"),
        ("SEED: [1\n", "not plain yaml"),
        ("- 1\n- 2\n", "the top level must be a mapping"),
        ("", "does not hold a mapping"),
        ("SOLVER: 3\n", "SOLVER must be a mapping of keys"),
        (
            "SOLVER:\n  MAX_ITERS: 3\n",
            r"c.yaml: there is no config key SOLVER.MAX_ITERS; did you mean SOLVER.MAX_ITER\?",
        ),
    ],
)
def test_mistakes_in_files(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        get_cfg().merge_from_file(write(tmp_path / "c.yaml", text))


def test_missing_file_and_address():
    with pytest.raises(UserError, match=r"nowhere.yaml cannot be read"):
        get_cfg().merge_from_file("nowhere.yaml")
    with pytest.raises(UserError, match="addresses are not opened"):
        get_cfg().merge_from_file("https://example.org/c.yaml")
