"""The published names of our tensors, both ways, for every size."""

from pathlib import Path

import pytest
import torch

from parking.checkpoint import read_weights
from parking.checkpoint.formats.layout import LayoutError
from parking.checkpoint.formats.pickled_modules import read_module
from parking.checkpoint.formats.yolov5 import from_published, is_published_layout, to_published
from parking.checkpoint.restricted_pickle import ModuleStandIn
from parking.config import get_cfg
from parking.modeling import YOLO
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
PARITY = ROOT / "../shared/parity"
SIZES = [size + levels for levels in ("", "6") for size in "nsmlx"]

# What stands where in the flat list of layers. Positions that are not listed have no tensors.
P5 = {"conv": [0, 1, 3, 5, 7, 10, 14, 18, 21], "c3": [2, 4, 6, 8, 13, 17, 20, 23], "sppf": 9, "head": 24}
P6 = {
    "conv": [0, 1, 3, 5, 7, 9, 12, 16, 20, 24, 27, 30],
    "c3": [2, 4, 6, 8, 10, 15, 19, 23, 26, 29, 32],
    "sppf": 11,
    "head": 33,
}
# Bottlenecks of the backbone's C3 blocks at depth 1, by position; those of the neck have 3.
BACKBONE_REPEATS_P5 = {2: 3, 4: 6, 6: 9, 8: 3}
BACKBONE_REPEATS_P6 = {**BACKBONE_REPEATS_P5, 10: 3}
DEPTHS = {"n": 0.33, "s": 0.33, "m": 0.67, "l": 1.0, "x": 1.33}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def expected_keys(size: str) -> set[str]:
    layers, repeats = (P6, BACKBONE_REPEATS_P6) if size.endswith("6") else (P5, BACKBONE_REPEATS_P5)

    def conv(prefix):
        return {f"{prefix}.conv.weight", *(f"{prefix}.bn.{name}" for name in NORM)}

    keys = set()
    for i in layers["conv"]:
        keys |= conv(f"model.{i}")
    for i in layers["c3"]:
        for name in ("cv1", "cv2", "cv3"):
            keys |= conv(f"model.{i}.{name}")
        for k in range(max(round(repeats.get(i, 3) * DEPTHS[size[0]]), 1)):
            keys |= conv(f"model.{i}.m.{k}.cv1") | conv(f"model.{i}.m.{k}.cv2")
    keys |= conv(f"model.{layers['sppf']}.cv1") | conv(f"model.{layers['sppf']}.cv2")
    head = layers["head"]
    for level in range(4 if size.endswith("6") else 3):
        keys |= {f"model.{head}.m.{level}.weight", f"model.{head}.m.{level}.bias"}
    return keys | {f"model.{head}.anchors"}


def make_state(size: str, device: str) -> dict[str, torch.Tensor]:
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / f"configs/yolov5/{size}.yaml"))
    cfg.MODEL.YOLO.NUM_CLASSES = 80
    cfg.MODEL.DEVICE = device
    with torch.device(device):
        return YOLO(cfg).state_dict()


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_the_published_names(size):
    """Shapes only: the largest would take a second and half a gigabyte."""
    state = make_state(size, "meta")
    published = to_published(state)
    assert published.keys() == expected_keys(size)
    assert is_published_layout(published) and not is_published_layout(state)
    back, _ = from_published(published)
    assert back.keys() == state.keys()
    assert {name: tensor.shape for name, tensor in back.items()} == {n: tensor.shape for n, tensor in state.items()}


def test_numbers_of_tensors():
    # Per convolution with norm 6. n: 9 conv, 8 C3 of 3 and 2 per bottleneck (backbone 1 2 3 1, neck 1 each), SPPF 2,
    # so 9 + 24 + 2 (7 + 4) + 2 = 57, and 3 levels of 2, and the anchors.
    assert len(expected_keys("n")) == 57 * 6 + 3 * 2 + 1 == 349
    # n6: 12 conv, 11 C3 (backbone 1 2 3 1 1, neck 6), SPPF 2: 12 + 33 + 2 (8 + 6) + 2 = 75, 4 levels.
    assert len(expected_keys("n6")) == 75 * 6 + 4 * 2 + 1 == 459


@pytest.mark.parametrize("size", ["n", "n6"])
def test_there_and_back_without_loss(size):
    torch.manual_seed(0)
    state = make_state(size, "cpu")
    for name, tensor in state.items():  # that nothing is equal by being 0 or 1
        if name.endswith(("running_mean", "norm.weight", "norm.bias")):
            tensor.normal_()
        if name.endswith("num_batches_tracked"):
            tensor.fill_(123_457)
    back, _ = from_published(to_published(state))
    assert back.keys() == state.keys()
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name


@pytest.mark.parametrize("anchor", [1 / 3, 9.999999, 373.21, 1e-4])
def test_anchors_of_any_size_survive_the_strides(anchor):
    # A stride is a power of two, so dividing by it loses nothing.
    state = {"head.anchors": torch.full((3, 3, 2), anchor)}
    published = to_published(state)
    assert [level.unique().item() for level in published["model.24.anchors"]] == [
        pytest.approx(anchor / stride) for stride in (8, 16, 32)
    ]
    assert torch.equal(from_published(published)[0]["head.anchors"], state["head.anchors"])


def test_some_names_by_hand():
    names = {
        "model.0.conv.weight": "backbone.bottom_up.stem.conv.weight",
        "model.4.m.1.cv2.bn.running_var": "backbone.bottom_up.dark3.csp.blocks.1.conv2.norm.running_var",
        "model.9.cv2.bn.bias": "backbone.bottom_up.dark5.sppf.conv2.norm.bias",
        "model.14.bn.weight": "backbone.laterals.p4.norm.weight",
        "model.23.cv3.conv.weight": "backbone.bottom_up_blocks.p5.conv3.conv.weight",
        "model.24.m.2.bias": "head.predictors.2.bias",
        "model.24.anchors": "head.anchors",
    }
    values = {key: torch.full((3, 3, 2), float(i)) for i, key in enumerate(names)}
    converted, _ = from_published(values)
    assert list(converted) == list(names.values())
    for i, (key, name) in enumerate(names.items()):
        factor = torch.tensor([8.0, 16, 32]).view(3, 1, 1) if key.endswith("anchors") else 1
        assert torch.equal(converted[name], torch.full((3, 3, 2), float(i)) * factor)


def test_position_9_depends_on_the_levels():
    tensor = torch.zeros(1)
    three, _ = from_published({"model.9.cv1.conv.weight": tensor})
    assert list(three) == ["backbone.bottom_up.dark5.sppf.conv1.conv.weight"]
    four, _ = from_published({"model.9.conv.weight": tensor, "model.33.m.0.bias": tensor})
    assert list(four) == ["backbone.bottom_up.dark6.downsample.conv.weight", "head.predictors.0.bias"]


def test_the_repeated_anchors_of_older_files_are_left_out(tmp_path):
    state = to_published(make_state("n", "cpu"))
    with_grid = {**state, "model.24.anchor_grid": torch.zeros(3, 1, 3, 1, 1, 2)}
    converted, repeated = from_published(with_grid)
    assert (converted.keys(), repeated) == (from_published(state)[0].keys(), ("model.24.anchor_grid",))
    torch.save({"model": with_grid}, tmp_path / "old.pth")
    weights = read_weights(tmp_path / "old.pth")
    assert weights.left_out == ("model.24.anchor_grid",)
    assert weights.describe_tensors().startswith("349 of 350 tensors (without model.24.anchor_grid, ")


@pytest.mark.parametrize(
    "key",
    [
        "model.11.conv.weight",  # an upsampling, without tensors
        "model.25.conv.weight",
        "model.999.conv.weight",
        "model.24.anchor",
        "model.24.m.0",
        "model.24.m.0.conv.weight",
        "model.24.proto.cv1.conv.weight",  # of a segmentation model
        "model.24.anchor_grid.0",
    ],
)
def test_an_unknown_tensor_is_named(key):
    state = {"model.0.conv.weight": torch.zeros(1), key: torch.zeros(1)}
    with pytest.raises(LayoutError, match=rf"its tensor {key} belongs to no YOLOv5 detector of release 6 or 7"):
        from_published(state)


def test_two_names_of_one_tensor_are_refused():
    # "01" and "1" are the same position.
    with pytest.raises(LayoutError, match=r"model\.01\.conv\.weight"):
        from_published({"model.1.conv.weight": torch.zeros(1), "model.01.conv.weight": torch.ones(1)})


def test_what_the_layout_is_told_by():
    tensor = torch.zeros(1)
    assert is_published_layout({"model.0.conv.weight": tensor, "model.24.anchors": tensor})
    assert not is_published_layout({})
    assert not is_published_layout({"model.0.conv.weight": tensor, "head.predictors.0.bias": tensor})
    assert not is_published_layout({"model.zero.conv.weight": tensor})


def test_half_precision_becomes_float32_and_counters_stay():
    converted, _ = from_published(
        {
            "model.0.conv.weight": torch.tensor([0.1, 65504.0], dtype=torch.float16),
            "model.0.bn.num_batches_tracked": torch.tensor(2**40),
            # 1.25 and 11.65625 strides of 8 pixels: anchors, too, are exact in half precision before they are scaled.
            "model.24.anchors": torch.tensor([1.25, 11.65625], dtype=torch.float16).expand(3, 3, 2),
        }
    )
    weight = converted["backbone.bottom_up.stem.conv.weight"]
    assert weight.dtype == torch.float32
    assert weight.tolist() == [0.0999755859375, 65504.0]  # 0.1 in half precision: 1638 / 2^14
    count = converted["backbone.bottom_up.stem.norm.num_batches_tracked"]
    assert count.dtype == torch.int64 and count.item() == 2**40
    anchors = converted["head.anchors"]
    assert anchors.dtype == torch.float32
    assert anchors[:, 0].tolist() == [[10.0, 93.25], [20.0, 186.5], [40.0, 373.0]]


def test_a_state_dict_under_published_names_is_read_like_a_module(tmp_path):
    state = make_state("n", "cpu")
    path = tmp_path / "state.pth"
    published = to_published(state)
    published["model.10.conv.weight"] = published["model.10.conv.weight"].half()
    torch.save(published, path)
    weights = read_weights(path)
    assert weights.family and weights.class_names is None
    assert weights.state_dict.keys() == state.keys()
    name = "backbone.laterals.p5.conv.weight"
    assert torch.equal(weights.state_dict[name], state[name].half().float())
    torch.save({**published, "model.12.conv.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"state\.pth cannot be used: its tensor model\.12\.conv\.weight belongs to no"):
        read_weights(path)


@pytest.mark.parametrize(
    ("key", "wrap"),
    [
        (None, "module.{}".format),
        (None, "_orig_mod.{}".format),
        (None, "module._orig_mod.{}".format),
        ("model", "module.{}".format),
        ("model", lambda name: name.replace(".", "._orig_mod.", 1)),
        ("state_dict", "module.{}".format),
        ("model_state_dict", str),
    ],
)
@pytest.mark.parametrize("published", [False, True])
def test_names_with_wrappers_are_the_names_without(tmp_path, key, wrap, published):
    state = {name: torch.full((3, 3, 2), 2.0) for name in make_state("n", "meta")}
    wrapped = {wrap(name): tensor for name, tensor in (to_published(state) if published else state).items()}
    torch.save({key: wrapped, "epoch": 3} if key else wrapped, tmp_path / "m.pt")
    weights = read_weights(tmp_path / "m.pt")
    assert bool(weights.family) == published
    assert weights.state_dict.keys() == state.keys()
    assert all(torch.equal(weights.state_dict[name], tensor) for name, tensor in state.items())


def test_models_ready_for_inference_have_more_of_the_same_prefix(tmp_path):
    published = to_published({name: torch.full((3, 3, 2), 2.0) for name in make_state("n", "meta")})
    for prefix in ("model.", "model.model."):
        torch.save({prefix + name: tensor for name, tensor in published.items()}, tmp_path / "m.pt")
        assert len(read_weights(tmp_path / "m.pt").state_dict) == len(published)


def test_names_that_differ_only_by_a_wrapper_are_refused(tmp_path):
    torch.save({"stem.weight": torch.ones(1), "module.stem.weight": torch.zeros(1)}, tmp_path / "m.pt")
    with pytest.raises(UserError, match=r"m\.pt cannot be used: .*'module'"):
        read_weights(tmp_path / "m.pt")


# Files as they are published


@pytest.fixture(scope="module", params=[("yolov5n.pt", "n", 80), ("yolov5n6_random_14.pt", "n6", 14)])
def published_file(request):
    if not PARITY.is_dir():
        pytest.skip("there are no published weights here (../shared/parity)")
    file, size, num_classes = request.param
    return read_weights(PARITY / file), size, num_classes


def test_every_tensor_of_a_published_file_has_its_place(published_file):
    weights, size, num_classes = published_file
    assert weights.family and len(weights.class_names) == num_classes
    assert to_published(weights.state_dict).keys() == expected_keys(size)
    assert len(weights.state_dict) == {"n": 349, "n6": 459}[size]
    dtypes = {tensor.dtype for name, tensor in weights.state_dict.items() if "num_batches_tracked" not in name}
    assert dtypes == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in weights.state_dict.values())
    shapes = {name: tensor.shape for name, tensor in make_state(size, "meta").items()}
    for name, tensor in weights.state_dict.items():
        if not name.startswith("head."):  # which depends on the classes
            assert tensor.shape == shapes[name], name


def test_anchors_of_a_published_file_are_pixels(published_file):
    """Whole ones, in spite of the file's half precision."""
    weights, size, _ = published_file
    if size == "n":
        expected = [10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326]
        assert weights.state_dict["head.anchors"].flatten().tolist() == expected
    else:
        expected = [19, 27, 44, 40, 38, 94, 96, 68, 86, 152, 180, 137]
        expected += [140, 301, 303, 264, 238, 542, 436, 615, 739, 380, 925, 792]
        assert weights.state_dict["head.anchors"].flatten().tolist() == expected


# Class names in a module object


def stand_in(**state) -> ModuleStandIn:
    module = ModuleStandIn("models.yolo.Model")
    module.state.update(state)
    return module


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["car", "bus"], ["car", "bus"]),
        ({0: "car", 1: "bus"}, ["car", "bus"]),
        ({1: "bus", 0: "car"}, ["car", "bus"]),  # by index, in whatever order they were put in
        (["자동차", "per\u00a0son", "\x1b[2J"], ["자동차", "per\u00a0son", "\x1b[2J"]),
        (["car", "car"], ["car", "car"]),
        # What cannot be names is as good as none.
        (None, None),
        ([], None),
        ({}, None),
        ({1: "car", 2: "bus"}, None),
        ({"0": "car"}, None),
        (["car", 1], ["car", "1"]),
        ([0, 1], ["0", "1"]),
        ({0: 1, 1: "a\n"}, ["1", "a\n"]),
        ({0: 0, 1: True}, None),
        ([True, False], None),
        (["car", 1.5], None),
        ("car", None),
    ],
)
def test_class_names_are_a_list_or_a_dict(names, expected):
    state, class_names = read_module(stand_in(names=names, _parameters={"weight": torch.zeros(2)}))
    assert class_names == expected
    assert list(state) == ["weight"]


def test_tensors_of_a_module_have_their_path_as_name():
    activation = stand_in(_parameters={}, _buffers={}, _modules={})  # without tensors it may be shared
    norm = stand_in(_parameters={"weight": torch.ones(2), "bias": None}, _buffers={"running_mean": torch.zeros(2)})
    conv = stand_in(_parameters={"weight": torch.full((2, 2), 3.0)}, _modules={"bn": norm, "act": activation})
    module = stand_in(_modules={"model": stand_in(_modules={"0": conv, "1": activation, "2": None})}, names=["car"])
    state, class_names = read_module(module)
    assert list(state) == ["model.0.weight", "model.0.bn.weight", "model.0.bn.running_mean"]
    assert state["model.0.weight"].eq(3).all() and class_names == ["car"]


def test_modules_that_lead_to_themselves_or_have_no_tensors():
    block = stand_in(_parameters={"weight": torch.zeros(2)})
    with pytest.raises(LayoutError, match="occurs twice"):
        read_module(stand_in(_modules={"0": block, "1": block}))
    circle = stand_in()
    circle.state["_modules"] = {"0": circle}
    state, _ = read_module(circle)
    assert state == {}
    with pytest.raises(LayoutError, match="_parameters"):
        read_module(stand_in(_parameters={"weight": [0.0]}))
    with pytest.raises(LayoutError, match="_modules"):
        read_module(stand_in(_modules=[block]))
