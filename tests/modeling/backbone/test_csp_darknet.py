import pytest
import torch
from detectron2.layers import ShapeSpec

from parking.modeling import CSPDarknet
from parking.modeling.backbone.csp_darknet import scale_channels, scale_repeats
from parking.utils.errors import UserError


def make(out_features, depth=0.33, width=0.125, **options):
    return CSPDarknet(in_channels=3, depth_multiple=depth, width_multiple=width, out_features=out_features, **options)


def test_channels_are_rounded_up_to_a_multiple_of_8():
    assert [scale_channels(c, 0.125) for c in (64, 128, 768)] == [8, 16, 96]
    assert scale_channels(64, 0.33) == 24  # 21.12


def test_repeats_are_at_least_one():
    # 0.99, 1.98, 2.97 and 0.3
    assert [scale_repeats(n, 0.33) for n in (3, 6, 9)] == [1, 2, 3]
    assert scale_repeats(3, 0.1) == 1


@pytest.mark.parametrize(
    ("out_features", "channels", "strides"),
    [
        (["dark3", "dark4", "dark5"], [32, 64, 128], [8, 16, 32]),
        (["dark3", "dark4", "dark5", "dark6"], [32, 64, 96, 128], [8, 16, 32, 64]),
        (["dark2", "dark5"], [16, 128], [4, 32]),
    ],
)
def test_output_shape_is_what_comes_out(out_features, channels, strides):
    model = make(out_features).eval()
    outputs = model(torch.rand(1, 3, 128, 64))
    assert list(outputs) == out_features
    for name, c, s in zip(out_features, channels, strides, strict=True):
        assert model.output_shape()[name] == ShapeSpec(channels=c, stride=s)
        assert outputs[name].shape == (1, c, 128 // s, 64 // s)
    assert model.size_divisibility == strides[-1]


def test_only_the_last_stage_has_sppf():
    p5, p6 = make(["dark3", "dark5"]), make(["dark3", "dark6"])
    assert hasattr(p5.dark5, "sppf")
    assert not hasattr(p6.dark5, "sppf")
    assert hasattr(p6.dark6, "sppf")


def test_repeats_per_stage():
    model = make(["dark6"], depth=1.0)
    assert [len(getattr(model, f"dark{i}").csp.blocks) for i in range(2, 7)] == [3, 6, 9, 3, 3]


@pytest.mark.parametrize("out_features", [[], ["dark3", "dark4"], ["dark1", "dark5"], ["dark6", "dark5"]])
def test_unknown_stages_are_the_users_mistake(out_features):
    with pytest.raises(UserError, match=r"MODEL\.CSP_DARKNET\.OUT_FEATURES"):
        make(out_features)


def test_the_yolox_layout_repeats_otherwise_and_pools_before_the_last_block():
    model = make(["dark3", "dark5"], depth=0.5, layout="yolox")
    # 3 * 0.5 is rounded to 2, and only then taken three times.
    assert [len(getattr(model, f"dark{i}").csp.blocks) for i in range(2, 6)] == [2, 6, 6, 2]
    assert [list(dict(getattr(model, f"dark{i}").named_children())) for i in (4, 5)] == [
        ["downsample", "csp"],
        ["downsample", "sppf", "csp"],
    ]
    shortcuts = [getattr(model, f"dark{i}").csp.blocks[0].shortcut for i in range(2, 6)]
    assert shortcuts == [True, True, True, False]
    with pytest.raises(UserError, match=r"OUT_FEATURES.*dark5, .*LAYOUT yolox"):
        make(["dark3", "dark6"], layout="yolox")


def test_every_3x3_convolution_but_the_stem_can_be_a_depthwise_pair():
    model = make(["dark3", "dark5"], depthwise=True).eval()
    kernels = {(m.kernel_size, m.groups > 1) for m in model.modules() if isinstance(m, torch.nn.Conv2d)}
    assert kernels == {((6, 6), False), ((3, 3), True), ((1, 1), False)}
    assert model(torch.rand(1, 3, 64, 64))["dark5"].shape == (1, 128, 2, 2)
