import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from parking.layers import C3, SPPF, Bottleneck, ConvNormAct, DepthwiseConvNormAct, conv3x3


def captured_input(module, block, x):
    inputs = []
    handle = module.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    block(x)
    handle.remove()
    return inputs[0]


@pytest.mark.parametrize(("args", "size"), [((3, 8), 10), ((3, 8, 3), 10), ((3, 8, 3, 2), 5), ((3, 8, 6, 2, 2), 5)])
def test_conv_norm_act_shape(args, size):
    assert ConvNormAct(*args)(torch.rand(2, 3, 10, 10)).shape == (2, 8, size, size)


def test_conv_norm_act_is_silu_of_norm_of_conv():
    block = ConvNormAct(3, 4, 3)
    assert block.conv.bias is None
    assert (block.norm.eps, block.norm.momentum) == (1e-3, 0.03)
    x = torch.rand(2, 3, 5, 5)
    conv = F.conv2d(x, block.conv.weight, padding=1)
    mean, var = conv.mean((0, 2, 3), keepdim=True), conv.var((0, 2, 3), keepdim=True, unbiased=False)
    norm = (conv - mean) / (var + 1e-3).sqrt()
    assert_close(block(x), norm * norm.sigmoid())


def test_input_is_left_alone():
    x = torch.rand(1, 8, 6, 6)
    before = x.clone()
    for block in (ConvNormAct(8, 8), Bottleneck(8, shortcut=True), C3(8, 8, 1, shortcut=True), SPPF(8, 8)):
        block.eval()(x)
        assert_close(x, before, rtol=0, atol=0)


def test_bottleneck_shortcut_adds_the_input():
    with_shortcut = Bottleneck(8, shortcut=True).eval()
    without = Bottleneck(8, shortcut=False).eval()
    without.load_state_dict(with_shortcut.state_dict())
    x = torch.rand(1, 8, 6, 6)
    assert_close(with_shortcut(x), without(x) + x)


def test_a_depthwise_pair_filters_each_channel_alone_and_then_mixes_them():
    block = DepthwiseConvNormAct(4, 6, stride=2).eval()
    x = torch.rand(2, 4, 8, 10)
    other = x.clone()
    other[:, 1] += 1
    differs = (block.depthwise(x) != block.depthwise(other)).flatten(2).any(dim=2)
    assert differs.tolist() == [[False, True, False, False]] * 2
    assert block(x).shape == (2, 6, 4, 5)
    # 3 x 3 of each channel and two numbers of its norm; 1 x 1 of all channels and two numbers of each norm.
    assert sum(p.numel() for p in block.parameters()) == 4 * (9 + 2) + 6 * (4 + 2)


def test_depthwise_pairs_take_the_place_of_3x3_convolutions_only():
    assert type(conv3x3(4, 8, depthwise=False)) is ConvNormAct
    block = C3(8, 8, 2, shortcut=True, depthwise=True)
    pairs = [module for module in block.modules() if isinstance(module, DepthwiseConvNormAct)]
    assert pairs == [bottleneck.conv2 for bottleneck in block.blocks]
    x = torch.rand(1, 8, 6, 6)
    assert_close(block.eval()(x.to(memory_format=torch.channels_last)), block(x))


def test_c3_joins_bottlenecks_before_the_way_around():
    block = C3(6, 16, 2, shortcut=False).eval()
    x = torch.rand(1, 6, 5, 5)
    joined = captured_input(block.conv3, block, x)
    assert_close(joined[:, :8], block.blocks(block.conv1(x)))
    assert_close(joined[:, 8:], block.conv2(x))
    assert len(block.blocks) == 2


def test_sppf_pools_5_9_and_13():
    block = SPPF(8, 12).eval()
    x = torch.rand(1, 8, 16, 16)
    hidden = block.conv1(x)
    pools = [F.max_pool2d(hidden, size, stride=1, padding=size // 2) for size in (5, 9, 13)]
    assert_close(captured_input(block.conv2, block, x), torch.cat([hidden, *pools], dim=1))
    assert block(x).shape == (1, 12, 16, 16)


def test_sync_bn_has_the_same_constants():
    norm = ConvNormAct(3, 4, norm="SyncBN").norm
    assert isinstance(norm, torch.nn.SyncBatchNorm)
    assert (norm.eps, norm.momentum) == (1e-3, 0.03)
