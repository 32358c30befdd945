from pathlib import Path

import pytest
import torch
from detectron2.structures import Boxes, Instances

from parking.config import get_cfg
from parking.modeling import YOLO

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def parity_dir():
    path = ROOT / "../shared/parity"
    if not path.is_dir():
        pytest.skip("the numbers of the published implementation are not here (../shared/parity)")
    return path


@pytest.fixture(scope="session")
def parity_data():
    """The folder with those numbers of the published implementation that need no published weights."""
    return ROOT / "tests/data/parity"


@pytest.fixture
def pico_cfg():
    """The smallest model, three classes, nothing filtered by score."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.YOLO.WIDTH_MULTIPLE = 0.125
    cfg.MODEL.YOLO.NUM_CLASSES = 3
    cfg.MODEL.YOLO.SCORE_THRESH_TEST = 0.0
    return cfg


@pytest.fixture
def pico(pico_cfg):
    torch.manual_seed(0)
    return YOLO(pico_cfg).eval()


@pytest.fixture
def sample():
    """Makes a model input with a random image: ``sample(height, width, boxes, classes)``."""
    generator = torch.Generator().manual_seed(0)

    def make(height, width, boxes=(), classes=()):
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
        instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
        image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)
        return {"image": image, "instances": instances}

    return make
