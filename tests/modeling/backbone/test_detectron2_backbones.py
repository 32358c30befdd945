"""detectron2's ResNets in the place of this project's backbone."""

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import Boxes, Instances
from torch import nn
from torch.testing import assert_close

from parking.config import get_cfg
from parking.inference.build import build_model
from parking.layers import fuse_conv_norm
from parking.modeling import YOLOWithTTA
from parking.modeling.registered import list_registered
from parking.utils.constants import DETECTRON2_BACKBONES, RESNET, RESNET_FPN, RETINANET_FPN
from parking.utils.errors import UserError

SMALL = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"]
LEVELS = {
    RESNET: ["res3", "res4", "res5"],
    RESNET_FPN: ["p3", "p4", "p5"],
    RETINANET_FPN: ["p3", "p4", "p5", "p6", "p7"],
}
# The usual ones of three levels, then larger ones.
ANCHORS = [[[10, 13]], [[30, 61]], [[116, 90]], [[200, 200]], [[400, 400]]]


def make_cfg(name, *opts, levels=None):
    levels = levels or LEVELS[name]
    cfg = get_cfg()
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", name, *SMALL, "MODEL.YOLO.NUM_CLASSES", "2"])
    cfg.merge_from_list(["MODEL.FPN.OUT_CHANNELS", "32"] if name != RESNET else [])
    cfg.MODEL.YOLO.IN_FEATURES = levels
    cfg.MODEL.ANCHOR_HEAD.ANCHORS = ANCHORS[: len(levels)]
    cfg.MODEL.ANCHOR_HEAD.LOSS.OBJ_LEVEL_WEIGHTS = [1.0] * len(levels)
    cfg.merge_from_list(list(opts))
    return cfg


def make_model(*args, **kwargs):
    torch.manual_seed(0)
    return build_model(make_cfg(*args, **kwargs))


def test_they_can_be_named_and_detectron2s_other_parts_cannot():
    registered = list_registered()
    assert set(DETECTRON2_BACKBONES) < set(registered["MODEL.BACKBONE.NAME"])
    # Other tests may have registered some of their own.
    assert "YOLO" in registered["MODEL.META_ARCHITECTURE"]
    assert not {"GeneralizedRCNN", "RetinaNet", "FCOS"} & set(registered["MODEL.META_ARCHITECTURE"])


@pytest.mark.parametrize("name", DETECTRON2_BACKBONES)
def test_strides_and_channels_are_the_backbones_and_every_weight_is_trained(name):
    model = make_model(name)
    strides = [8, 16, 32, 64, 128][: len(LEVELS[name])]
    assert model.head.strides == strides and model.size_divisibility == strides[-1]
    boxes = Instances((70, 100), gt_boxes=Boxes(torch.tensor([[10.0, 10, 60, 50]])), gt_classes=torch.tensor([1]))
    losses = model([{"image": torch.rand(3, 70, 100) * 255, "instances": boxes}])
    sum(losses.values()).backward()
    untrained = [n for n, p in model.named_parameters() if p.grad is None]
    assert not untrained
    model.eval()
    for detector in (model, YOLOWithTTA(model)):
        with torch.no_grad():
            result = detector([{"image": torch.zeros(3, 70, 100), "height": 140}])[0]
        assert result["instances"].image_size == (140, 100)


def test_a_level_from_pooling_has_whole_cells():
    model = make_model(RESNET_FPN, levels=["p3", "p4", "p5", "p6"])
    assert (model.backbone.size_divisibility, model.size_divisibility) == (32, 64)
    predictions = model.eval().predict(model.preprocess_image([{"image": torch.zeros(3, 96, 96)}]).tensor)
    assert predictions.level_sizes == (256, 64, 16, 4)  # of 128 x 128


@torch.no_grad()
@pytest.mark.parametrize("freeze_at", [0, 2])
@pytest.mark.parametrize("norm", ["BN", "SyncBN", "GN"])
def test_norms_are_folded(norm, freeze_at):
    opts = ["MODEL.RESNETS.NORM", norm, "MODEL.FPN.NORM", norm, "MODEL.BACKBONE.FREEZE_AT", str(freeze_at)]
    model = make_model(RESNET_FPN, *opts).eval()
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | FrozenBatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            module.weight.uniform_(0.5, 1.5)
            module.bias.uniform_(-0.3, 0.3)
    images = torch.rand(1, 3, 64, 96)
    before = model.predict(images)
    names = set(model.state_dict())
    folded = fuse_conv_norm(copy.deepcopy(model))
    assert_close(tuple(folded.predict(images)), tuple(before), rtol=1e-3, atol=1e-3)
    left = {name for name in folded.state_dict() if ".norm." in name}
    assert bool(left) == (norm == "GN")
    assert (names == set(folded.state_dict())) == (norm == "GN")
    assert fuse_conv_norm(folded) is folded


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.RES2_OUT_CHANNELS", "256"], r"MODEL\.RESNETS\.RES2_OUT_CHANNELS = 64"),
        (["MODEL.RESNETS.NUM_GROUPS", "2"], r"MODEL\.RESNETS\.NUM_GROUPS = 1"),
        (["MODEL.RESNETS.NORM", "GN", "MODEL.RESNETS.STEM_OUT_CHANNELS", "40"], "divisible by"),
        (["MODEL.YOLO.IN_FEATURES", "['p3', 'p4', 'res5']"], r"MODEL\.YOLO\.IN_FEATURES names \['res5'\]"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(opts, message):
    with pytest.raises(UserError, match=message):
        build_model(make_cfg(RESNET_FPN, *opts))
