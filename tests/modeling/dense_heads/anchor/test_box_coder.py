import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from parking.modeling.dense_heads.anchor import YOLOBoxCoder

delta = st.floats(-4, 4, width=32)


def test_decode_by_hand():
    # sigmoid(0) = 1/2: the centre of the cell and the anchor itself. sigmoid(ln 3) = 3/4.
    boxes = YOLOBoxCoder().decode(
        torch.tensor([[0.0, 0, 0, 0], [np.log(3), 0, np.log(3), 0]]),
        cells=torch.tensor([3.0, 1]),
        anchors=torch.tensor([10.0, 20]),
        stride=8,
    )
    # (2 * 3/4 - 0.5 + 3) * 8 = 32; (2 * 3/4)^2 * 10 = 22.5
    assert_close(boxes, torch.tensor([[28.0, 12, 10, 20], [32, 12, 22.5, 20]]))


@settings(deadline=None)
@given(st.lists(delta, min_size=4, max_size=4), st.sampled_from([1, 8, 64]))
def test_round_trip(deltas, stride):
    deltas = torch.tensor(deltas)
    cells, anchors = torch.tensor([2.0, 5]), torch.tensor([30.0, 61])
    boxes = YOLOBoxCoder().decode(deltas, cells, anchors, stride)
    assert_close(YOLOBoxCoder().encode(boxes, cells, anchors, stride), deltas, rtol=1e-3, atol=1e-3)


def test_what_a_cell_cannot_reach_is_not_finite():
    cells, anchors = torch.zeros(2), torch.ones(2)
    assert not YOLOBoxCoder().encode(torch.tensor([2.0, 0.5, 1, 1]), cells, anchors)[0].isfinite()
    assert not YOLOBoxCoder().encode(torch.tensor([0.5, 0.5, 4.5, 1]), cells, anchors)[2].isfinite()
