"""Models ready for inference."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from parking.checkpoint import Weights, load_weights
from parking.config import get_cfg
from parking.inference.build import build_inference_model, build_model
from parking.modeling import YOLO, YOLOWithTTA
from parking.utils.errors import UserError


@pytest.fixture
def cfg():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.125
    cfg.MODEL.YOLO.NUM_CLASSES = 2
    return cfg


@pytest.fixture
def weights(cfg):
    torch.manual_seed(0)
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.running_mean, std=0.3)
    model.head.anchors += 1
    return Weights("w.pth", {n: tensor.clone() for n, tensor in model.state_dict().items()}, class_names=["cat", "dog"])


def norms(model):
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


@torch.no_grad()
def test_folded_in_eval_mode_and_the_weights_stay_as_they_are(cfg, weights):
    before = {name: tensor.clone() for name, tensor in weights.state_dict.items()}
    model = build_inference_model(cfg, weights)
    assert isinstance(model, YOLO) and not model.training and not norms(model)
    assert weights.state_dict.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(weights.state_dict[name], tensor), name

    unfolded = build_model(cfg).eval()
    load_weights(unfolded, weights)
    assert norms(unfolded)
    images = torch.rand(1, 3, 64, 64)
    assert_close(tuple(model.predict(images)), tuple(unfolded.predict(images)), rtol=1e-4, atol=1e-4)


def test_views_when_asked_for(cfg, weights):
    cfg.TEST.AUG.ENABLED = True
    model = build_inference_model(cfg, weights)
    assert isinstance(model, YOLOWithTTA) and not model.training and not model.model.training and not norms(model)


def test_keys_of_the_config_that_concern_weights(cfg, weights):
    assert build_inference_model(cfg, weights).head.anchors[0, 0].tolist() == [11, 14]
    cfg.MODEL.ANCHOR_HEAD.ANCHORS_FROM_WEIGHTS = False
    cfg.MODEL.YOLO.CLASS_MAP = [["puppy", "dog"]]
    cfg.MODEL.YOLO.NUM_CLASSES = 3
    model = build_inference_model(cfg, weights, ["puppy", "cat", "cow"])
    assert model.head.anchors[0, 0].tolist() == [10, 13]
    theirs = weights.state_dict["head.predictors.1.bias"].view(3, 7)
    ours = model.head.predictors[1].bias.view(3, 8)
    assert torch.equal(ours[:, [0, 1, 2, 3, 4, 5, 6]], theirs[:, [0, 1, 2, 3, 4, 6, 5]])


def test_nothing_is_predicted_with_class_outputs_that_mean_nothing(cfg, weights):
    with pytest.raises(UserError, match="none of them is found in the weights by its name"):
        build_inference_model(cfg, weights, ["cow", "horse"])


def test_weights_that_half_precision_cannot_hold_are_refused(cfg, weights):
    weights.state_dict["backbone.bottom_up.stem.norm.weight"].fill_(1e9)
    build_inference_model(cfg, weights)
    cfg.TEST.DTYPE = "float16"
    with pytest.raises(UserError, match=r"w\.pth.*stem.*float16.*TEST\.DTYPE"):
        build_inference_model(cfg, weights)


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "bias"), [("float16", 6e4), ("bfloat16", 3e38), ("float32", 3e38)])
def test_outputs_that_overflow_are_an_error_and_not_an_empty_picture(cfg, weights, dtype, bias):
    """Every weight is finite, but not the sum."""
    for predictor in ("head.predictors.0.weight", "head.predictors.0.bias"):
        weights.state_dict[predictor].fill_(bias)
    cfg.TEST.DTYPE = dtype
    model = build_inference_model(cfg, weights)
    image = {"image": torch.full((3, 64, 64), 200, dtype=torch.uint8), "height": 64, "width": 64}
    with pytest.raises(UserError, match=rf"w\.pth.*not finite in {dtype}"):
        model([image])
