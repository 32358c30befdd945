import torch
from torch.testing import assert_close

from parking.modeling.dense_heads.yolox import YOLOXBoxCoder


def test_by_hand():
    # Cell (2, 1) of stride 8: ((0.5 + 2) * 8, (-0.25 + 1) * 8, e^0 * 8, e^1 * 8)
    deltas, cell, stride = torch.tensor([0.5, -0.25, 0.0, 1.0]), torch.tensor([2.0, 1.0]), torch.tensor([8.0])
    assert_close(YOLOXBoxCoder().decode(deltas, cell, stride), torch.tensor([20.0, 6.0, 8.0, 21.7462546]))


def test_there_and_back():
    coder, generator = YOLOXBoxCoder(), torch.Generator().manual_seed(0)
    deltas = torch.randn(2, 50, 4, generator=generator)
    cells, strides = torch.randint(0, 80, (50, 2), generator=generator).float(), torch.full((50, 1), 16.0)
    assert_close(coder.encode(coder.decode(deltas, cells, strides), cells, strides), deltas, rtol=1e-4, atol=1e-5)
    # A box without sides has deltas nevertheless.
    assert coder.encode(torch.zeros(4), cells[0], strides[0]).isfinite().all()


def test_half_precision_is_decoded_in_float32():
    decoded = YOLOXBoxCoder().decode(torch.full((4,), 9.0, dtype=torch.bfloat16), torch.zeros(2), torch.tensor([32.0]))
    assert decoded.dtype == torch.float32 and decoded[2].item() > 250_000
