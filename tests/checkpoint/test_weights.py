import math
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from parking.checkpoint import (
    Checkpointer,
    Weights,
    distinct_names,
    find_last_checkpoint,
    find_weights,
    load_weights,
    read_weights,
    write_weights,
)
from parking.checkpoint.formats.families import YOLOV5
from parking.modeling import ClassRows, DenseHead
from parking.utils.errors import UserError


class Head(DenseHead):
    def __init__(self, num_classes):
        super().__init__()
        self.predictors = nn.ModuleList([nn.Conv2d(2, 3 * (5 + num_classes), 1)])

    def class_rows(self):
        return {f"predictors.0.{name}": ClassRows(3, 5, 0.0) for name in ("weight", "bias")}


class Model(nn.Module):
    def __init__(self, num_classes=4, channels=2):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 1)
        self.head = Head(num_classes)


class Counter:
    """A checkpointable with one plain value."""

    def __init__(self, value=0):
        self.value = value

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


def save(path: Path, content) -> str:
    torch.save(content, path)
    return str(path)


def test_release_file_carries_everything(tmp_path):
    model = Model()
    checkpointer = Checkpointer(
        model, str(tmp_path), extra={"config": {"SEED": 1, "VERSION": 3}, "class_names": ["a"], "category_ids": [7]}
    )
    checkpointer.save_release("model_best", model.state_dict(), iteration=5)
    weights = read_weights(tmp_path / "model_best.pth")
    assert (weights.config, weights.class_names, weights.category_ids) == ({"SEED": 1, "VERSION": 3}, ["a"], [7])
    other = Model()
    load_weights(other, weights)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
    assert not (tmp_path / "last_checkpoint").exists(), "the best is not what --resume continues"


def test_the_averaged_weights_are_preferred(tmp_path):
    model = Model()
    average = {name: torch.full_like(tensor, 2.0) for name, tensor in model.state_dict().items()}
    path = save(tmp_path / "m.pth", {"model": model.state_dict(), "ema": {"num_updates": 1, "average": average}})
    assert read_weights(path).state_dict["stem.weight"].eq(2.0).all()


def test_resumable_checkpoints_are_bounded_and_tagged(tmp_path):
    model, counter = Model(), Counter()
    checkpointer = Checkpointer(model, str(tmp_path), num_to_keep=2, counter=counter)
    for iteration in (9, 99, 999):
        counter.value = iteration
        checkpointer.save_resumable(f"model_{iteration:07d}")
    checkpointer.save_release("model_final", model.state_dict())
    names = [f"model_{name}.pth" for name in ("0000099", "0000999", "final")]
    assert sorted(p.name for p in tmp_path.glob("*.pth")) == names
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000999.pth"
    assert not list(tmp_path.glob(".*")), "no temporary file stays"
    again, restored = Model(), Counter()
    Checkpointer(again, str(tmp_path), counter=restored).resume()
    assert restored.value == 999
    assert torch.equal(again.stem.weight, model.stem.weight)


def test_a_checkpoint_newly_written_is_never_the_one_removed(tmp_path):
    (tmp_path / "model_2_mine.pth").touch()
    checkpointer = Checkpointer(Model(), str(tmp_path), num_to_keep=1)
    checkpointer.save_resumable("model_0000500")
    checkpointer.save_resumable("model_0000010")
    assert (tmp_path / "model_0000010.pth").exists()
    assert (tmp_path / "model_2_mine.pth").exists(), "a user's own file is left alone"


def test_values_of_a_release_can_be_read_back(tmp_path):
    checkpointer = Checkpointer(Model(), str(tmp_path))
    assert checkpointer.read_values("model_best") == {}
    checkpointer.save_release("model_best", Model().state_dict(), metric="bbox/AP75", value=3.5)
    assert checkpointer.read_values("model_best") == {"metric": "bbox/AP75", "value": 3.5}


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path):
    model = Model()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save_release("model_best", model.state_dict())
    before = (tmp_path / "model_best.pth").read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError)):
        checkpointer.save_release("model_best", model.state_dict(), unpicklable=lambda: None)
    assert (tmp_path / "model_best.pth").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model_best.pth"]


def test_find_weights_prefers_best_then_final_then_last(tmp_path):
    assert find_weights(tmp_path) is None
    (tmp_path / "model_0000009.pth").touch()
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth")
    for name in ("model_0000009.pth", "model_final.pth", "model_best.pth"):
        (tmp_path / name).touch()
        assert find_weights(tmp_path) == str(tmp_path / name)


def test_resuming_without_or_from_a_bare_file(tmp_path):
    checkpointer = Checkpointer(Model(), str(tmp_path), counter=Counter())
    with pytest.raises(UserError, match="holds no checkpoint to resume"):
        checkpointer.resume()
    save(tmp_path / "model_0000001.pth", {"model": Model().state_dict()})
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(UserError, match="it has no 'counter'"):
        checkpointer.resume()


def test_other_mistakes(tmp_path):
    with pytest.raises(UserError, match="nothing is downloaded"):
        read_weights("https://example.org/x.pth")
    with pytest.raises(UserError, match="do not exist"):
        read_weights(tmp_path / "none.pth")
    foreign = read_weights(save(tmp_path / "f.pth", {"model": Model().state_dict(), "ema": {"other": 1}}))
    assert foreign.state_dict.keys() == Model().state_dict().keys()
    assert (foreign.class_names, foreign.config, foreign.family) == (None, None, None)


@pytest.fixture
def foreign_classes(monkeypatch):
    """Modules under the names that published files have; nothing here needs them to read such a file."""
    modules = {}
    for module_name, class_names in {"models.yolo": ["DetectionModel", "Detect"], "models.common": ["Conv"]}.items():
        module = types.ModuleType(module_name)
        for class_name in class_names:
            module.__dict__[class_name] = type(class_name, (nn.Module,), {"__module__": module_name})
        modules.update(vars(module))
        monkeypatch.setitem(sys.modules, module_name, module)
    monkeypatch.setitem(sys.modules, "models", types.ModuleType("models"))
    return types.SimpleNamespace(**{name: value for name, value in modules.items() if not name.startswith("_")})


def foreign_model(classes, names, fill: float = 0.5) -> nn.Module:
    """The first and the last layer of a published detector of two classes with one channel."""
    conv, detect, model = classes.Conv(), classes.Detect(), classes.DetectionModel()
    conv.conv, conv.bn = nn.Conv2d(3, 1, 6, 2, 2, bias=False), nn.BatchNorm2d(1, eps=1e-3)
    conv.act = nn.SiLU()
    nn.init.constant_(conv.conv.weight, fill)
    detect.m = nn.ModuleList([nn.Conv2d(1, 3 * 7, 1)])
    detect.register_buffer("anchors", torch.ones(3, 3, 2))
    detect.stride = torch.tensor([8.0, 16.0, 32.0])
    model.model = nn.Sequential(OrderedDict([("0", conv), ("24", detect)]))
    model.names, model.yaml, model.save = names, {"nc": 2, "anchors": [[10, 13]]}, {4, 6}
    return model


@pytest.mark.parametrize(
    "names", [["car", "bus"], {0: "car", 1: "bus"}, ["per\u00a0son", "\x1b[2J"]], ids=["list", "dict", "odd"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("suffix", [".pt", ".pth"])
def test_a_pickled_module_needs_none_of_its_classes(tmp_path, monkeypatch, foreign_classes, names, dtype, suffix):
    model = foreign_model(foreign_classes, names).to(dtype)
    path = save(tmp_path / f"m{suffix}", {"epoch": -1, "model": model, "ema": None, "optimizer": None})
    for name in ("models", "models.yolo", "models.common"):
        monkeypatch.delitem(sys.modules, name)
    weights = read_weights(path)
    assert (weights.family, weights.config) == (YOLOV5, None)
    assert weights.class_names == [names[0], names[1]]
    stem = "backbone.bottom_up.stem"
    norm = [f"{stem}.norm.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]
    head = ["head.predictors.0.weight", "head.predictors.0.bias", "head.anchors"]
    assert sorted(weights.state_dict) == sorted([f"{stem}.conv.weight", *norm, *head])
    assert weights.state_dict[norm[-1]].dtype == torch.int64
    assert {tensor.dtype for name, tensor in weights.state_dict.items() if name != norm[-1]} == {torch.float32}
    assert weights.state_dict[f"{stem}.conv.weight"].eq(0.5).all()
    # One cell of the levels is 8, 16 and 32 pixels wide.
    assert weights.state_dict["head.anchors"][:, 0, 0].tolist() == [8.0, 16.0, 32.0]
    assert "models.yolo" not in sys.modules


def test_the_averaged_module_is_preferred(tmp_path, foreign_classes):
    model, average = (foreign_model(foreign_classes, ["car", "bus"], fill) for fill in (0.25, 0.75))
    weights = read_weights(save(tmp_path / "m.pt", {"model": model, "ema": average, "updates": 3}))
    assert weights.state_dict["backbone.bottom_up.stem.conv.weight"].unique().tolist() == [0.75]


#: Names that terminals, logs or formats may stumble over; the stored name stays exact.
ODD_NAMES = [
    *("per\u00a0son", "zero\u200bwidth", "\ufeffbom", "tab\t", "line\r\nbreak", "\x1b[2Jclear", "\u202eturned", ""),
    *(" ", "joined \U0001f468\u200d\U0001f469", "e\u0301", "\u00e9", "nul\x00", "half \ud83d", "자동차", "car", "car"),
]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_class_names_stay_exact_and_are_shown_escaped(tmp_path, suffix):
    state = dict(Model(len(ODD_NAMES)).state_dict())
    path = tmp_path / f"odd{suffix}"
    write_weights(path, Weights(str(path), state, class_names=ODD_NAMES, origin={"file": "\x1b"}))
    weights = read_weights(path)
    assert weights.class_names == ODD_NAMES and weights.origin == {"file": "\x1b"}
    with pytest.raises(UserError, match="CLASS_MAP") as error:
        load_weights(Model(1), weights, class_names=["x"], class_map=[["x", "y"]])
    assert str(error.value).isprintable()


def test_distinct_names():
    assert distinct_names(["a", "b"]) == ["a", "b"]
    assert distinct_names(["a", "a", "b", "a"]) == ["a", "a (2)", "b", "a (3)"]
    assert distinct_names(["a", "a (2)", "a", "a (2)"]) == ["a", "a (2)", "a (3)", "a (2) (2)"]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_category_ids_stay_exact(tmp_path, suffix):
    ids = [0, -1, 2**31, 2**53 + 1, -(2**63), 2**64 - 1]
    path = tmp_path / f"ids{suffix}"
    write_weights(path, Weights(str(path), dict(Model(6).state_dict()), category_ids=ids))
    assert read_weights(path).category_ids == ids


@pytest.mark.parametrize("ids", [[1, 1], [2**64], [-(2**70)], [10**300], [1.0], ["1"], [True], [None], 7, {"a": 1}])
def test_category_ids_that_are_none(tmp_path, ids):
    path = save(tmp_path / "ids.pth", {"model": Model().state_dict(), "category_ids": ids})
    with pytest.raises(UserError, match=r"ids\.pth.*category_ids"):
        read_weights(path)


def test_values_beside_the_weights_do_no_harm(tmp_path, foreign_classes):
    beside = {
        "best_fitness": np.array([0.5]),
        "score": np.float64(0.5),
        "opt": {"weights": Path("a"), "save_dir": Path("/etc"), "device": torch.device("cpu"), "imgsz": 640},
        "shape": torch.Size([1, 2]),
        "date": "2022-11-22",
        "bytes": b"\x00",
        "set": {1, 2},
        "state": OrderedDict(a=torch.zeros(2)),
        "numbers": [2**40, -1.5, None, True],
    }
    model = foreign_model(foreign_classes, {1: "car", 2: "bus"})
    weights = read_weights(save(tmp_path / "m.pt", {"model": model, **beside}))
    assert len(weights.state_dict) == 9
    assert (weights.config, weights.origin) == (None, None)
    assert weights.class_names is None, "names that do not begin with 0 are none"


def test_the_first_checkpoint_counts_before_it_is_named_the_last(tmp_path):
    assert find_last_checkpoint(tmp_path) is None
    unfinished = (".model_0000014.pth.7.tmp", ".model_0000014.pth.7-ab.parking-tmp")
    for name in ("model_0000004.pth", "model_0000009.pth", "model_best.pth", *unfinished):
        (tmp_path / name).touch()
    assert find_last_checkpoint(tmp_path) == tmp_path / "model_0000009.pth", "killed before the tag was written"
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    assert find_last_checkpoint(tmp_path) == tmp_path / "model_0000004.pth"
    for name in ("model_10000004.pth", "model_0000004.txt"):
        (tmp_path / name).touch()
    (tmp_path / "last_checkpoint").unlink()
    assert find_last_checkpoint(tmp_path) == tmp_path / "model_10000004.pth", "by number, not by text"


def make_sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(5 * 10**9)


DAMAGED_TAGS = {
    "empty": (lambda path: path.write_bytes(b""), "nothing"),
    "binary": (lambda path: path.write_bytes(b"\x80\x02\xff"), "no text"),
    "zeros": (lambda path: path.write_bytes(bytes(100)), r"\\x00"),
    "a folder": (lambda path: path.mkdir(), "folder"),
    "a FIFO": (lambda path: os.mkfifo(path), "FIFO"),
    "5 GB": (make_sparse, "larger"),
    "elsewhere": (lambda path: path.write_text("../../etc/x"), "etc/x"),
    "an absolute path": (lambda path: path.write_text("/etc/passwd"), "/etc/passwd"),
    "below another": (lambda path: path.write_text("model_0000004.pth/../x.pth"), "model_1234|model_0001234"),
    "two lines": (lambda path: path.write_text("model_0000004.pth\nmodel_0000009.pth"), "instead of a name"),
    "a file of another kind": (lambda path: path.write_text("config.yaml"), "config.yaml"),
    "what is gone": (lambda path: path.write_text("model_0000007.pth"), "model_0000007.pth, which is not there"),
    "control characters": (lambda path: path.write_text("\x1b[2J"), "instead of a name"),
    "a dead link": (lambda path: path.symlink_to("nowhere"), "cannot be read"),
}


@pytest.mark.parametrize("case", DAMAGED_TAGS)
def test_a_damaged_tag_is_one_sentence(tmp_path, case):
    make, message = DAMAGED_TAGS[case]
    (tmp_path / "config.yaml").touch()
    make(tmp_path / "last_checkpoint")
    checkpointer = Checkpointer(Model(), str(tmp_path))
    for find in (find_last_checkpoint, find_weights, lambda _: checkpointer.resume()):
        with pytest.raises(UserError, match=rf"last_checkpoint .*({message}).*--overwrite") as error:
            find(tmp_path)
        assert str(error.value).isprintable()
    (tmp_path / "model_0000004.pth").touch()
    with pytest.raises(UserError, match=r"last_checkpoint .*model_0000004\.pth"):
        find_last_checkpoint(tmp_path)
    (tmp_path / "model_best.pth").touch()
    assert find_weights(tmp_path) == str(tmp_path / "model_best.pth")


def resumable(folder: Path, **changes) -> Checkpointer:
    """A checkpointer whose folder holds a checkpoint with ``changes``."""
    content = {"model": Model().state_dict(), "counter": {"value": 3}, "config": {"a": 1}, **changes}
    save(folder / "model_0000001.pth", content)
    return Checkpointer(Model(), str(folder), extra={"config": {"a": 1}}, counter=Counter())


def endless() -> dict:
    value = {"a": 1}
    for _ in range(60):
        value = {"a": value, "b": value}
    return value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({"counter": value}, "another kind of training") for value in ({}, None, torch.zeros(2))),
        ({"config": "a"}, "'config' of another kind"),
        ({"config": endless()}, "'config' of another kind"),
        ({"model": {"a": 1}}, "hold no model"),
        ({"model": {"stem.weight": torch.zeros(1)}}, "do not fit"),
        ({"model": None}, "hold no model"),
        ({"model": {**Model().state_dict(), "stem.bias": torch.tensor([1.0, math.nan])}}, "stem.bias holds NaN"),
    ],
)
def test_a_foreign_checkpoint_is_one_sentence_and_changes_nothing(tmp_path, changes, message):
    resumable(tmp_path).resume()
    checkpointer = resumable(tmp_path, **changes)
    before = {name: tensor.clone() for name, tensor in checkpointer.model.state_dict().items()}
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=rf"model_0000001\.pth.*{message}"):
        checkpointer.resume()
    if "counter" not in changes:
        assert all(tensor.equal(before[name]) for name, tensor in checkpointer.model.state_dict().items())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_a_config_that_is_endless_is_refused(tmp_path):
    path = save(tmp_path / "m.pth", {"model": Model().state_dict(), "config": endless()})
    assert Path(path).stat().st_size < 20_000
    with pytest.raises(UserError, match=r"m\.pth.*config has more than"):
        read_weights(path)
    for config in ({"a": torch.zeros(1)}, {"a": b"1"}):
        save(tmp_path / "m.pth", {"model": Model().state_dict(), "config": config})
        with pytest.raises(UserError, match=r"m\.pth.*config holds a"):
            read_weights(path)


@pytest.mark.parametrize("kind", ["folder", "FIFO", "device"])
@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_only_regular_files_are_weights(tmp_path, kind, suffix):
    path = tmp_path / f"odd{suffix}"
    {"folder": path.mkdir, "FIFO": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero")}[kind]()
    with pytest.raises(UserError, match=rf"odd\{suffix}.*{kind}"):
        read_weights(path)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_files_larger_than_any_weights(tmp_path, suffix):
    path = tmp_path / f"large{suffix}"
    for whole in (b"", Path(save(tmp_path / "m.pth", {"model": Model().state_dict()})).read_bytes()):
        path.write_bytes(whole)
        os.truncate(path, 30 * 10**9)
        with pytest.raises(UserError, match=rf"large\{suffix}.*30,000,000,000"):
            read_weights(path)
