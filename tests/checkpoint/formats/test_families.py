"""Which config a published model has, by its tensors alone."""

from pathlib import Path

import pytest
import torch

from parking.checkpoint import Weights
from parking.checkpoint.formats.families import FAMILIES
from parking.config import get_cfg
from parking.inference.build import find_shapes

CONFIGS = Path(__file__).resolve().parents[3] / "configs"


@pytest.mark.parametrize("folder", [folder for folder in ("yolov5", "yolov5u", "yolox") if (CONFIGS / folder).is_dir()])
def test_each_config_is_found_by_the_tensors_of_its_model(folder):
    (family,) = [family for family in FAMILIES if family.config.startswith(f"{folder}/")]
    files = sorted((CONFIGS / folder).glob("*.yaml"))
    assert len(files) >= 6
    for file in files:
        cfg = get_cfg()
        cfg.merge_from_file(str(file))
        assert family.head == cfg.MODEL.HEAD.NAME
        weights = Weights("w.pt", find_shapes(cfg), family=family)
        assert weights.find_config(for_coco=False) == f"configs/{folder}/{file.name}"
        assert (CONFIGS.parent / weights.find_config(for_coco=True)).is_file()


@pytest.mark.parametrize(
    ("head", "stem"), [("AnchorHead", None), ("AnchorHead", (7, 3, 6, 6)), ("PointHead", (16, 3, 6, 6)), ([1], None)]
)
def test_other_models_have_no_such_config(head, stem):
    state = {} if stem is None else {"backbone.bottom_up.stem.conv.weight": torch.zeros(stem)}
    weights = Weights("w.pth", state, config={"MODEL": {"HEAD": {"NAME": head}}})
    assert weights.find_config(for_coco=True) is None
