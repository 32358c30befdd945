import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from parking.modeling.dense_heads.yolox import YOLOXLoss
from parking.modeling.dense_heads.yolox import losses as losses_module
from parking.modeling.dense_heads.yolox.losses import PointOutputs

NO_BOXES = torch.zeros(0, 4)
LOG2 = math.log(2)


def make_outputs(num_images=1, num_classes=2):
    """One row of three cells of stride 8; every box is its cell, and every probability a half."""
    cells = torch.tensor([[0.0, 0], [1, 0], [2, 0]])
    deltas = torch.tensor([0.5, 0.5, 0, 0]).repeat(num_images, 3, 1)
    logits = torch.zeros(num_images, 3), torch.zeros(num_images, 3, num_classes)
    return PointOutputs(deltas, *logits, cells, torch.full((3, 1), 8.0), (3,))


def test_by_hand():
    loss = YOLOXLoss(num_classes=2)
    # The second cell is assigned to a box with twice its width and the same centre, the third one to its own.
    gt_boxes, gt_classes = torch.tensor([[4.0, 0, 20, 8], [16, 0, 24, 8]]), torch.tensor([1, 0])
    found = loss(make_outputs(), gt_boxes, gt_classes, torch.tensor([[-1, 0, 1]]), with_l1=True)
    # IoU 1/2 and 1. Every cross entropy at a probability of 1/2 is log 2, whatever the target.
    expected = {
        "loss_box": 5 * (1 - 0.25 + 0) / 2,
        "loss_obj": 3 * LOG2 / 2,
        "loss_cls": 4 * LOG2 / 2,
        "loss_l1": LOG2 / 2,  # of the width: log(16 / 8)
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].item() * 64 == pytest.approx(value, rel=1e-5)


def test_the_class_target_is_the_overlap():
    outputs = make_outputs()._replace(class_logits=torch.tensor([0.5, -1.0]).expand(1, 3, 2))
    found = YOLOXLoss(num_classes=2)(
        outputs, torch.tensor([[4.0, 0, 20, 8]]), torch.tensor([1]), torch.tensor([[-1, 0, -1]]), with_l1=False
    )
    target = torch.tensor([0.0, 0.5])
    expected = F.binary_cross_entropy_with_logits(torch.tensor([0.5, -1.0]), target, reduction="sum")
    assert found["loss_cls"].item() * 64 == pytest.approx(expected.item(), rel=1e-5)


def test_target_scores_weight_boxes_and_take_the_place_of_the_overlap():
    outputs = make_outputs()._replace(class_logits=torch.tensor([0.5, -1.0]).expand(1, 3, 2))
    gt_boxes, gt_classes = torch.tensor([[4.0, 0, 20, 8]]), torch.tensor([1])
    assigned, scores = torch.tensor([[0, 0, -1]]), torch.tensor([[0.75, 0.5, 0.0]])
    found = YOLOXLoss(num_classes=2)(outputs, gt_boxes, gt_classes, assigned, scores, with_l1=True)
    # The first cell overlaps by 4 of 20 x 8 with the box: IoU 32 / (64 + 128 - 32) = 1/5. The sum of scores is 1.25.
    assert found["loss_box"].item() * 64 == pytest.approx(5 * (0.75 * (1 - 0.04) + 0.5 * 0.75) / 1.25, rel=1e-5)
    logits, targets = torch.tensor([[0.5, -1.0]] * 2), torch.tensor([[0, 0.75], [0, 0.5]])
    cls = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum").item() / 1.25
    assert found["loss_cls"].item() * 64 == pytest.approx(cls, rel=1e-5)
    assert found["loss_obj"].item() * 64 == pytest.approx(3 * LOG2 / 2, rel=1e-5)
    # Of the first cell the centre is one stride away.
    assert found["loss_l1"].item() * 64 == pytest.approx((0.75 * (1 + LOG2) + 0.5 * LOG2) / 1.25, rel=1e-5)


def test_sgd_changes_weights_as_published_whatever_the_batches():
    """A batch of 64 in one piece, or summed over 16 iterations: the gradient of the published loss of all of them."""
    loss, gt_boxes, gt_classes = YOLOXLoss(num_classes=2), torch.tensor([[4.0, 0, 20, 8]]), torch.tensor([1])

    def gradient(num_images):
        outputs = make_outputs(num_images)
        bias = torch.zeros(4, requires_grad=True)
        outputs = outputs._replace(deltas=outputs.deltas + bias)
        assigned = torch.tensor([-1, 0, -1]).expand(num_images, 3)
        losses = loss(outputs, gt_boxes, gt_classes, assigned, with_l1=True)
        sum(losses.values()).backward()
        return bias.grad

    assert_close(gradient(64), sum(gradient(4) for _ in range(16)))
    assert_close(gradient(64), 64 * gradient(1))
    assert gradient(64).norm() > 0.1


def test_without_boxes_only_the_objectness_counts():
    assigned = torch.full((2, 3), -1)
    found = YOLOXLoss(num_classes=2)(
        make_outputs(2), NO_BOXES, torch.zeros(0, dtype=torch.int64), assigned, with_l1=True
    )
    assert {name: loss.item() * 32 for name, loss in found.items()} == {
        "loss_box": 0,
        "loss_obj": pytest.approx(6 * LOG2),
        "loss_cls": 0,
        "loss_l1": 0,
    }


def test_several_processes_are_as_one_with_all_images(monkeypatch):
    loss = YOLOXLoss(num_classes=2)
    gt_boxes, gt_classes = torch.tensor([[4.0, 0, 20, 8]]), torch.tensor([1])
    assigned = [torch.tensor([[0, 0, -1]]), torch.tensor([[-1, -1, -1]])]
    whole = loss(make_outputs(2), gt_boxes, gt_classes, torch.cat(assigned), with_l1=True)
    monkeypatch.setattr(losses_module, "mean_over_processes", lambda sums: torch.ones_like(sums))
    monkeypatch.setattr(losses_module.comm, "get_world_size", lambda: 2)
    parts = [loss(make_outputs(), gt_boxes, gt_classes, part, with_l1=True) for part in assigned]
    for name, value in whole.items():
        assert_close(parts[0][name] + parts[1][name], value)
    # Two processes with one assigned prediction between them: one for both, so half of one for each.
    monkeypatch.setattr(losses_module, "mean_over_processes", lambda sums: torch.full_like(sums, 0.25))
    assert_close(loss(make_outputs(), gt_boxes, gt_classes, assigned[0], with_l1=False)["loss_obj"], whole["loss_obj"])
