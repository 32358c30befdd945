import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from parking.modeling.dense_heads.anchor import RatioAssigner


def assign(boxes, anchors, grid_size=(4, 4), stride=8, images=None, anchor_ratio=4.0):
    """One level; ``boxes`` as cx, cy, w, h in cells."""
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * stride
    boxes = torch.cat([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], dim=1)
    images = torch.zeros(len(boxes), dtype=torch.int64) if images is None else torch.tensor(images)
    anchors = torch.tensor([anchors], dtype=torch.float32) * stride
    (assignment,) = RatioAssigner(anchor_ratio=anchor_ratio)(boxes, images, anchors, [stride], [grid_size])
    return assignment


def cells(assignment):
    return list(zip(assignment.col.tolist(), assignment.row.tolist(), strict=True))


def test_own_cell_then_left_then_lower():
    # Centre (1.25, 1.75): in the left half and in the lower half of cell (1, 1).
    found = assign([[1.25, 1.75, 1, 1]], [[1, 1]])
    assert cells(found) == [(1, 1), (0, 1), (1, 2)]
    expected = torch.tensor([[0.25, 0.75, 1, 1], [1.25, 0.75, 1, 1], [0.25, -0.25, 1, 1]])
    assert_close(found.gt_boxes, expected)
    assert_close(found.anchor_sizes, torch.ones(3, 2))


def test_own_cell_then_upper_then_right():
    assert cells(assign([[2.75, 2.25, 1, 1]], [[1, 1]])) == [(2, 2), (2, 1), (3, 2)]


@pytest.mark.parametrize(
    ("center", "expected"),
    [
        ((0.25, 0.25), [(0, 0)]),  # no neighbour beyond the left and upper border
        ((3.75, 3.75), [(3, 3)]),  # nor beyond the right and lower one
        ((1.5, 1.5), [(1, 1)]),  # the middle of a cell is in no half
        ((1.0, 1.0), [(1, 1)]),  # a coordinate must be more than 1 from the border
        ((2.0, 1.5), [(2, 1), (1, 1)]),  # an edge is the left half of the next cell, and no right half
        ((4.0, 1.5), [(3, 1)]),  # the image's border belongs to its last cell
    ],
)
def test_cells_without_neighbours(center, expected):
    assert cells(assign([[*center, 1, 1]], [[1, 1]])) == expected


def test_side_ratio_must_be_below_the_factor_both_ways():
    anchors = [[1, 1], [4, 4], [1, 4]]
    # Ratios (w, h): 4/1 fails, 1 and 1 fits, 4/1 fails.
    assert assign([[1.5, 1.5, 4, 4]], anchors).anchor.tolist() == [1]
    # 1.9 and 1.9; 2.1 and 2.1; 1.9 and 2.1: all below 4.
    assert assign([[1.5, 1.5, 1.9, 1.9]], anchors).anchor.tolist() == [0, 1, 2]
    # All but 1.9 itself fail below 2.
    assert assign([[1.5, 1.5, 1.9, 1.9]], anchors, anchor_ratio=2.0).anchor.tolist() == [0]


def test_order_is_step_then_anchor_then_box():
    boxes = [[1.25, 1.5, 1, 1], [2.25, 1.5, 1, 1]]
    found = assign(boxes, [[1, 1], [2, 2]], images=[0, 1])
    assert found.gt_index.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert found.image.tolist() == [0, 1, 0, 1, 0, 1, 0, 1]
    assert found.anchor.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert found.col.tolist() == [1, 2, 1, 2, 0, 1, 0, 1]


def test_no_boxes():
    found = assign([], [[1, 1], [2, 2]])
    assert [len(field) for field in found] == [0] * 7


def test_a_box_without_area_is_not_matched():
    assert len(assign([[1.5, 1.5, 0, 1]], [[1, 1]]).gt_index) == 0


def test_levels_see_the_box_in_their_own_cells():
    boxes = torch.tensor([[8.0, 8.0, 24.0, 24.0]])
    anchors = torch.tensor([[[16.0, 16.0]], [[16.0, 16.0]]])
    fine, coarse = RatioAssigner(anchor_ratio=4.0)(boxes, torch.tensor([0]), anchors, [8, 16], [(4, 6), (2, 3)])
    # Centre 16: at 2.0 of the fine grid (claims left and upper), at 1.0 of the coarse one.
    assert cells(fine) == [(2, 2), (1, 2), (2, 1)]
    assert_close(fine.gt_boxes[0], torch.tensor([0.0, 0, 2, 2]))
    assert cells(coarse) == [(1, 1)]
    assert_close(coarse.anchor_sizes, torch.ones(1, 2))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 3), st.floats(0.01, 9), st.floats(0.01, 9)).map(list), max_size=6)
)
def test_matches_lie_in_the_grid_and_near_the_centre(boxes):
    found = assign(boxes, [[1, 1], [3, 2]], grid_size=(3, 5))
    assert ((found.col >= 0) & (found.col < 5) & (found.row >= 0) & (found.row < 3)).all()
    assert ((found.gt_boxes[:, :2] >= -0.5) & (found.gt_boxes[:, :2] <= 1.5)).all()
    claims = torch.stack([found.gt_index, found.anchor], dim=1)
    assert not len(claims) or claims.unique(dim=0, return_counts=True)[1].max() <= 3


def test_a_factor_of_one_is_impossible():
    with pytest.raises(ValueError, match="anchor_ratio"):
        RatioAssigner(anchor_ratio=1.0)
