"""The published names of YOLOX's tensors, both ways, and its first convolution."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from torch.testing import assert_close

from parking.checkpoint import load_weights, read_weights
from parking.checkpoint.formats.layout import LayoutError
from parking.checkpoint.formats.yolox import from_published, is_published_layout, to_published
from parking.config import get_cfg
from parking.modeling import YOLO
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
PARITY = ROOT / "../shared/parity"
DEPTHS = {"nano": 1, "tiny": 1, "s": 1, "m": 2, "l": 3, "x": 4}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
STEM = "backbone.backbone.stem.conv.conv.weight"


def expected_keys(size: str) -> set[str]:
    def conv(prefix):
        return {f"{prefix}.conv.weight", *(f"{prefix}.bn.{name}" for name in NORM)}

    def conv3x3(prefix):
        return conv(f"{prefix}.dconv") | conv(f"{prefix}.pconv") if size == "nano" else conv(prefix)

    def csp(prefix, repeats):
        keys = set().union(*(conv(f"{prefix}.conv{i}") for i in (1, 2, 3)))
        for k in range(repeats):
            keys |= conv(f"{prefix}.m.{k}.conv1") | conv3x3(f"{prefix}.m.{k}.conv2")
        return keys

    depth, dark, neck = DEPTHS[size], "backbone.backbone.dark", "backbone."
    keys = conv("backbone.backbone.stem.conv")
    for stage, times in ((2, 1), (3, 3), (4, 3), (5, 1)):
        keys |= conv3x3(f"{dark}{stage}.0") | csp(f"{dark}{stage}.{2 if stage == 5 else 1}", times * depth)
    keys |= conv(f"{dark}5.1.conv1") | conv(f"{dark}5.1.conv2")
    for name in ("lateral_conv0", "reduce_conv1"):
        keys |= conv(neck + name)
    for name in ("bu_conv1", "bu_conv2"):
        keys |= conv3x3(neck + name)
    for name in ("C3_p4", "C3_p3", "C3_n3", "C3_n4"):
        keys |= csp(neck + name, depth)
    for level in range(3):
        keys |= conv(f"head.stems.{level}")
        for branch in ("cls", "reg"):
            keys |= conv3x3(f"head.{branch}_convs.{level}.0") | conv3x3(f"head.{branch}_convs.{level}.1")
        for part in ("cls", "reg", "obj"):
            keys |= {f"head.{part}_preds.{level}.weight", f"head.{part}_preds.{level}.bias"}
    return keys


def make_state(size: str, device: str) -> dict[str, torch.Tensor]:
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / f"configs/yolox/{size}.yaml"))
    cfg.MODEL.YOLO.NUM_CLASSES = 80
    cfg.MODEL.DEVICE = device
    with torch.device(device):
        return YOLO(cfg).state_dict()


@pytest.mark.parametrize("size", DEPTHS)
def test_every_size_has_the_published_names(size):
    state = make_state(size, "meta")
    published = to_published(state)
    assert published.keys() == expected_keys(size)
    assert published[STEM].shape == (len(published[STEM]), 12, 3, 3)
    assert is_published_layout(published) and not is_published_layout(state)
    back, left_out = from_published(published)
    assert {name: tensor.shape for name, tensor in back.items()} == {n: tensor.shape for n, tensor in state.items()}
    assert left_out == ()


def test_what_the_layout_is_told_by():
    for name in (STEM, "backbone.backbone.dark2.0.conv.weight", "head.cls_preds.0.bias"):
        assert is_published_layout({"neck.weight": 0, name: 0})
    # Of somebody's own backbone inside another, and of ours.
    assert not is_published_layout({"backbone.backbone.layer1.weight": 0, "head.class_predictors.0.bias": 0})


def assert_equal_but_for_the_last_bit_of_the_stem(actual, expected, stem):
    assert actual.keys() == expected.keys()
    for name, tensor in expected.items():
        assert actual[name].dtype == tensor.dtype and actual[name].shape == tensor.shape
        if name == stem:
            last_bits = torch.nextafter(tensor.abs(), torch.tensor(torch.inf)) - tensor.abs()
            assert ((actual[name] - tensor).abs() <= last_bits).all()
        else:
            assert torch.equal(actual[name], tensor), name


def test_there_and_back_without_loss():
    torch.manual_seed(0)
    state = make_state("nano", "cpu")
    for name, tensor in state.items():  # that nothing is equal by being 0 or 1
        if name.endswith(("running_mean", "norm.weight", "norm.bias")):
            tensor.normal_()
    back, _ = from_published(to_published(state))
    assert_equal_but_for_the_last_bit_of_the_stem(back, state, "backbone.bottom_up.stem.conv.weight")


@pytest.mark.parametrize("name", ["yolox_nano", "yolox_dense_random_14"])
def test_a_published_file_there_and_back(name):
    if not PARITY.is_dir():
        pytest.skip("there are no published weights here (../shared/parity)")
    path = PARITY / f"{name}.pth"
    published = torch.load(path, weights_only=True)["model"]
    weights = read_weights(path)
    assert (weights.family.name, weights.left_out, weights.config) == ("YOLOX", (), None)
    expected = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in published.items()}
    assert_equal_but_for_the_last_bit_of_the_stem(to_published(weights.state_dict), expected, STEM)
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
    state, _ = from_published({STEM: weight})
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
    state, _ = from_published({STEM: torch.full((1, 12, 3, 3), 300.0).half()})
    assert state["backbone.bottom_up.stem.conv.weight"].unique().tolist() == [76_500.0]


def test_a_model_that_fits_no_size_is_refused_by_its_tensors(tmp_path):
    state = to_published({name: torch.ones(t.shape) for name, t in make_state("nano", "meta").items()})
    torch.save(
        {"model": {**state, "backbone.backbone.dark2.1.conv1.conv.weight": torch.ones(3, 3)}}, tmp_path / "m.pth"
    )
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / "configs/coco/yolox_nano.yaml"))
    with torch.device("meta"):
        model = YOLO(cfg)
    with pytest.raises(UserError, match=r"dark2\.csp\.conv1\.conv\.weight has shape"):
        load_weights(model, read_weights(tmp_path / "m.pth"))
