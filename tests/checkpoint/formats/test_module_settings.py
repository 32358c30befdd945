"""A pickled model that computes otherwise than ours does is refused, by the setting that differs."""

import math

import pytest
import torch

from parking.checkpoint.formats.layout import LayoutError
from parking.checkpoint.formats.module_settings import check_settings
from parking.checkpoint.formats.pickled_modules import unwrap_module
from parking.checkpoint.formats.yolov5 import P5_LAYERS, P6_LAYERS
from parking.checkpoint.restricted_pickle import ModuleStandIn

NN = "torch.nn.modules"


def make(kind: str, modules=None, parameters=None, **attributes) -> ModuleStandIn:
    module = ModuleStandIn(kind)
    module.state = {"_modules": modules or {}, "_parameters": parameters or {}, "training": False, **attributes}
    return module


def convolution(stride=1, padding=0, **parameters):
    return make(
        f"{NN}.conv.Conv2d",
        None,
        parameters,
        stride=(stride, stride),
        padding=(padding, padding),
        dilation=(1, 1),
        groups=1,
        transposed=False,
        padding_mode="zeros",
    )


def conv(stride=1, padding=0):
    norm = make(f"{NN}.batchnorm.BatchNorm2d", eps=0.001, momentum=0.03, affine=True, track_running_stats=True)
    parts = {"conv": convolution(stride, padding), "bn": norm, "act": make(f"{NN}.activation.SiLU", inplace=True)}
    return make("models.common.Conv", parts, f=-1)


def c3(shortcut):
    bottleneck = make("models.common.Bottleneck", {"cv1": conv(), "cv2": conv(1, 1)}, add=shortcut)
    parts = {"cv1": conv(), "cv2": conv(), "cv3": conv(), "m": make(f"{NN}.container.Sequential", {"0": bottleneck})}
    return make("models.common.C3", parts, f=-1)


def pool(size, **attributes):
    sizes = {"kernel_size": size, "stride": 1, "padding": size // 2, "dilation": 1, "ceil_mode": False}
    return make(f"{NN}.pooling.MaxPool2d", **{**sizes, **attributes})


def anchor_head(num_levels) -> ModuleStandIn:
    predictors = {str(k): convolution(bias=torch.zeros(21)) for k in range(num_levels)}
    return make("models.yolo.Detect", {"m": make(f"{NN}.container.ModuleList", predictors)}, na=3, no=7)


def distribution_head(num_levels) -> ModuleStandIn:
    """16 bins of a side, so 64 outputs for boxes."""

    def branch(outputs):
        parts = [conv(1, 1), conv(1, 1), convolution(bias=torch.zeros(outputs))]
        return make(f"{NN}.container.Sequential", {str(k): part for k, part in enumerate(parts)})

    parts = {
        name: make(f"{NN}.container.ModuleList", {str(k): branch(outputs) for k in range(num_levels)})
        for name, outputs in (("cv2", 64), ("cv3", 2))
    }
    parts["dfl"] = make("models.block.DFL", {"conv": convolution(weight=torch.arange(16.0).view(1, 16, 1, 1))}, c1=16)
    return make("models.head.Detect", parts, reg_max=16, no=66, end2end=False)


HEADS = {"yolov5": anchor_head, "yolov5u": distribution_head}


def model(num_levels=3, family="yolov5") -> ModuleStandIn:
    roles = P5_LAYERS if num_levels == 3 else P6_LAYERS
    layers = {}
    for position in range(max(roles) + 1):
        role = roles.get(position, "")
        if role.endswith("stem"):
            layer = conv(2, 2)
        elif "downsample" in role:
            layer = conv(2, 1)
        elif "lateral" in role:
            layer = conv()
        elif role.endswith("sppf"):
            layer = make("models.common.SPPF", {"cv1": conv(), "cv2": conv(), "m": pool(5)}, f=-1)
            layer.state |= {"n": 3, "add": False} if family == "yolov5u" else {}
        elif role == "head":
            layer = HEADS[family](num_levels)
            layer.state |= {
                "nl": num_levels,
                "nc": 2,
                "stride": torch.tensor([8.0, 16, 32, 64][:num_levels]).half(),
                "f": [17, 20, 23] if num_levels == 3 else [23, 26, 29, 32],
            }
        elif role:
            layer = c3("csp" in role)
        elif "lateral" in roles.get(position - 1, ""):
            layer = make(f"{NN}.upsampling.Upsample", f=-1, mode="nearest", scale_factor=2.0, size=None)
        else:
            second = (
                {12: 6, 16: 4, 19: 14, 22: 10} if num_levels == 3 else {14: 8, 18: 6, 22: 4, 25: 20, 28: 16, 31: 12}
            )
            layer = make("models.common.Concat", f=[-1, second[position]], d=1)
        layers[str(position)] = layer
    return make("models.yolo.DetectionModel", {"model": make(f"{NN}.container.Sequential", layers)}, names=["a", "b"])


def part(root: ModuleStandIn, path: str) -> ModuleStandIn:
    for name in path.split("."):
        root = root.state["_modules"][name]
    return root


@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("num_levels", [3, 4])
def test_the_usual_model_passes_and_so_does_one_that_says_nothing(num_levels, family):
    check_settings(model(num_levels, family))
    silent = model(num_levels, family)

    def silence(module):
        module.state = {"_modules": module.state["_modules"]}
        for child in module.state["_modules"].values():
            silence(child)

    silence(silent)
    check_settings(silent)


@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        ("model.0.bn", "eps", 1e-5),
        ("model.0.bn", "eps", math.nan),
        ("model.4.cv3.bn", "track_running_stats", False),
        ("model.0.conv", "stride", (1, 1)),
        ("model.1.conv", "padding", (0, 0)),
        ("model.1.conv", "padding", "same"),
        ("model.2.m.0.cv2.conv", "groups", 2),
        ("model.2.m.0.cv2.conv", "dilation", (2, 2)),
        ("model.10.conv", "padding_mode", "reflect"),
        ("model.10.conv", "transposed", True),
        ("model.2.m.0", "add", False),
        ("model.13.m.0", "add", True),
        ("model.9.m", "kernel_size", 3),
        ("model.9.m", "padding", 1),
        ("model.9.m", "stride", 2),
        ("model.9.m", "ceil_mode", True),
        ("model.11", "mode", "bilinear"),
        ("model.11", "scale_factor", 4.0),
        ("model.11", "size", 40),
        ("model.11", "align_corners", True),
        ("model.12", "d", 2),
        ("model.12", "f", [-1, 4]),
        ("model.5", "f", 3),
        ("model.24", "f", [23, 20, 17]),
        ("model.24", "stride", torch.tensor([4.0, 8, 16])),
        ("model.24", "nl", 4),
        ("model.24", "nc", 3),
        ("model.24.m.1", "padding", (1, 1)),
    ],
)
def test_a_setting_that_differs_is_named(path, attribute, value):
    root = model()
    part(root, path).state[attribute] = value
    with pytest.raises(LayoutError, match=rf"{path} has {attribute} .* instead of"):
        check_settings(root)


@pytest.mark.parametrize(
    ("path", "attribute", "value"),
    [
        ("model.9", "n", 2),
        ("model.9", "add", True),
        ("model.24", "f", [23, 20, 17]),
        ("model.24", "stride", torch.tensor([4.0, 8, 16])),
        ("model.24", "nl", 4),
        ("model.24", "nc", 3),
        ("model.24", "no", 65),
        ("model.24", "reg_max", 8),
        ("model.24", "end2end", True),
        ("model.24.cv2.1.0.bn", "eps", 1e-5),
        ("model.24.cv2.1.1.conv", "padding", (0, 0)),
        ("model.24.cv3.2.0.conv", "groups", 2),
        ("model.24.cv3.0.2", "stride", (2, 2)),
        ("model.24.dfl", "c1", 17),
        ("model.24.dfl.conv", "stride", (2, 2)),
    ],
)
def test_a_setting_of_the_distribution_head_that_differs_is_named(path, attribute, value):
    root = model(family="yolov5u")
    part(root, path).state[attribute] = value
    with pytest.raises(LayoutError, match=rf"{path} has {attribute} .* instead of"):
        check_settings(root)


@pytest.mark.parametrize(
    ("path", "kind", "shown"),
    [
        ("model.24", "models.head.Segment", "Segment"),
        ("model.24", "models.head.v10Detect", "v10Detect"),
        ("model.24.cv2", f"{NN}.container.Sequential", "Sequential"),
        ("model.24.cv3.1", f"{NN}.container.ModuleList", "ModuleList"),
        ("model.24.cv3.1.0", "models.conv.DWConv", "DWConv"),
        ("model.24.cv3.1.0.act", f"{NN}.activation.ReLU", "ReLU"),
        ("model.24.dfl", f"{NN}.linear.Identity", "Identity"),
    ],
)
def test_another_class_of_module_in_the_distribution_head_is_named(path, kind, shown):
    root = model(family="yolov5u")
    part(root, path).kind = kind
    with pytest.raises(LayoutError, match=rf"{path} is a {shown}"):
        check_settings(root)


@pytest.mark.parametrize("name", ["one2one_cv2", "cv4"])
def test_a_third_branch_is_named(name):
    root = model(family="yolov5u")
    part(root, "model.24").state["_modules"][name] = make(f"{NN}.container.ModuleList")
    with pytest.raises(LayoutError, match=f"{name}, a ModuleList"):
        check_settings(root)


@pytest.mark.parametrize(
    ("path", "kind", "shown"),
    [
        ("model.0.act", f"{NN}.activation.LeakyReLU", "LeakyReLU"),
        ("model.0.act", f"{NN}.linear.Identity", "Identity"),
        ("model.0.bn", f"{NN}.normalization.GroupNorm", "GroupNorm"),
        ("model.0.conv", f"{NN}.conv.ConvTranspose2d", "ConvTranspose2d"),
        ("model.0", "models.common.Focus", "Focus"),
        ("model.2", "models.common.C3x", "C3x"),
        ("model.2.m.0", "models.common.CrossConv", "CrossConv"),
        ("model.9.m", f"{NN}.pooling.AvgPool2d", "AvgPool2d"),
        ("model.11", f"{NN}.upsampling.UpsamplingBilinear2d", "UpsamplingBilinear2d"),
        ("model.12", "models.common.Add", "Add"),
        ("model.24", "models.yolo.Segment", "Segment"),
    ],
)
def test_another_class_of_module_is_named(path, kind, shown):
    root = model()
    part(root, path).kind = kind
    with pytest.raises(LayoutError, match=rf"{path} is a {shown}"):
        check_settings(root)


def test_settings_of_an_activation_are_told_and_all_are_counted():
    root = model()
    activation = part(root, "model.0.act")
    activation.kind, activation.state["negative_slope"] = f"{NN}.activation.LeakyReLU", 0.1
    part(root, "model.9.m").state["kernel_size"] = (3, 3)
    with pytest.raises(LayoutError, match=r"negative_slope 0\.1\).*1 more"):
        check_settings(root)


def test_a_part_that_ours_have_not_is_named():
    root = model()
    part(root, "model.2").state["_modules"]["drop"] = make(f"{NN}.dropout.Dropout", p=0.5)
    with pytest.raises(LayoutError, match="drop, a Dropout"):
        check_settings(root)


def test_pools_side_by_side_are_the_chained_ones():
    root = model()
    block = part(root, "model.9")
    block.kind = "models.common.SPP"
    block.state["_modules"]["m"] = make(f"{NN}.container.ModuleList", {str(k): pool(5 + 4 * k) for k in range(3)})
    check_settings(root)
    part(root, "model.9.m.2").state["kernel_size"] = 11
    with pytest.raises(LayoutError, match=r"model\.9\.m\.2 has kernel_size 11 instead of 13"):
        check_settings(root)


HOSTILE_VALUES = [
    *(None, True, "", "x" * 10**6, "\x1b[2J", b"1", 2**2000, -1, math.inf, [], (1,) * 10**5, [[[]]], {}, {"a": 1}),
    *(torch.zeros(0), torch.zeros(1).expand(10**9), torch.tensor(math.nan), make("models.common.Conv"), object()),
]


@pytest.mark.parametrize(
    ("path", "family"),
    [
        *((path, "yolov5") for path in ("model", "model.0", "model.0.conv", "model.0.bn", "model.9.m", "model.11")),
        *(("model.24", family) for family in HEADS),
        *((f"model.24.{name}", "yolov5u") for name in ("cv2", "cv3.0", "cv2.1.2", "dfl", "dfl.conv")),
    ],
)
def test_values_of_any_type_end_in_a_sentence(path, family):
    names = list(part(model(family=family), path).state)
    for name in names:
        for value in HOSTILE_VALUES:
            root = model(family=family)
            part(root, path).state[name] = value
            try:
                check_settings(root)
            except LayoutError as error:
                assert str(error).isprintable() and len(str(error)) < 400


def test_wrappers_are_taken_off():
    root = model()
    several = make("torch.nn.parallel.data_parallel.DataParallel", {"module": root})
    ready = make("models.common.AutoShape", {"model": make("models.common.DetectMultiBackend", {"model": several})})
    assert unwrap_module(ready) is root and unwrap_module(root) is root
