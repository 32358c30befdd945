"""A whole network whose weights come from a seed: the numbers that it gave while test_parity.py held.

test_parity.py compares with the published implementation, but needs published weights, which not every clone has.
"""

import zlib

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from parking.config import get_cfg
from parking.inference.build import build_model
from parking.modeling import YOLOWithTTA


def fill(state_dict):
    """Give every tensor values that depend on its name only, of the size that those of trained networks have."""
    for name, tensor in state_dict.items():
        if not tensor.is_floating_point() or name in ("pixel_mean", "pixel_std", "head.anchors"):
            continue
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if tensor.ndim == 4:
            values = rng.standard_normal(tensor.shape) * (1.8 / np.prod(tensor.shape[1:])) ** 0.5
        elif name.endswith(("norm.weight", "running_var")):
            values = rng.uniform(0.5, 1.5, tensor.shape)
        else:
            values = rng.standard_normal(tensor.shape) * 0.1
        tensor.copy_(torch.from_numpy(values))


@pytest.fixture(scope="module")
def model():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.YOLO.WIDTH_MULTIPLE, cfg.MODEL.YOLO.DEPTH_MULTIPLE = 0.25, 0.33
    cfg.MODEL.YOLO.NUM_CLASSES = 14
    model = build_model(cfg).eval()
    fill(model.state_dict())
    return model


@pytest.fixture(scope="module")
def image():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 64, 96), dtype=np.uint8))


@torch.no_grad()
@pytest.mark.parametrize("augmented", [False, True])
def test_predictions_are_what_they_were(model, image, parity_data, augmented):
    detector = YOLOWithTTA(model) if augmented else model
    found = detector.predict(model.normalize(image.float()))
    expected = np.load(parity_data / "seeded.npz")
    name = "augmented" if augmented else "plain"
    assert_close(found.boxes, torch.from_numpy(expected[f"{name}_boxes"]), rtol=1e-4, atol=1e-3)
    assert_close(found.scores, torch.from_numpy(expected[f"{name}_scores"]), rtol=1e-4, atol=1e-7)
