import json
import math

import numpy as np
import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch.testing import assert_close
from torchvision.ops import box_convert

from parking.config import get_cfg
from parking.modeling.dense_heads import DistributionHead
from parking.modeling.dense_heads.distribution import DistributionBoxCoder, DistributionLoss
from parking.modeling.dense_heads.distribution.losses import Assignment

LN2 = math.log(2)


def assign(*rows):
    """Claims of (image, prediction, target, box in pixels, class)."""
    images, predictions, targets, boxes, classes = zip(*rows, strict=True) if rows else [()] * 5
    whole = {"dtype": torch.int64}
    return Assignment(
        torch.tensor(images, **whole),
        torch.tensor(predictions, **whole),
        torch.tensor(targets, dtype=torch.float32),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(classes, **whole),
    )


def compute(assignment, num_images=1):
    """Losses, all gains 1, of one level of two cells at (4, 4) and (12, 4) pixels, stride 8, two classes, logits 0."""
    loss = DistributionLoss(box_coder=DistributionBoxCoder(16), box_gain=1, cls_gain=1, bins_gain=1)
    raw = [(torch.zeros(num_images, 64, 1, 2, requires_grad=True), torch.zeros(num_images, 2, 1, 2))]
    return loss(raw, assignment, torch.tensor([[0.5, 0.5], [1.5, 0.5]]), torch.full((2, 1), 8.0))


def test_without_boxes_only_classes_count():
    losses = compute(assign())
    assert losses["loss_box"] == losses["loss_bins"] == 0
    assert_close(losses["loss_cls"], torch.tensor(4 * LN2))  # every probability is 1/2
    losses["loss_box"].backward()


def test_terms_by_hand():
    # A side is 7.5 strides of 8 pixels: the box predicted at (4, 4) is the one to find.
    perfect = assign((0, 0, 1.0, [4 - 60, 4 - 60, 4 + 60, 4 + 60], 1))
    losses = compute(perfect)
    assert_close(losses["loss_box"], torch.tensor(0.0), rtol=0, atol=1e-6)
    assert_close(losses["loss_bins"], torch.tensor(math.log(16)))
    assert_close(losses["loss_cls"], torch.tensor(4 * LN2))
    # Half as wide and high, with the same centre: CIoU = IoU = 1/4. Weighted by the targets, whose sum is 2.
    half = [-26, -26, 34, 34]
    rows = ((0, 0, 0.8, half, 1), (1, 0, 0.7, half, 0), (0, 1, 0.5, [12 - 60, 4 - 60, 12 + 60, 4 + 60], 1))
    losses = compute(assign(*rows), num_images=2)
    assert_close(losses["loss_box"], torch.tensor(0.75 * 1.5 / 2 * 2))
    assert_close(losses["loss_bins"], torch.tensor(math.log(16) * 2 / 2 * 2))
    assert_close(losses["loss_cls"], torch.tensor(8 * LN2 / 2 * 2))


def test_the_sum_of_targets_counts_as_at_least_one():
    box = [-26, -26, 34, 34]
    assert_close(compute(assign((0, 0, 0.25, box, 1)))["loss_box"], torch.tensor(0.75 * 0.25))
    assert_close(compute(assign((0, 0, 0.75, box, 1), (0, 1, 0.75, box, 1)))["loss_cls"], torch.tensor(4 * LN2 / 1.5))


def test_with_several_processes_the_sum_is_that_of_all(monkeypatch):
    """Here of two, of which the other one has the given sum."""
    module = "parking.modeling.dense_heads.distribution.losses"
    box = [-26, -26, 34, 34]
    monkeypatch.setattr(f"{module}.comm.get_world_size", lambda: 2)
    for other, expected in ((2.5, 0.75 * 0.5 / 1.5), (0.1, 0.75 * 0.5 / 0.5)):
        monkeypatch.setattr(f"{module}.mean_over_processes", lambda own, other=other: (own + other) / 2)
        assert_close(compute(assign((0, 0, 0.5, box, 1)))["loss_box"], torch.tensor(expected))


def test_a_claim_that_is_not_granted_changes_nothing():
    box = [-26, -26, 34, 34]
    with_other = assign((0, 0, 0.5, box, 1), (0, 0, 0.0, [0, 0, 9, 9], 0), (0, 1, 0.0, [0, 0, 9, 9], 1))
    assert_close(compute(with_other), compute(assign((0, 0, 0.5, box, 1))))


CASES = ["yolov5nu_random_80", "yolov5n6u_random_14"]


def check_losses(arrays, expected, num_classes, size):
    """Losses and gradients of three images whose raw outputs and targets are published."""
    height, width = size
    strides = [8, 16, 32, 64][: 4 if arrays["boxes_raw"].shape[2] in (1020, 2125) else 3]
    cfg = get_cfg()
    cfg.MODEL.YOLO.NUM_CLASSES = num_classes
    head = DistributionHead(cfg, [ShapeSpec(channels=8, stride=stride) for stride in strides])
    boxes, scores = (torch.from_numpy(arrays[f"{name}_raw"]).float().requires_grad_() for name in ("boxes", "scores"))
    sizes = [(height // stride, width // stride) for stride in strides]
    levels = [tensor.split([h * w for h, w in sizes], dim=2) for tensor in (boxes, scores)]
    raw = [tuple(part.unflatten(2, size) for part in pair) for *pair, size in zip(*levels, sizes, strict=True)]
    targets = torch.from_numpy(arrays["targets"])
    corners = box_convert(targets[:, 2:] * torch.tensor([width, height, width, height]), "cxcywh", "xyxy")
    of_image = [targets[:, 0] == image for image in range(3)]
    gt_instances = [
        Instances(size, gt_boxes=Boxes(corners[mask]), gt_classes=targets[mask, 1].long()) for mask in of_image
    ]
    losses = head.losses(raw, gt_instances, size)
    total = sum(losses.values())
    total.backward()
    # The file's single terms are not multiplied by its 3 images.
    for term, name in (("box", "loss_box"), ("cls", "loss_cls"), ("dfl", "loss_bins")):
        assert losses[name].item() / 3 == pytest.approx(expected[term], rel=1e-4)
    assert total.item() == pytest.approx(expected["total_times_batch"], rel=1e-4)
    assert boxes.grad.norm().item() == pytest.approx(expected["grad_norm_boxes"], rel=1e-3)
    assert scores.grad.norm().item() == pytest.approx(expected["grad_norm_scores"], rel=1e-3)


@pytest.mark.parametrize("with_targets", ["targets", "empty"])
@pytest.mark.parametrize("size", [(192, 256), (320, 320)])
@pytest.mark.parametrize("model", CASES)
def test_losses_and_gradients_equal_the_published_numbers(parity_dir, model, size, with_targets):
    key = f"{model}_{size[0]}x{size[1]}_{with_targets}"
    with np.load(parity_dir / "dfl_loss_inputs.npz") as data:
        arrays = {name: data[f"{key}/{name}"] for name in ("boxes_raw", "scores_raw", "targets")}
    expected = json.loads((parity_dir / "dfl_loss_expected.json").read_text())[key]
    check_losses(arrays, expected, int(model[-2:]), size)


@pytest.mark.parametrize("with_targets", ["targets", "empty"])
def test_some_of_these_numbers_are_in_every_clone(parity_data, with_targets):
    with np.load(parity_data / "dfl_loss_inputs.npz") as data:
        arrays = dict(data)
    if with_targets == "empty":
        arrays["targets"] = arrays["targets"][:0]
    expected = json.loads((parity_data / "dfl_loss_expected.json").read_text())[with_targets]
    check_losses(arrays, expected, 14, (192, 256))
