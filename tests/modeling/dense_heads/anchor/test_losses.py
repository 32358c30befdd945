import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close
from torchvision.ops import box_convert

from parking.config import get_cfg
from parking.modeling.dense_heads.anchor import LevelAssignment, RatioAssigner, YOLOLoss
from parking.modeling.dense_heads.anchor.losses import focal_weight, scatter_last

LN2 = math.log(2)
REFERENCE_SIZE = (640, 640)


def make(**overrides):
    arguments = {"num_classes": 80, "box_gain": 1, "obj_gain": 1, "cls_gain": 1, "obj_level_weights": [1, 1, 1]}
    return YOLOLoss(**(arguments | overrides))


def matches(*rows, boxes, grid=1.0):
    """Matches of (image, anchor, row, col, ground truth) whose anchors are ``grid`` cells wide and high."""
    fields = torch.tensor(rows, dtype=torch.int64).reshape(-1, 5).unbind(dim=1)
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return LevelAssignment(*fields, boxes, torch.full((len(boxes), 2), grid))


NOTHING = matches(boxes=[])


def zeros(images=1, classes=80):
    """Raw predictions of three levels with one anchor and 2 x 2 cells; decoded: the middle of the cell, the anchor."""
    return [torch.zeros(images, 1, 2, 2, 5 + classes) for _ in range(3)]


def test_a_perfect_box_by_hand():
    match = matches((0, 0, 1, 0, 0), boxes=[[0.5, 0.5, 1, 1]])
    losses = make()(zeros(), torch.tensor([7]), [match, NOTHING, NOTHING], REFERENCE_SIZE)
    # Every probability is 1/2, whose cross entropy is ln 2 whatever the target.
    assert_close(losses["loss_box"], torch.tensor(0.0), rtol=0, atol=1e-6)
    assert_close(losses["loss_obj"], torch.tensor(3 * LN2))
    assert_close(losses["loss_cls"], torch.tensor(LN2))


def test_gains_weights_and_images_multiply():
    # 2 levels: 3/2. 40 classes: 1/2. 320 x 1280: 320 * 1280 / 640^2 = 1. 3 images.
    loss = make(num_classes=40, box_gain=0.1, obj_gain=0.2, cls_gain=0.3, obj_level_weights=[4, 1])
    # A box half as wide and high as predicted and concentric: CIoU = IoU = 1/4.
    match = matches((2, 0, 0, 0, 0), boxes=[[0.5, 0.5, 0.5, 0.5]])
    losses = loss(zeros(3, 40)[:2], torch.tensor([7]), [match, NOTHING], (320, 1280))
    assert_close(losses["loss_box"], torch.tensor(0.75 * 0.1 * 1.5 * 3))
    assert_close(losses["loss_obj"], torch.tensor((4 + 1) * LN2 * 0.2 * 1.5 * 3))
    assert_close(losses["loss_cls"], torch.tensor(LN2 * 0.3 * 1.5 / 2 * 3))


def test_objectness_gain_grows_with_the_area():
    objectness = [
        make()(zeros(), torch.empty(0, dtype=torch.int64), [NOTHING] * 3, size)["loss_obj"]
        for size in ((640, 640), (1280, 1280), (192, 320))
    ]
    assert_close(objectness[1] / objectness[0], torch.tensor(4.0))
    assert_close(objectness[2] / objectness[0], torch.tensor(192 * 320 / 640**2))


def test_objectness_target_is_the_iou_and_constant():
    predictions = [p.requires_grad_() for p in zeros()]
    match = matches((0, 0, 0, 1, 0), boxes=[[0.5, 0.5, 0.5, 0.5]])
    losses = make()(predictions, torch.tensor([0]), [match, NOTHING, NOTHING], REFERENCE_SIZE)
    losses["loss_obj"].backward()
    # d BCE / d logit = probability - target, over 4 cells.
    expected = torch.tensor([[0.5, 0.5 - 0.25], [0.5, 0.5]]) / 4
    assert_close(predictions[0].grad[0, 0, ..., 4], expected)
    assert not predictions[0].grad[..., :4].any()


def test_the_last_match_wins_the_objectness():
    predictions = [p.requires_grad_() for p in zeros()]
    match = matches((0, 0, 0, 0, 0), (0, 0, 0, 0, 1), boxes=[[0.5, 0.5, 1, 1], [0.5, 0.5, 0.5, 0.5]])
    losses = make()(predictions, torch.tensor([0, 1]), [match, NOTHING, NOTHING], REFERENCE_SIZE)
    # Both count for the box: (0 + 0.75) / 2.
    assert_close(losses["loss_box"], torch.tensor(0.375))
    losses["loss_obj"].backward()
    assert_close(predictions[0].grad[0, 0, 0, 0, 4], torch.tensor((0.5 - 0.25) / 4))


def test_a_negative_ciou_is_no_target():
    predictions = [p.requires_grad_() for p in zeros()]
    match = matches((0, 0, 0, 0, 0), boxes=[[9.0, 9, 1, 1]])
    losses = make()(predictions, torch.tensor([0]), [match, NOTHING, NOTHING], REFERENCE_SIZE)
    assert losses["loss_box"] > 1
    losses["loss_obj"].backward()
    assert_close(predictions[0].grad[0, 0, 0, 0, 4], torch.tensor(0.5 / 4))


def test_without_boxes_only_objectness_is_left():
    predictions = [p.requires_grad_() for p in zeros()]
    losses = make()(predictions, torch.empty(0, dtype=torch.int64), [NOTHING] * 3, REFERENCE_SIZE)
    assert losses["loss_box"] == 0
    assert losses["loss_cls"] == 0
    sum(losses.values()).backward()
    assert all(p.grad[..., 4].all() for p in predictions)


def test_one_class_has_no_class_loss():
    match = matches((0, 0, 0, 0, 0), boxes=[[0.5, 0.5, 1, 1]])
    losses = make(num_classes=1)(zeros(classes=1), torch.tensor([0]), [match, NOTHING, NOTHING], REFERENCE_SIZE)
    assert losses["loss_cls"] == 0


def class_loss(**overrides):
    """Class loss of one match of class 1 of 2 with logits (0, ln 3), that is probabilities 1/2 and 3/4."""
    predictions = zeros(classes=2)
    predictions[0][0, 0, 0, 0, 6] = math.log(3)
    match = matches((0, 0, 0, 0, 0), boxes=[[0.5, 0.5, 1, 1]])
    loss = make(num_classes=2, cls_gain=40, **overrides)  # 40 * 2 / 80 = 1
    return loss(predictions, torch.tensor([1]), [match, NOTHING, NOTHING], REFERENCE_SIZE)["loss_cls"].item()


def test_class_loss_by_hand():
    assert class_loss() == pytest.approx((LN2 - math.log(0.75)) / 2, rel=1e-5)
    assert class_loss(cls_pos_weight=2.0) == pytest.approx((LN2 - 2 * math.log(0.75)) / 2, rel=1e-5)
    # Targets 0.9 and 0.1: s = 0.2.
    smooth = -0.9 * math.log(0.75) - 0.1 * math.log(0.25)
    assert class_loss(label_smoothing=0.2) == pytest.approx((LN2 + smooth) / 2, rel=1e-5)
    # Focal, gamma 2: 0.75 * (1/2)^2 for the negative, 0.25 * (1/4)^2 for the positive.
    focal = (0.75 * 0.25 * LN2 - 0.25 / 16 * math.log(0.75)) / 2
    assert class_loss(focal_gamma=2.0) == pytest.approx(focal, rel=1e-5)


def test_focal_weight_of_soft_targets():
    # p = 3/4, t = 0.6: p_t = 0.45 + 0.1 = 0.55, alpha_t = 0.15 + 0.3 = 0.45.
    weight = focal_weight(torch.tensor(math.log(3)), torch.tensor(0.6), gamma=1.5)
    assert_close(weight, torch.tensor(0.45 * 0.45**1.5))


def test_half_precision_predictions_give_float32_losses():
    generator = torch.Generator().manual_seed(0)
    predictions = [torch.randn(2, 1, 2, 2, 85, generator=generator).bfloat16() for _ in range(3)]
    match = matches((0, 0, 0, 0, 0), boxes=[[0.5, 0.5, 1, 1]])
    arguments = torch.tensor([3]), [match, NOTHING, NOTHING], REFERENCE_SIZE
    expected = make()([p.float() for p in predictions], *arguments)
    with torch.autocast("cpu", torch.bfloat16):
        losses = make()(predictions, *arguments)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert_close(losses, expected)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=12))
def test_scatter_last_equals_a_loop(places):
    expected = torch.zeros(2, 3)
    for value, place in enumerate(places, start=1):
        expected[place] = value
    index = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).unbind(dim=1)
    values = torch.arange(1.0, len(places) + 1)
    assert_close(scatter_last((2, 3), index, values), expected, rtol=0, atol=0)


def test_scatter_last_with_many_collisions():
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, 1000, (100_000,), generator=generator)
    expected = np.zeros(1000, dtype=np.float32)
    for value, place in enumerate(places.tolist()):
        expected[place] = value
    assert_close(scatter_last((1000,), (places,), torch.arange(100_000.0)), torch.from_numpy(expected), rtol=0, atol=0)


HYPER_PARAMETERS = {
    "scratch-low": {"box_gain": 0.05, "obj_gain": 1.0, "cls_gain": 0.5},
    "finetune": {
        "box_gain": 0.0296,
        "obj_gain": 0.301,
        "cls_gain": 0.243,
        "obj_pos_weight": 0.911,
        "cls_pos_weight": 0.631,
    },
}
ANCHOR_RATIO = {"scratch-low": 4.0, "finetune": 2.91}
P6_ANCHORS = [
    [[19, 27], [44, 40], [38, 94]],
    [[96, 68], [86, 152], [180, 137]],
    [[140, 301], [303, 264], [238, 542]],
    [[436, 615], [739, 380], [925, 792]],
]
MODELS = {
    "p5_80": (80, get_cfg().MODEL.ANCHOR_HEAD.ANCHORS, [4.0, 1.0, 0.4]),
    "p6_14": (14, P6_ANCHORS, [4.0, 1.0, 0.25, 0.06]),
}


@pytest.mark.parametrize("with_targets", ["targets", "empty"])
@pytest.mark.parametrize("size", [640, 1280])
@pytest.mark.parametrize("recipe", HYPER_PARAMETERS)
@pytest.mark.parametrize("model", MODELS)
def test_losses_and_gradients_equal_the_published_numbers(parity_data, model, recipe, size, with_targets):
    data = np.load(parity_data / "loss_inputs.npz")
    expected = json.loads((parity_data / "loss_expected.json").read_text())
    expected = expected[f"{model}/{recipe}/imgsz{size}/{with_targets}"]
    num_classes, anchors, level_weights = MODELS[model]
    levels = range(len(anchors))
    predictions = [torch.from_numpy(data[f"{model}_pred_p{3 + level}"]).float().requires_grad_() for level in levels]
    targets = torch.from_numpy(data[f"{model}_targets"])[: None if with_targets == "targets" else 0]
    boxes = box_convert(targets[:, 2:] * torch.tensor([256.0, 192, 256, 192]), "cxcywh", "xyxy")

    assignments = RatioAssigner(anchor_ratio=ANCHOR_RATIO[recipe])(
        boxes,
        targets[:, 0].long(),
        torch.tensor(anchors),
        [8 * 2**level for level in levels],
        [prediction.shape[2:4] for prediction in predictions],
    )
    loss = make(num_classes=num_classes, obj_level_weights=level_weights, **HYPER_PARAMETERS[recipe])
    losses = loss(predictions, targets[:, 1].long(), assignments, (size, size))
    total = sum(losses.values())
    total.backward()

    # The file's single terms are not multiplied by its 2 images.
    for term in ("box", "obj", "cls"):
        assert losses[f"loss_{term}"].item() / 2 == pytest.approx(expected[term], rel=1e-4)
    assert total.item() == pytest.approx(expected["total_times_batch"], rel=1e-4)
    gradients = [prediction.grad.norm().item() for prediction in predictions]
    assert gradients == pytest.approx(expected["grad_l2_per_level"], rel=1e-3)
