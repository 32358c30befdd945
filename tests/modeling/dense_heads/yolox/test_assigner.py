import math

import pytest
import torch
import torch.nn.functional as F
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
    objectness, logits = (torch.randn(len(points), n, generator=generator) for n in (1, num_classes))
    classes = torch.randint(0, num_classes, (num_boxes,), generator=generator)
    return boxes, objectness[:, 0], logits, points, strides, gt_boxes, classes


def assign_by_definition(boxes, objectness, logits, points, strides, gt_boxes, gt_classes):
    """Box by box and in full matrices."""
    near = [
        [bool(((p - (b[:2] + b[2:]) / 2).abs() < 1.5 * s).all()) for p, s in zip(points, strides, strict=True)]
        for b in gt_boxes
    ]
    near = torch.tensor(near)
    chosen = near.any(dim=0).nonzero()[:, 0]
    near, iou = near[:, chosen], box_iou(gt_boxes, boxes[chosen])
    probs = (logits[chosen].sigmoid() * objectness[chosen, None].sigmoid()).sqrt()
    cost = torch.stack(
        [
            F.binary_cross_entropy(probs, F.one_hot(c, logits.shape[1]).float().expand_as(probs), reduction="none")
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
    return assigned


@pytest.mark.parametrize("num_boxes", [1, 2, 7, 40])
@pytest.mark.parametrize("spread", [1.0, 20.0])
@pytest.mark.parametrize("num_classes", [1, 3])
def test_as_the_definition_says(num_boxes, spread, num_classes, monkeypatch):
    for seed in range(2):
        scene = make_scene(num_boxes, seed, num_classes, spread=spread)
        expected = assign_by_definition(*scene)
        assert (expected >= 0).any()
        simota = SimOTAAssigner(num_levels=len(STRIDES))
        assert simota(*scene).tolist() == expected.tolist()
        with monkeypatch.context() as patch:  # one box at a time
            patch.setattr(assigner, "_MAX_PAIRS", 1)
            assert simota(*scene).tolist() == expected.tolist()


def test_without_boxes_nothing_is_assigned():
    *predicted, gt_boxes, classes = make_scene(1, seed=0)
    assert SimOTAAssigner(num_levels=3)(*predicted, gt_boxes[:0], classes[:0]).unique().tolist() == [-1]


def test_a_point_goes_to_the_cheapest_box_even_if_that_one_did_not_claim_it():
    # Overlaps 0.87 and 0.85 of the first two boxes, 0.977 and 1 of the third: each wants one prediction, the first two
    # the same one, which overlaps still better with the third.
    points, strides = torch.tensor([[4.0, 4.0], [12.0, 4.0]]), torch.full((2, 1), 8.0)
    gt_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [0, 0, 10, 8.5]])
    boxes = torch.tensor([[0.0, 0, 10, 8.7], [0, 0, 10, 8.5]])
    scene = (boxes, torch.zeros(2), torch.zeros(2, 1), points, strides, gt_boxes, torch.zeros(3, dtype=torch.int64))
    assert SimOTAAssigner(num_levels=1)(*scene).tolist() == [2, 2]
    assert assign_by_definition(*scene).tolist() == [2, 2]


def test_boxes_beyond_the_points_and_predictions_that_are_not_numbers():
    boxes, objectness, logits, points, strides, gt_boxes, classes = make_scene(3, seed=0)
    simota = SimOTAAssigner(num_levels=3)
    assert simota(boxes, objectness, logits, points, strides, gt_boxes + 1e4, classes).unique().tolist() == [-1]
    for value in (math.nan, math.inf):
        broken = torch.full_like(boxes, value)
        assert simota(broken, objectness, logits, points, strides, gt_boxes, classes).max() < 3


def test_memory_does_not_grow_with_boxes_times_points():
    """1,000 boxes in 33,600 points, the most that an image at 1280 has."""
    scene = make_scene(1000, seed=0, num_classes=80, size=(1280, 1280))
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else (result,):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel() * tensor.element_size())
            return result

    with Watch():
        found = SimOTAAssigner(num_levels=3)(*scene)
    assert len(found.unique()) > 900
    assert largest < 32e6
