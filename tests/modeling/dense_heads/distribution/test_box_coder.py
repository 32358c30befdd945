import math

import pytest
import torch
from torch.testing import assert_close

from parking.modeling.dense_heads.distribution import DistributionBoxCoder

CODER = DistributionBoxCoder(16)
POINT = torch.tensor([20.5, 10.5])


def test_a_side_is_the_mean_of_its_distribution():
    # Left certainly 3; top 1 or 2, each half; right anything, mean 7.5; bottom 15.
    logits = torch.full((4, 16), -1e4)
    logits[0, 3] = logits[1, 1] = logits[1, 2] = logits[3, 15] = 0
    logits[2] = 5
    assert_close(CODER.decode(logits.flatten(), POINT), torch.tensor([17.5, 9.0, 28.0, 25.5]))


def test_half_precision_logits_are_decoded_in_float32():
    logits = torch.randn(64, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert_close(CODER.decode(logits, POINT), CODER.decode(logits.float(), POINT), rtol=0, atol=0)


def test_encoded_boxes_decode_to_themselves():
    boxes = torch.tensor([[20.5, 10.5, 20.5, 10.5], [20.0, 9.75, 24.5, 25.25], [5.6, 0, 21.3, 12]])
    probs = CODER.encode(boxes, POINT.expand(3, 2))
    assert_close(probs.sum(dim=-1), torch.ones(3, 4))
    assert ((probs > 0).sum(dim=-1) <= 2).all()
    assert_close(CODER.decode(probs.clamp(min=1e-30).log().flatten(1), POINT), boxes)


def test_sides_out_of_reach_become_the_nearest_that_is_not():
    probs = CODER.encode(torch.tensor([21.0, -100, 99, 12]), POINT)
    means = (probs * torch.arange(16)).sum(dim=-1)
    assert_close(means, torch.tensor([0, 14.99, 14.99, 1.5]))


def test_cross_entropy_by_hand():
    # All bins alike: ln 16 whatever the side. Left 3.25: 3/4 of bin 3, 1/4 of bin 4.
    logits = torch.zeros(4, 16)
    box = torch.tensor([17.25, 10.5, 20.5, 10.5])
    assert_close(CODER.cross_entropy(logits.flatten(), box, POINT), torch.tensor(math.log(16)))
    logits[0, 4] = math.log(3)  # then 3/18 for bin 4 and 1/18 for the others
    left = 0.75 * math.log(18) + 0.25 * math.log(6)
    assert CODER.cross_entropy(logits.flatten(), box, POINT).item() == pytest.approx((left + 3 * math.log(16)) / 4)
