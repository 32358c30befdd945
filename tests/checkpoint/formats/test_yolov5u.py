"""The published names of the distribution head's tensors, both ways; those of backbone and neck are YOLOv5's."""

from pathlib import Path

import pytest
import torch

from parking.checkpoint import load_weights, read_weights
from parking.checkpoint.formats import yolov5, yolov5u
from parking.checkpoint.formats.layout import LayoutError
from parking.config import get_cfg
from parking.modeling import YOLO
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[3]
PARITY = ROOT / "../shared/parity"
SIZES = [size + levels for levels in ("", "6") for size in "nsmlx"]
CONV = ("conv.weight", *(f"bn.{n}" for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")))
BINS = torch.arange(16.0).view(1, 16, 1, 1)


def make_model(folder: str, size: str, device: str, num_classes: int = 80) -> YOLO:
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / f"configs/{folder}/{size}.yaml"))
    cfg.MODEL.YOLO.NUM_CLASSES = num_classes
    cfg.MODEL.DEVICE = device
    with torch.device(device):
        return YOLO(cfg)


def head_keys(size: str) -> set[str]:
    head, num_levels = ("model.33", 4) if size.endswith("6") else ("model.24", 3)
    keys = {f"{head}.dfl.conv.weight"}
    for branch in ("cv2", "cv3"):
        for level in range(num_levels):
            prefix = f"{head}.{branch}.{level}"
            keys |= {f"{prefix}.{k}.{name}" for k in (0, 1) for name in CONV} | {
                f"{prefix}.2.weight",
                f"{prefix}.2.bias",
            }
    return keys


@pytest.mark.parametrize("size", SIZES)
def test_every_size_has_the_published_names(size):
    state = make_model("yolov5u", size, "meta").state_dict()
    published = yolov5u.to_published(state)
    position = "model.33." if size.endswith("6") else "model.24."
    assert {key for key in published if key.startswith(position)} == head_keys(size)
    others = yolov5.to_published(make_model("yolov5", size, "meta").state_dict())
    assert {key: tensor.shape for key, tensor in published.items() if key not in head_keys(size)} == {
        key: tensor.shape for key, tensor in others.items() if not key.startswith(position)
    }
    assert yolov5u.is_published_layout(published) and not yolov5u.is_published_layout(others)
    assert not yolov5u.is_published_layout(state)


@pytest.mark.parametrize("size", ["n", "n6"])
def test_there_and_back_without_loss(size):
    torch.manual_seed(0)
    state = make_model("yolov5u", size, "cpu").state_dict()
    for name, tensor in state.items():  # so that nothing is equal by being 0 or 1
        if name.endswith(("running_mean", "norm.weight", "norm.bias")):
            tensor.normal_()
        if name.endswith("num_batches_tracked"):
            tensor.fill_(123_457)
    back, left_out = yolov5u.from_published(yolov5u.to_published(state))
    assert back.keys() == state.keys() and len(left_out) == 1
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype
        assert torch.equal(back[name], tensor), name


def test_some_names_by_hand():
    names = {
        "model.0.conv.weight": "backbone.bottom_up.stem.conv.weight",
        "model.24.cv2.0.0.conv.weight": "head.box_branches.0.0.conv.weight",
        "model.24.cv2.1.1.bn.running_var": "head.box_branches.1.1.norm.running_var",
        "model.24.cv2.2.2.bias": "head.box_branches.2.2.bias",
        "model.24.cv3.0.1.bn.num_batches_tracked": "head.class_branches.0.1.norm.num_batches_tracked",
        "model.24.cv3.1.2.weight": "head.class_branches.1.2.weight",
    }
    values = {key: torch.full((1,), float(i)) for i, key in enumerate(names)}
    converted, left_out = yolov5u.from_published({**values, "model.24.dfl.conv.weight": BINS.half()})
    assert list(converted) == list(names.values()) and left_out == ("model.24.dfl.conv.weight",)
    assert [tensor.item() for tensor in converted.values()] == list(range(6))


@pytest.mark.parametrize(
    "bins",
    [
        BINS + 1,
        BINS.flip(1),
        BINS * torch.nan,
        BINS.flatten(),
        BINS.mT.reshape(16, 1, 1, 1),
        torch.zeros(()),
        torch.zeros(0),
        torch.zeros(0, 10**12, 1, 1),
    ],
)
def test_other_bins_are_refused(bins, tmp_path):
    with pytest.raises(LayoutError, match=r"its tensor model\.24\.dfl\.conv\.weight is not 0, 1, 2"):
        yolov5u.from_published({"model.24.dfl.conv.weight": bins})
    torch.save({"model": {"model.24.dfl.conv.weight": bins}}, tmp_path / "m.pt")
    with pytest.raises(UserError, match=r"m\.pt cannot be used: its tensor model\.24\.dfl"):
        read_weights(tmp_path / "m.pt")


@pytest.mark.parametrize(
    "key",
    [
        "model.24.m.0.weight",
        "model.24.anchors",
        "model.24.cv4.0.0.conv.weight",  # of a segmentation model
        "model.24.cv3.0.0.0.conv.weight",  # of newer models
        "model.24.cv2.0.3.weight",
        "model.24.one2one_cv2.0.0.conv.weight",
        "model.24.dfl.conv.bias2",
        "model.22.cv2.0.0.conv.weight",  # the head of YOLOv8
        "model.12.conv.weight",
    ],
)
def test_an_unknown_tensor_is_named(key):
    state = {"model.24.cv2.0.2.bias": torch.zeros(1), key: torch.zeros(1)}
    with pytest.raises(LayoutError, match=rf"its tensor {key} belongs to no YOLOv5 detector"):
        yolov5u.from_published(state)


def test_folded_norms_are_refused():
    state = {"model.24.cv2.0.0.conv.weight": torch.zeros(1), "model.24.cv2.0.0.conv.bias": torch.zeros(1)}
    with pytest.raises(LayoutError, match=r"folded .*model\.24\.cv2\.0\.0\.conv\.bias"):
        yolov5u.from_published(state)


@pytest.mark.parametrize("wrap", [str, "module.{}".format, "model.{}".format])
def test_a_state_dict_under_published_names_is_recognised(tmp_path, wrap):
    state = make_model("yolov5u", "n", "cpu").state_dict()
    torch.save({wrap(key): tensor for key, tensor in yolov5u.to_published(state).items()}, tmp_path / "state.pth")
    weights = read_weights(tmp_path / "state.pth")
    assert weights.head_name == "DistributionHead" and weights.state_dict.keys() == state.keys()
    assert all(torch.equal(weights.state_dict[name], tensor) for name, tensor in state.items())


# Files as they are published


@pytest.fixture(scope="module", params=[("yolov5nu_random_80.pt", "n", 80), ("yolov5n6u_random_14.pt", "n6", 14)])
def published_file(request):
    if not PARITY.is_dir():
        pytest.skip("there are no published weights here (../shared/parity)")
    file, size, num_classes = request.param
    return read_weights(PARITY / file), size, num_classes


def test_every_tensor_of_a_published_file_has_its_place(published_file):
    weights, size, num_classes = published_file
    assert len(weights.class_names) == num_classes and weights.head_name == "DistributionHead"
    assert weights.find_config(for_coco=True) == f"configs/coco/yolov5{size}u.yaml"
    dtypes = {tensor.dtype for name, tensor in weights.state_dict.items() if "num_batches_tracked" not in name}
    assert dtypes == {torch.float32}
    position = "model.33" if size == "n6" else "model.24"
    assert weights.left_out == (f"{position}.dfl.conv.weight",)
    # A model of 14 classes of its own has narrower class branches than one that started from COCO's.
    width = len(weights.state_dict["head.class_branches.0.0.conv.weight"])
    cfg = get_cfg()
    cfg.merge_from_file(str(ROOT / f"configs/yolov5u/{size}.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.YOLO.NUM_CLASSES", str(num_classes)])
    cfg.MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS = width
    assert width == (80 if size == "n" else 64)
    model = YOLO(cfg)
    load_weights(model, weights, class_names=weights.class_names)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, weights.state_dict[name])


def test_a_published_file_survives_the_way_back_bit_for_bit(published_file, tmp_path):
    weights, *_ = published_file
    published = yolov5u.to_published(weights.state_dict)
    torch.save({"model": published, "class_names": weights.class_names}, tmp_path / "m.pt")
    again = read_weights(tmp_path / "m.pt")
    assert again.left_out == weights.left_out and again.class_names == weights.class_names
    assert all(torch.equal(again.state_dict[name], tensor) for name, tensor in weights.state_dict.items())
    # Half precision, in which the file is, holds every one of these numbers.
    for tensor in published.values():
        assert not tensor.is_floating_point() or torch.equal(tensor.half().float(), tensor)
