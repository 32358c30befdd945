"""Fixtures for tests of the mapper and the loaders."""

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from parking.config import get_cfg

SIZES = [(40, 60), (61, 33), (20, 20), (48, 97), (30, 31)]
CLASS_COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]


@pytest.fixture
def dicts(tmp_path):
    """Return dicts of five images; image i (0..4) has i boxes, each filled with its class's colour."""
    rng = np.random.default_rng(0)
    result = []
    for i, (h, w) in enumerate(SIZES):
        image = np.full((h, w, 3), 30, np.uint8)
        annotations = []
        for k in range(i):
            x, y = 1 + k * w // i, int(rng.integers(1, h - 11))
            bw, bh = w // i - 2, 10
            image[y : y + bh, x : x + bw] = CLASS_COLORS[k % 3]
            annotations.append(
                {"bbox": [x, y, bw, bh], "bbox_mode": BoxMode.XYWH_ABS, "category_id": k % 3, "iscrowd": 0}
            )
        path = tmp_path / f"{i}.png"
        Image.fromarray(image).save(path)
        result.append({"file_name": str(path), "image_id": 10 + i, "height": h, "width": w, "annotations": annotations})
    return result


@pytest.fixture
def make_cfg():
    """Return a function that makes a config for tiny images: ``make_cfg(num_workers, ..., KEY_OF_INPUT_AUG=value)``."""

    def make(num_workers=0, size=(64, 96), sampler="TrainingSampler", max_iter=40000, **aug):
        cfg = get_cfg()
        cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.REPEAT_THRESHOLD = sampler, 0.9
        cfg.INPUT.SIZE_TRAIN, cfg.INPUT.SIZE_TEST = list(size), 64
        cfg.DATALOADER.NUM_WORKERS = num_workers
        cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER = 4, max_iter
        for key, value in aug.items():
            cfg.INPUT.AUG[key] = value
        return cfg

    return make


@pytest.fixture
def assert_same_samples():
    """Return a function that asserts that two lists of samples are equal to the bit."""

    def check(actual, expected):
        for a, b in zip(actual, expected, strict=True):
            assert (a["position"], a["file_name"]) == (b["position"], b["file_name"])
            torch.testing.assert_close(a["image"], b["image"], rtol=0, atol=0)
            a, b = a["instances"], b["instances"]
            torch.testing.assert_close(a.gt_boxes.tensor, b.gt_boxes.tensor, rtol=0, atol=0)
            torch.testing.assert_close(a.gt_classes, b.gt_classes, rtol=0, atol=0)

    return check
