import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torchvision.ops import box_iou

from parking.modeling.dense_heads.yolox import SimOTAAssigner, assigner

STRIDES = (8, 16, 32)


def make_points(height, width):
    points, strides = [], []
    for stride in STRIDES:
        y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing="ij")
        points.append((torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * stride)
        strides.append(torch.full((len(points[-1]), 1), float(stride)))
    return torch.cat(points), torch.cat(strides)


def make_scene(num_boxes, seed, num_classes=3, size=(128, 160), spread=8.0):
    """What the assigner is called with: predictions near the boxes, so that overlaps differ."""
    generator = torch.Generator().manual_seed(seed)
    points, strides = make_points(*size)
    extent = torch.tensor([size[1], size[0]])
    corners = torch.rand(num_boxes, 2, 2, generator=generator) * extent
    gt_boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1) + 2], dim=1)
    nearest = torch.cdist(points, (gt_boxes[:, :2] + gt_boxes[:, 2:]) / 2).argmin(dim=1)
    noise = torch.randn(len(points), 4, generator=generator) * spread
    boxes = gt_boxes[nearest] + noise
    scores = torch.randn(len(points), num_classes, generator=generator).sigmoid()
    classes = torch.randint(0, num_classes, (num_boxes,), generator=generator)
    return boxes, scores, points, gt_boxes, classes, strides


def assign(scene, num_levels=3):
    """The box of each prediction, or -1; checks what else the assigner says."""
    boxes, _, _, gt_boxes, _, _ = scene
    found = SimOTAAssigner(num_levels=num_levels)(*scene)
    predictions, gt_index = found.predictions[found.is_assigned], found.gt_index[found.is_assigned]
    assert len(predictions.unique()) == len(predictions), "each is assigned once"
    overlaps = box_iou(boxes[predictions], gt_boxes)[torch.arange(len(predictions)), gt_index]
    assert_close(found.targets[found.is_assigned], overlaps)
    assert not found.targets[~found.is_assigned].any()
    return torch.full((len(boxes),), -1).scatter_(0, predictions, gt_index).tolist()


def assign_by_definition(boxes, scores, points, gt_boxes, gt_classes, strides):
    """Box by box and in full matrices."""
    near = [
        [bool(((p - (b[:2] + b[2:]) / 2).abs() < 1.5 * s).all()) for p, s in zip(points, strides, strict=True)]
        for b in gt_boxes
    ]
    near = torch.tensor(near)
    chosen = near.any(dim=0).nonzero()[:, 0]
    near, iou = near[:, chosen], box_iou(gt_boxes, boxes[chosen])
    probs = scores[chosen].sqrt()
    cost = torch.stack(
        [
            F.binary_cross_entropy(probs, F.one_hot(c, scores.shape[1]).float().expand_as(probs), reduction="none")
            for c in gt_classes
        ]
    ).sum(dim=-1)
    cost = cost - 3 * (iou + 1e-8).log() + 1e6 * ~near
    wanted = torch.zeros_like(near)
    for row, overlaps, costs in zip(wanted, iou, cost, strict=True):
        k = max(math.floor(overlaps.sort(descending=True).values[:10].sum()), 1)
        row[costs.argsort()[:k]] = True
    assigned = torch.full((len(points),), -1)
    for slot, point in enumerate(chosen.tolist()):
        owners = wanted[:, slot].nonzero()[:, 0].tolist()
        if owners:
            assigned[point] = owners[0] if len(owners) == 1 else cost[:, slot].argmin()
    return assigned.tolist()


@pytest.mark.parametrize(
    ("num_boxes", "num_classes", "spread"), [(1, 3, 1.0), (2, 1, 20.0), (7, 3, 1.0), (7, 3, 20.0), (30, 3, 1.0)]
)
def test_as_the_definition_says(num_boxes, spread, num_classes, monkeypatch):
    for seed in range(2):
        scene = make_scene(num_boxes, seed, num_classes, spread=spread)
        expected = assign_by_definition(*scene)
        assert max(expected) >= 0
        assert assign(scene) == expected
        with monkeypatch.context() as patch:  # one box at a time
            patch.setattr(assigner, "_MAX_PAIRS", 1)
            assert assign(scene) == expected


def test_without_boxes_there_are_no_claims():
    boxes, scores, points, gt_boxes, classes, strides = make_scene(1, seed=0)
    found = SimOTAAssigner(num_levels=3)(boxes, scores, points, gt_boxes[:0], classes[:0], strides)
    assert [len(column) for column in found] == [0, 0, 0, 0]


def test_a_point_goes_to_the_cheapest_box_even_if_that_one_did_not_claim_it():
    # Overlaps 0.87 and 0.85 of the first two boxes, 0.977 and 1 of the third: each wants one prediction, the first two
    # the same one, which overlaps still better with the third.
    points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0]]), torch.full((2, 1), 8.0)
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 8.5]])
    boxes = torch.tensor([[0.0, 0, 10, 8.7], [0, 0, 10, 8.5]])
    scene = (boxes, torch.full((2, 1), 0.25), points, gt_boxes, torch.zeros(3, dtype=torch.int64), strides)
    assert assign(scene, num_levels=1) == assign_by_definition(*scene) == [2, 2]


def test_boxes_beyond_the_points_and_predictions_that_are_not_numbers():
    boxes, scores, points, gt_boxes, classes, strides = make_scene(3, seed=0)
    assert set(assign((boxes, scores, points, gt_boxes + 1e4, classes, strides))) == {-1}
    for value in (math.nan, math.inf):
        broken = torch.full_like(boxes, value)
        found = SimOTAAssigner(num_levels=3)(broken, scores, points, gt_boxes, classes, strides)
        assert found.gt_index.max() < 3 and found.predictions.max() < len(points)
