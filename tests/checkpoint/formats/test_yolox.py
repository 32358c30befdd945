"""The published names of YOLOX's tensors, and its first convolution."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch.testing import assert_close

from parking.checkpoint import load_weights, read_weights
from parking.checkpoint.formats import yolox
from parking.checkpoint.formats.layout import LayoutError
from parking.checkpoint.formats.yolox import from_published, is_published_layout
from parking.config import get_cfg
from parking.modeling import YOLO
from parking.utils.errors import UserError

from .published import YOLOX_DEPTHS, YOLOX_STEM, as_published, make_state, yolox_keys

ROOT = Path(__file__).resolve().parents[3]
PARITY = ROOT / "../shared/parity"


@pytest.mark.parametrize("size", YOLOX_DEPTHS)
def test_every_size_has_the_published_names(size):
    state = make_state(f"yolox/{size}", "meta")
    published = as_published(yolox, yolox_keys(size), state)
    assert is_published_layout(published) and not is_published_layout(state)
    back, left_out = from_published(published)
    assert {name: tensor.shape for name, tensor in back.items()} == {n: tensor.shape for n, tensor in state.items()}
    assert left_out == ()


def test_what_the_layout_is_told_by():
    for name in (YOLOX_STEM, "backbone.backbone.dark2.0.conv.weight", "head.cls_preds.0.bias"):
        assert is_published_layout({"neck.weight": 0, name: 0})
    # Of somebody's own backbone inside another, and of ours.
    assert not is_published_layout({"backbone.backbone.layer1.weight": 0, "head.class_predictors.0.bias": 0})


@pytest.mark.parametrize("name", ["yolox_nano", "yolox_dense_random_14"])
def test_a_published_file_there_and_back(name):
    if not PARITY.is_dir():
        pytest.skip("there are no published weights here (../shared/parity)")
    path = PARITY / f"{name}.pth"
    published = torch.load(path, weights_only=True)["model"]
    weights = read_weights(path)
    assert (weights.family.name, weights.left_out, weights.config) == ("YOLOX", (), None)
    expected = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in published.items()}
    back = as_published(yolox, expected, weights.state_dict)
    stem, expected_stem = back.pop(YOLOX_STEM), expected.pop(YOLOX_STEM)
    # Multiplying by 255 and dividing again may change the last bit.
    last_bits = torch.nextafter(expected_stem.abs(), torch.tensor(torch.inf)) - expected_stem.abs()
    assert ((stem - expected_stem).abs() <= last_bits).all()
    assert all(back[key].dtype == tensor.dtype and torch.equal(back[key], tensor) for key, tensor in expected.items())
    coco = [category["name"] for category in COCO_CATEGORIES if category["isthing"]]
    assert weights.class_names == (coco if name == "yolox_nano" else None)


def test_the_first_convolution_reads_what_ours_reads():
    """Groups of 2 x 2 pixels, written out as the design says, against a convolution of 6 x 6."""
    torch.manual_seed(0)
    weight, image = torch.randn(4, 12, 3, 3), torch.randint(0, 256, (1, 3, 10, 14)).float()  # RGB
    bgr = image.flip(1)
    upper_left, lower_left = bgr[..., ::2, ::2], bgr[..., 1::2, ::2]
    upper_right, lower_right = bgr[..., ::2, 1::2], bgr[..., 1::2, 1::2]
    expected = F.conv2d(torch.cat([upper_left, lower_left, upper_right, lower_right], dim=1), weight, padding=1)
    state, _ = from_published({YOLOX_STEM: weight})
    found = F.conv2d(image / 255, state["backbone.bottom_up.stem.conv.weight"], stride=2, padding=2)
    assert_close(found, expected, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    "key",
    [
        "backbone.backbone.dark1.0.conv.weight",
        "backbone.backbone.dark5.3.conv1.conv.weight",
        "backbone.backbone.out1.0.conv.weight",  # of YOLOX-Darknet53
        "backbone.C3_p5.conv1.conv.weight",
        "head.cls_preds.0",
        "head.cls_preds",
        "head.mask_preds.0.weight",
        "neck.0.weight",
    ],
)
def test_an_unknown_tensor_is_named(key):
    state = {"head.cls_preds.0.bias": torch.zeros(2), key: torch.zeros(1)}
    with pytest.raises(LayoutError, match=rf"its tensor {key} belongs to no YOLOX"):
        from_published(state)


def test_half_precision_becomes_float32_before_it_is_scaled():
    # 300 * 255 is more than half precision holds.
    state, _ = from_published({YOLOX_STEM: torch.full((1, 12, 3, 3), 300.0).half()})
    assert state["backbone.bottom_up.stem.conv.weight"].unique().tolist() == [76_500.0]


def test_a_model_that_fits_no_size_is_refused_by_its_tensors(tmp_path):
    own = {name: torch.ones(t.shape) for name, t in make_state("yolox/nano", "meta").items()}
    state = as_published(yolox, yolox_keys("nano"), own)
    torch.save(
        {"model": {**state, "backbone.backbone.dark2.1.conv1.conv.weight": torch.ones(3, 3)}}, tmp_path / "m.pth"
    )
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/coco/yolox_nano.yaml"))
    with torch.device("meta"):
        model = YOLO(cfg)
    with pytest.raises(UserError, match=r"dark2\.csp\.conv1\.conv\.weight has shape"):
        load_weights(model, read_weights(tmp_path / "m.pth"))
