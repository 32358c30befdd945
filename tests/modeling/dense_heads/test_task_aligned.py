import pytest
import torch
from torch.testing import assert_close

from parking.layers import box_ciou
from parking.modeling.dense_heads import TaskAlignedAssigner, task_aligned


def make(**overrides):
    return TaskAlignedAssigner(**({"alpha": 0.5, "beta": 6.0, "num_candidates": 10, "min_side": 16} | overrides))


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float32)


def targets_by_place(found, num_predictions, num_gt):
    """(P, G) targets, NaN where a prediction is not assigned."""
    table = torch.full((num_predictions, num_gt), torch.nan)
    for prediction, gt, target, is_assigned in zip(*found, strict=True):
        if is_assigned:
            assert table[prediction].isnan().all(), "a prediction is assigned once"
            table[prediction, gt] = target
        else:
            assert target == 0
    return table


# Four points in a row, each of which predicts a box around itself; one box to find, of class 1 of 2.
POINTS = tensor([10, 10], [30, 10], [50, 10], [70, 10])
BOXES = tensor([0, 0, 20, 20], [20, 0, 40, 20], [40, 0, 60, 20], [60, 0, 80, 20])
SCORES = tensor([0.9, 0.01], [0.9, 0.25], [0.9, 0.04], [0.9, 0.81])


def test_one_box_by_hand():
    found = make()(BOXES, SCORES, POINTS, tensor([20, 0, 60, 20]), torch.tensor([1]))
    # The points 1 and 2 are inside. Both overlap by half, centre 10 away of a hull of 40 x 20, one side twice as long.
    u = box_ciou(BOXES[1], tensor([20, 0, 60, 20])[0])
    # t is score^0.5 u^6: 0.5 u^6 and 0.2 u^6. The larger becomes max u = u, the other 0.2 / 0.5 of it.
    expected = torch.full((4, 1), torch.nan)
    expected[1], expected[2] = u, 0.4 * u
    # The 1e-9 beside the largest t, 0.5 u^6 (u is 0.4), takes away some millionths.
    assert_close(targets_by_place(found, 4, 1), expected, rtol=1e-5, atol=0, equal_nan=True)


def test_the_best_candidates_only():
    found = make(num_candidates=1)(BOXES, SCORES, POINTS, tensor([20, 0, 60, 20]), torch.tensor([1]))
    assert found.predictions.tolist() == [1] and found.is_assigned.tolist() == [True]


def test_a_box_between_the_points_takes_those_that_would_be_inside_if_it_were_larger():
    box = tensor([38, 8, 42, 12])
    assert not make(min_side=16)(BOXES, SCORES, POINTS, box, torch.tensor([1])).is_assigned.any()
    # 21 wide: from 29.5 to 50.5; a point on the border is not inside.
    wide = make(min_side=21)(BOXES, SCORES, POINTS, box, torch.tensor([1]))
    assert set(wide.predictions[wide.is_assigned].tolist()) == {1, 2}
    assert not make(min_side=20)(BOXES, SCORES, POINTS, box, torch.tensor([1])).is_assigned.any()


def test_a_contested_prediction_goes_to_the_box_that_it_overlaps_most():
    # Both boxes claim prediction 1; the first overlaps it more, although its class has the lower score.
    gt_boxes = tensor([20, 0, 40, 20], [20, 0, 60, 20])
    found = make()(BOXES, SCORES, POINTS, gt_boxes, torch.tensor([1, 0]))
    table = targets_by_place(found, 4, 2)
    assert_close(table[1], torch.tensor([1.0, torch.nan]), rtol=1e-4, atol=0, equal_nan=True)
    assert table[2].isnan().tolist() == [True, False]


def test_it_may_go_to_a_box_that_does_not_claim_it():
    # With one candidate each, boxes 0 and 1 claim prediction 1 for their class. Box 2 lies on it but claims another.
    scores = SCORES.clone()
    scores[2, 0] = 1.0
    scores[1, 0] = 1e-12
    gt_boxes = tensor([20, 0, 48, 20], [20, 0, 49, 20], [20, 0, 60, 20])
    boxes = BOXES.clone()
    boxes[1] = tensor([20, 0, 59, 20])
    found = make(num_candidates=1)(boxes, scores, POINTS, gt_boxes, torch.tensor([1, 1, 0]))
    assert found.predictions.tolist() == [1, 1, 2]
    assert found.is_assigned.tolist() == [True, False, True]
    assert found.gt_index.tolist()[0] == 2


def test_inside_without_overlap_is_assigned_with_target_0():
    boxes = BOXES + 500
    found = make()(boxes, SCORES, POINTS, tensor([20, 0, 60, 20]), torch.tensor([1]))
    table = targets_by_place(found, 4, 1)
    assert table.isnan().flatten().tolist() == [True, False, False, True]
    assert not table.nan_to_num().any()


def test_without_boxes_nothing_is_claimed():
    found = make()(BOXES, SCORES, POINTS, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert [len(column) for column in found] == [0, 0, 0, 0]


def assign_plainly(boxes, scores, points, gt_boxes, gt_classes, num_candidates, min_side):
    """The definition, box by box; (P, G) as of :func:`targets_by_place`."""
    num_predictions, num_gt = len(boxes), len(gt_boxes)
    u, inside = torch.zeros(num_gt, num_predictions), torch.zeros(num_gt, num_predictions, dtype=torch.bool)
    for g, gt in enumerate(gt_boxes):
        center, half = (gt[:2] + gt[2:]) / 2, ((gt[2:] - gt[:2]) / 2).clamp(min=min_side / 2)
        inside[g] = ((points - center).abs() < half).all(dim=1)
        u[g] = box_ciou(boxes, gt).clamp(min=0) * inside[g]
    t = scores[:, gt_classes].T ** 0.5 * u**6
    claimed = torch.zeros_like(inside)
    for g in range(num_gt):
        claimed[g, t[g].topk(num_candidates).indices] = True
    claimed &= inside
    for p in range(num_predictions):
        if claimed[:, p].sum() > 1:
            claimed[:, p] = False
            claimed[u[:, p].argmax(), p] = True
    table = torch.full((num_predictions, num_gt), torch.nan)
    for g, p in claimed.nonzero().tolist():
        most = (t[g] * claimed[g]).max(), (u[g] * claimed[g]).max()
        table[p, g] = t[g, p] / (most[0] + 1e-9) * most[1]
    return table


@pytest.mark.parametrize("max_pairs", [task_aligned._MAX_PAIRS, 1000])
def test_many_boxes_equal_the_definition(max_pairs, monkeypatch):
    monkeypatch.setattr(task_aligned, "_MAX_PAIRS", max_pairs)
    generator = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(20.0), indexing="ij")
    points = (torch.stack([x, y], dim=-1).flatten(0, 1) + 0.5) * 8
    # Predictions of about the size of the boxes, so that many boxes claim the same.
    sides = 20 + 20 * torch.rand(320, 4, generator=generator)
    boxes = torch.cat([points - sides[:, :2], points + sides[:, 2:]], dim=1)
    scores = torch.rand(320, 3, generator=generator)
    centers, halves = torch.rand(2, 40, 2, generator=generator)
    centers, halves = centers * torch.tensor([160.0, 128]), halves * 40
    gt_boxes = torch.cat([centers - halves, centers + halves], dim=1)
    gt_classes = torch.randint(0, 3, (40,), generator=generator)
    found = make()(boxes, scores, points, gt_boxes, gt_classes)
    expected = assign_plainly(boxes, scores, points, gt_boxes, gt_classes, num_candidates=10, min_side=16)
    assert (expected > 0).sum() > 100 and found.predictions.unique().numel() < found.predictions.numel() - 50
    assert_close(targets_by_place(found, 320, 40), expected, equal_nan=True)


def test_no_value_is_read_back():
    """On the meta device there are no values: whatever needs one raises an error."""
    arguments = torch.zeros(50, 4), torch.zeros(50, 3), torch.zeros(50, 2), torch.zeros(7, 4), torch.zeros(7).long()
    found = make()(*(argument.to("meta") for argument in arguments))
    assert [len(column) for column in found] == [70] * 4
