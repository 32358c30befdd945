import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from parking.modeling.dense_heads.yolox import YOLOXLoss
from parking.modeling.dense_heads.yolox import losses as losses_module
from parking.modeling.dense_heads.yolox.losses import Assignment, PointOutputs

LOG2 = math.log(2)


def make_outputs(num_images=1, num_classes=2):
    """One row of three cells of stride 8; every box is its cell, and every probability a half."""
    cells = torch.tensor([[0.0, 0], [1, 0], [2, 0]])
    deltas = torch.tensor([0.5, 0.5, 0, 0]).repeat(num_images, 3, 1)
    logits = torch.zeros(num_images, 3), torch.zeros(num_images, 3, num_classes)
    return PointOutputs(deltas, *logits, cells, torch.full((3, 1), 8.0), (3,))


def make_assignment(*claims):
    """Of each claim the image, the prediction, the box, its class, the target, and whether it is granted."""
    images, predictions, boxes, classes, targets, are_assigned = zip(*claims, strict=True) if claims else [()] * 6
    return Assignment(
        torch.tensor(images, dtype=torch.int64),
        torch.tensor(predictions, dtype=torch.int64),
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.tensor(classes, dtype=torch.int64),
        torch.tensor(targets, dtype=torch.float32),
        torch.tensor(are_assigned, dtype=torch.bool),
    )


# A box with the centre of the second cell and twice its width, so an IoU of 1/2, and the third cell itself.
WIDE, THIRD = [4, 0, 20, 8], [16, 0, 24, 8]


def test_by_hand():
    loss = YOLOXLoss(num_classes=2)
    # The claim of the wide box on the first cell is not granted.
    assignment = make_assignment(
        (0, 0, WIDE, 1, 0, False), (0, 1, WIDE, 1, 0.5, True), (0, 2, THIRD, 0, 1, True), (0, 2, WIDE, 0, 0, False)
    )
    found = loss(make_outputs(), assignment, with_l1=True)
    # Every cross entropy at a probability of 1/2 is log 2, whatever the target.
    expected = {
        "loss_box": 5 * (1 - 0.25 + 0) / 2,
        "loss_obj": 3 * LOG2 / 2,
        "loss_cls": 4 * LOG2 / 2,
        "loss_l1": LOG2 / 2,  # of the width: log(16 / 8)
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() * 64 == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("weights_boxes", [False, True])
def test_targets(weights_boxes):
    outputs = make_outputs()._replace(
        objectness=torch.tensor([[0.5, -1.0, 2.0]]), class_logits=torch.tensor([0.5, -1.0]).expand(1, 3, 2)
    )
    claims = make_assignment((0, 0, WIDE, 1, 0.75, True), (0, 1, WIDE, 1, 0.5, True), (0, 2, WIDE, 0, 0, False))
    found = YOLOXLoss(num_classes=2, weights_boxes=weights_boxes)(outputs, claims, with_l1=True)
    weights, total = ((0.75, 0.5), 1.25) if weights_boxes else ((1, 1), 2)
    # The first cell overlaps by 4 of 16 x 8 with the wide box, IoU 32 / (64 + 128 - 32) = 1/5, and its centre is one
    # stride away.
    box = 5 * (weights[0] * (1 - 0.04) + weights[1] * (1 - 0.25)) / total
    assert found["loss_box"].item() * 64 == pytest.approx(box, rel=1e-5)
    l1 = (weights[0] * (1 + LOG2) + weights[1] * LOG2) / total
    assert found["loss_l1"].item() * 64 == pytest.approx(l1, rel=1e-5)

    def entropy(logits, targets):
        logits, targets = torch.tensor(logits), torch.tensor(targets)
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum").item()

    cls = entropy([[0.5, -1.0]] * 2, [[0, 0.75], [0, 0.5]]) / total
    assert found["loss_cls"].item() * 64 == pytest.approx(cls, rel=1e-5)
    obj = entropy([0.5, -1.0, 2.0], [1.0, 1.0, 0.0]) / 2
    assert found["loss_obj"].item() * 64 == pytest.approx(obj, rel=1e-5)


def test_sgd_changes_weights_as_published_whatever_the_batches():
    """A batch of 64 in one piece, or summed over 16 iterations: the gradient of the published loss of all of them."""
    loss = YOLOXLoss(num_classes=2)

    def gradient(num_images):
        outputs = make_outputs(num_images)
        bias = torch.zeros(4, requires_grad=True)
        outputs = outputs._replace(deltas=outputs.deltas + bias)
        claims = make_assignment(*((i, 1, WIDE, 1, 0.5, True) for i in range(num_images)))
        sum(loss(outputs, claims, with_l1=True).values()).backward()
        return bias.grad

    assert_close(gradient(64), sum(gradient(4) for _ in range(16)))
    assert_close(gradient(64), 64 * gradient(1))
    assert gradient(64).norm() > 0.1


def test_without_boxes_only_the_objectness_counts():
    found = YOLOXLoss(num_classes=2)(make_outputs(2), make_assignment(), with_l1=True)
    assert {name: loss.item() * 32 for name, loss in found.items()} == {
        "loss_box": 0,
        "loss_obj": pytest.approx(6 * LOG2),
        "loss_cls": 0,
        "loss_l1": 0,
    }


@pytest.mark.parametrize("claims", [[(0, 1, WIDE, 1, 0.5, True), (0, 0, WIDE, 0, 0.25, True)], [], None])
def test_several_processes_are_as_one_with_all_images(monkeypatch, claims):
    loss = YOLOXLoss(num_classes=2, weights_boxes=True)
    claims = [(0, 1, WIDE, 1, 0.5, True)] if claims is None else claims
    whole = loss(make_outputs(2), make_assignment(*claims), with_l1=True)
    sums = torch.tensor([len(claims), sum(claim[4] for claim in claims)])
    monkeypatch.setattr(losses_module, "mean_over_processes", lambda _: sums / 2)
    monkeypatch.setattr(losses_module.comm, "get_world_size", lambda: 2)
    parts = [loss(make_outputs(), make_assignment(*part), with_l1=True) for part in (claims, [])]
    for name, value in whole.items():
        assert_close(parts[0][name] + parts[1][name], value)
