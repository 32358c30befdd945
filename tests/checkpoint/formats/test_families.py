"""Which config a published model has, by its tensors alone."""

from pathlib import Path

import pytest
import torch

from parking.checkpoint import Weights, check_all_fit
from parking.checkpoint.formats.families import FAMILIES, YOLOV5U
from parking.config import get_cfg
from parking.inference.build import find_shapes
from parking.utils.errors import UserError

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


def test_there_is_no_yolox_with_four_levels():
    """A config of one's own may have such a model; its weights have no published config."""
    state = {"backbone.bottom_up.stem.conv.weight": torch.zeros(16, 3, 6, 6)}
    config = {"MODEL": {"HEAD": {"NAME": "YOLOXHead"}}}
    assert Weights("w.pth", state, config=config).find_config(for_coco=False) == "configs/yolox/nano.yaml"
    state["backbone.bottom_up.dark6.csp.conv1.conv.weight"] = torch.zeros(1)
    assert Weights("w.pth", state, config=config).find_config(for_coco=False) is None


def test_a_width_that_published_trainings_derive_from_the_number_of_classes():
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / "yolov5u/n.yaml"))
    own = find_shapes(cfg)
    cfg.MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS = 64
    weights = Weights("w.pt", find_shapes(cfg), family=YOLOV5U)
    key = "MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS"
    assert weights.find_widths(own) == {key: 64} and weights.find_widths(weights.state_dict) == {}
    assert weights.find_widths({}) == {}
    with pytest.raises(UserError, match=rf"configs/yolov5u/n\.yaml with {key} 64"):
        check_all_fit(weights.state_dict, own, weights, will_train=True)
