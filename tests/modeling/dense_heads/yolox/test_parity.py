"""Equal numbers: YOLOX models from published files against what the published code computed with them, in float32."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.testing import assert_close
from torchvision.ops import box_convert

from parking.checkpoint import load_weights, read_weights
from parking.config import get_cfg
from parking.inference.build import build_model
from parking.layers import fuse_conv_norm

ROOT = Path(__file__).resolve().parents[4]
# Classes, and whether there are depthwise pairs.
CASES = {"yolox_nano": (80, True), "yolox_dense_random_14": (14, False)}


@pytest.fixture(scope="module")
def build(parity_dir):
    """``build(name)``: the model of a published file, in eval mode."""

    def build(name):
        num_classes, depthwise = CASES[name]
        cfg = get_cfg()
        cfg.merge_from_file(str(ROOT / "configs/yolox/nano.yaml"))
        cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.YOLO.DEPTHWISE", str(depthwise)])
        cfg.MODEL.YOLO.NUM_CLASSES = num_classes
        model = build_model(cfg)
        load_weights(model, read_weights(parity_dir / f"{name}.pth"))
        return model.eval()

    return build


def load(path):
    with np.load(path) as data:
        return {key: torch.from_numpy(data[key]) for key in data}


@torch.no_grad()
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("fused", "memory_format"), [(False, "contiguous_format"), (True, "channels_last")])
def test_outputs(build, parity_dir, name, fused, memory_format):
    model, data = build(name), load(parity_dir / f"{name}_forward.npz")
    memory_format = getattr(torch, memory_format)
    model = (fuse_conv_norm(model) if fused else model).to(memory_format=memory_format)
    images = model.normalize(data["image_rgb_uint8"].float()).to(memory_format=memory_format)
    found, expected = model.predict(images), data["decoded"]
    # 24 x 32, 12 x 16 and 6 x 8 cells.
    assert found.level_sizes == (768, 192, 48)
    # In cells, which the network's outputs are in: to 1e-4 of themselves, or of one cell where they are less than that.
    cells = torch.tensor([8.0] * 768 + [16] * 192 + [32] * 48)[:, None]
    boxes = box_convert(found.boxes, "xyxy", "cxcywh")
    assert_close(boxes / cells, expected[..., :4] / cells, rtol=1e-4, atol=1e-4)
    assert ((boxes - expected[..., :4]).norm() / expected[..., :4].norm()).item() < 5e-6
    assert_close(found.upper_bound, expected[..., 4], rtol=1e-4, atol=0)
    assert_close(found.scores, expected[..., 4:5] * expected[..., 5:], rtol=1e-4, atol=0)


@pytest.mark.parametrize("case", ["plain", "with_l1"])
def test_losses_and_gradients(build, parity_dir, case):
    model, data = build("yolox_dense_random_14"), load(parity_dir / "yolox_loss_inputs.npz")
    expected = json.loads((parity_dir / "yolox_loss_expected.json").read_text())[case]
    instances = []
    for rows in data["targets_class_cxcywh_pixels"]:
        rows = rows[rows.any(dim=1)]
        boxes = Boxes(box_convert(rows[:, 1:], "cxcywh", "xyxy"))
        instances.append(Instances((192, 256), gt_boxes=boxes, gt_classes=rows[:, 0].long()))
    model.head.strong_augmentation_ends(7 if case == "with_l1" else None)
    features = model.backbone(model.normalize(data["image_rgb_uint8"].float()))
    with EventStorage(7):
        raw = model.head([features[name] for name in model.head_in_features])
        losses = model.head.losses(raw, instances, (192, 256))
    sum(losses.values()).backward()
    # Published losses are those of a batch, whatever its size; the trainer's are times images / 64.
    scale = 64 / len(instances)
    names = {"loss_box": "iou_loss", "loss_obj": "conf_loss", "loss_cls": "cls_loss", "loss_l1": "l1_loss"}
    assert (len(losses) == 4) == (case == "with_l1")
    for name, loss in losses.items():
        assert loss.item() * scale == pytest.approx(expected[names[name]], rel=1e-4)
    assert sum(losses.values()).item() * scale == pytest.approx(expected["total_loss"], rel=1e-4)
    norm = torch.stack([parameter.grad.norm() for parameter in model.head.parameters()]).norm().item()
    assert norm * scale == pytest.approx(expected["grad_norm_head"], rel=1e-3)
