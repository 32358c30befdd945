import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from parking.layers import box_ciou, box_ciou_values, box_iou

coordinate = st.floats(-100, 100, width=32)
side = st.floats(0.5, 100, width=32)
box = st.tuples(coordinate, coordinate, side, side).map(lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]])


def test_iou_by_hand():
    # Overlap 1, union 4 + 4 - 1.
    assert_close(box_iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3])), torch.tensor(1 / 7))
    assert box_iou(torch.tensor([0.0, 0, 1, 1]), torch.tensor([2.0, 2, 3, 3])) == 0


def test_iou_broadcasts_to_pairs():
    boxes1 = torch.tensor([[0.0, 0, 2, 2], [5, 5, 6, 6]])
    boxes2 = torch.tensor([[0.0, 0, 2, 2], [1, 1, 3, 3], [0, 0, 2, 1]])
    expected = torch.tensor([[1, 1 / 7, 1 / 2], [0, 0, 0]])
    assert_close(box_iou(boxes1[:, None], boxes2), expected)


def test_ciou_of_the_same_shape_loses_only_the_distance():
    # Centres sqrt(2) apart, hull 3 x 3: 1/7 - 2 / 18.
    assert_close(box_ciou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 1, 3, 3])), torch.tensor(1 / 7 - 1 / 9))


def test_ciou_by_hand():
    # 2 x 1 and 1 x 2 from one corner: overlap 1, union 3; centres (1, 0.5) and (0.5, 1); hull 2 x 2.
    aspect = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    alpha = aspect / (1 - 1 / 3 + aspect)
    expected = 1 / 3 - 0.5 / 8 - alpha * aspect
    assert_close(box_ciou(torch.tensor([0.0, 0, 2, 1]), torch.tensor([0.0, 0, 1, 2])), torch.tensor(expected))


def test_alpha_is_constant_for_the_gradient():
    # Concentric, so that there is no distance: only the aspect term differs with alpha's treatment.
    width = torch.tensor(4.0, requires_grad=True)
    one = torch.ones(())
    box_ciou(torch.stack([-width / 2, -one, width / 2, one]), torch.tensor([-1.0, -1, 1, 1])).backward()
    # w x 2 against 2 x 2: IoU = 2 / w, d/dw = -2 / w^2; v = 4/pi^2 (atan(w / 2) - pi/4)^2,
    # d/dw atan(w / 2) = 2 / (4 + w^2).
    angle = math.atan(2) - math.pi / 4
    aspect = 4 / math.pi**2 * angle**2
    alpha = aspect / (1 - 0.5 + aspect)
    expected = -2 / 16 - alpha * 4 / math.pi**2 * 2 * angle * 2 / 20
    assert_close(width.grad, torch.tensor(expected), rtol=1e-4, atol=0)


@settings(deadline=None)
@given(box, box)
def test_properties(box1, box2):
    box1, box2 = torch.tensor(box1), torch.tensor(box2)
    iou, ciou = box_iou(box1, box2), box_ciou(box1, box2)
    assert 0 <= iou <= 1
    assert -1.5 <= ciou <= iou
    assert_close(ciou, box_ciou(box2, box1), rtol=1e-4, atol=1e-5)
    assert_close(box_ciou(box1, box1), torch.tensor(1.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [box_iou, box_ciou])
def test_empty_boxes_keep_value_and_gradient_finite(function):
    point = torch.zeros(4, requires_grad=True)
    value = function(point, torch.tensor([0.0, 0, 0, 0]))
    value.backward()
    assert value.isfinite()
    assert point.grad.isfinite().all()


def test_half_precision_is_computed_in_float32():
    boxes = torch.tensor([[0.0, 0, 300, 300]], dtype=torch.float16)
    assert box_iou(boxes, boxes).dtype == torch.float32
    assert_close(box_ciou(boxes, boxes), torch.ones(1))


def test_values_alone_are_the_same_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    boxes, others = torch.rand(200, 4, generator=generator) * 50, torch.rand(9, 1, 4, generator=generator) * 50
    boxes[20:, 2:] += boxes[20:, :2]  # the first have negative sides
    boxes[:5], boxes[5:10] = 0, others[:5, 0]
    others[1:, :, 2:] += others[1:, :, :2]
    assert torch.equal(box_ciou_values(boxes, others), box_ciou(boxes, others))
    assert torch.equal(box_ciou_values(boxes.half(), others.half()), box_ciou(boxes.half(), others.half()))
