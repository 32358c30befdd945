import pytest
import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch.testing import assert_close

from parking.modeling import PAFPN, CSPDarknet
from parking.utils.errors import UserError


def make(in_features, bottom_up_features=None):
    bottom_up = CSPDarknet(
        in_channels=3,
        depth_multiple=0.33,
        width_multiple=0.125,
        out_features=bottom_up_features or in_features,
    )
    return PAFPN(bottom_up=bottom_up, in_features=in_features, depth_multiple=0.33).eval()


@pytest.mark.parametrize(("last", "channels"), [(5, [32, 64, 128]), (6, [32, 64, 96, 128])])
def test_output_shape_is_what_comes_out(last, channels):
    model = make([f"dark{i}" for i in range(3, last + 1)])
    outputs = model(torch.rand(2, 3, 64, 192))
    assert list(outputs) == [f"p{i}" for i in range(3, last + 1)]
    for level, c in zip(outputs, channels, strict=True):
        stride = 2 ** int(level[1:])
        assert model.output_shape()[level] == ShapeSpec(channels=c, stride=stride)
        assert outputs[level].shape == (2, c, 64 // stride, 192 // stride)
    assert model.size_divisibility == 2**last


def test_paths_by_hand():
    model = make(["dark4", "dark5"])
    x = torch.rand(1, 3, 64, 64)
    features = model.bottom_up(x)
    lateral = model.laterals["p5"](features["dark5"])
    upsampled = F.interpolate(lateral, scale_factor=2.0)
    p4 = model.top_down_blocks["p4"](torch.cat([upsampled, features["dark4"]], dim=1))
    p5 = model.bottom_up_blocks["p5"](torch.cat([model.downsamples["p4"](p4), lateral], dim=1))
    assert_close(model(x), {"p4": p4, "p5": p5})


@pytest.mark.parametrize(
    ("in_features", "reason"), [([], "name some"), (["dark2", "dark3"], "name some"), (["dark3", "dark5"], "twice")]
)
def test_features_that_do_not_fit_are_the_users_mistake(in_features, reason):
    with pytest.raises(UserError, match=rf"MODEL\.PAFPN\.IN_FEATURES.*{reason}"):
        make(in_features, bottom_up_features=["dark3", "dark4", "dark5"])
