"""Folding batch norms into the convolutions."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from parking.config import get_cfg
from parking.layers import ConvNormAct, DepthwiseConvNormAct, fuse_conv_norm
from parking.modeling import YOLO

PICO = ("MODEL.YOLO.WIDTH_MULTIPLE", "0.125", "MODEL.YOLO.NUM_CLASSES", "3", "MODEL.DEVICE", "cpu")


def randomize_norms(model: nn.Module) -> nn.Module:
    """Statistics and affine parameters far from the 0 and 1 that make a norm do next to nothing."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.3, 3.0)
            nn.init.uniform_(module.weight, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.5)
    return model


@pytest.fixture
def model():
    torch.manual_seed(0)
    cfg = get_cfg()
    cfg.merge_from_list(list(PICO))
    return randomize_norms(YOLO(cfg)).eval()


def test_one_channel_by_hand():
    block = ConvNormAct(1, 1).eval()
    nn.init.constant_(block.conv.weight, 3.0)
    block.norm.running_mean.fill_(5.0)
    block.norm.running_var.fill_(4.0 - 1e-3)  # eps 1e-3 makes it 4, of which the root is 2
    nn.init.constant_(block.norm.weight, 10.0)
    nn.init.constant_(block.norm.bias, 0.25)
    fuse_conv_norm(block)
    # 10 (3 x - 5) / 2 + 0.25 = 15 x - 24.75
    assert block.conv.weight.item() == pytest.approx(15.0)
    assert block.conv.bias.item() == pytest.approx(-24.75)
    y = torch.tensor(15 * 1.7 - 24.75)
    assert_close(block(torch.full((1, 1, 1, 1), 1.7)).squeeze(), y * y.sigmoid())


@torch.no_grad()
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_outputs_stay_the_same(model, memory_format):
    model = model.to(memory_format=memory_format)
    images = torch.rand(2, 3, 64, 96).to(memory_format=memory_format)
    before = model.predict(images)
    plain = copy.deepcopy(model)
    after = fuse_conv_norm(model).predict(images)
    assert_close(after.boxes, before.boxes, rtol=1e-4, atol=1e-3)
    assert_close(after.scores, before.scores, rtol=1e-4, atol=0)
    # That holds for something: without the norms the outputs are quite different.
    for block in plain.modules():
        if isinstance(block, ConvNormAct):
            block.norm = nn.Identity()
    unlike = plain.predict(images).boxes - before.boxes
    assert (unlike.norm() / before.boxes.norm()).item() > 0.01


def test_every_block_is_folded(model):
    convs = sum(isinstance(module, nn.Conv2d) for module in model.modules())
    assert fuse_conv_norm(model) is model
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())
    blocks = [module for module in model.modules() if isinstance(module, ConvNormAct)]
    # All convolutions but the three of the head, which have no norm.
    assert len(blocks) == convs - 3 == sum(isinstance(module, nn.Conv2d) for module in model.modules()) - 3
    assert all(block.conv.bias is not None for block in blocks)
    assert not model.training


@torch.no_grad()
def test_a_second_call_changes_nothing(model):
    state = {name: tensor.clone() for name, tensor in fuse_conv_norm(model).state_dict().items()}
    again = fuse_conv_norm(model).state_dict()
    assert again.keys() == state.keys()
    for name, tensor in again.items():
        assert torch.equal(tensor, state[name]), name


def test_stride_and_padding_stay():
    block = ConvNormAct(3, 8, 6, 2, 2).eval()
    x = torch.rand(1, 3, 12, 10)
    before = randomize_norms(block)(x)
    assert_close(fuse_conv_norm(block)(x), before, rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["BN", "SyncBN"])
def test_depthwise_pairs_are_folded(norm):
    torch.manual_seed(0)
    plain, block = (DepthwiseConvNormAct(6, 8, stride=2, norm=norm).eval() for norm in ("BN", norm))
    block.load_state_dict(randomize_norms(plain).state_dict())
    x = torch.rand(2, 6, 12, 10)
    assert_close(fuse_conv_norm(block)(x), plain(x), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in block.modules())


def test_synchronised_norms_are_folded_too():
    torch.manual_seed(0)
    block = randomize_norms(ConvNormAct(3, 8, norm="SyncBN"))
    nn.init.uniform_(block.norm.running_var, 0.3, 3.0)
    plain = ConvNormAct(3, 8).eval()
    plain.load_state_dict(block.state_dict())
    x = torch.rand(2, 3, 5, 5)
    assert_close(fuse_conv_norm(block.eval())(x), plain(x), rtol=1e-4, atol=1e-6)


def test_the_state_of_a_folded_model_cannot_pass_for_a_checkpoint(model):
    """So that a mistake cannot go unnoticed: strict loading refuses it."""
    fresh = copy.deepcopy(model)
    with pytest.raises(RuntimeError, match=r"Missing key\(s\).*norm"):
        fresh.load_state_dict(fuse_conv_norm(model).state_dict())


def test_a_model_in_training_mode_is_refused(model):
    """Its norms would go on learning: folding them now would freeze them."""
    with pytest.raises(AssertionError, match="eval"):
        fuse_conv_norm(model.train())
