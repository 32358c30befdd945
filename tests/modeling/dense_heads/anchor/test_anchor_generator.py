import pytest
import torch
from torch.testing import assert_close

from parking.modeling import YOLOAnchorGenerator
from parking.utils.errors import UserError

SIZES = [[[10, 13], [16, 30]], [[30, 61], [62, 45]]]


def test_cells_are_column_and_row():
    generator = YOLOAnchorGenerator(sizes=SIZES, strides=[8, 16])
    fine, coarse = generator([(2, 3), (1, 1)])
    assert_close(fine, torch.tensor([[[0.0, 0], [1, 0], [2, 0]], [[0, 1], [1, 1], [2, 1]]]))
    assert_close(coarse, torch.zeros(1, 1, 2))
    assert generator.num_anchors == [2, 2]


def test_anchors_are_part_of_the_state():
    generator = YOLOAnchorGenerator(sizes=SIZES, strides=[8, 16])
    assert list(generator.state_dict()) == ["anchors"]
    assert_close(generator.anchors[1, 0], torch.tensor([30.0, 61]))


@pytest.mark.parametrize(
    "sizes",
    [
        [SIZES[0]],
        [[[10, 13]], [[30, 61], [62, 45]]],
        [[[10, 13, 1]], [[30, 61, 1]]],
        [[10, 13], [30, 61]],
        [[[10, -13]], [[30, 61]]],
        [[["a", "b"]], [[30, 61]]],
    ],
)
def test_odd_anchors_are_the_users_mistake(sizes):
    with pytest.raises(UserError, match=r"MODEL\.YOLO\.ANCHORS"):
        YOLOAnchorGenerator(sizes=sizes, strides=[8, 16])
