import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from torch.testing import assert_close

from parking.config import get_cfg
from parking.modeling.dense_heads import DistributionHead

STRIDES = (8, 16, 32, 64)


def make(num_classes=2, channels=(8, 12), **keys):
    cfg = get_cfg()
    cfg.MODEL.YOLO.NUM_CLASSES = num_classes
    for key, value in keys.items():
        cfg.MODEL.DISTRIBUTION_HEAD[key] = value
    shapes = [ShapeSpec(channels=c, stride=s) for c, s in zip(channels, STRIDES, strict=False)]
    return DistributionHead(cfg, shapes)


def instances(boxes, classes, size=(64, 96)):
    made = Instances(size)
    made.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    made.gt_classes = torch.tensor(classes, dtype=torch.int64)
    return made


def features(num_images=2, channels=(8, 12)):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(num_images, c, 64 // s, 96 // s, generator=generator)
        for c, s in zip(channels, STRIDES, strict=False)
    ]


@pytest.mark.parametrize(
    ("finest", "num_classes", "class_channels", "expected"),
    [
        (64, 80, 0, (64, 80)),  # n
        (64, 14, 0, (64, 64)),
        (64, 14, 80, (64, 80)),
        (64, 365, 0, (64, 100)),
        (320, 80, 0, (80, 320)),  # x
    ],
)
def test_widths_of_the_branches(finest, num_classes, class_channels, expected):
    with torch.device("meta"):
        head = make(num_classes, (finest, 2 * finest), CLASS_CHANNELS=class_channels)
    for level, (boxes, classes) in enumerate(zip(head.box_branches, head.class_branches, strict=True)):
        assert (boxes[0].conv.in_channels, classes[0].conv.in_channels) == (finest << level,) * 2
        assert (boxes[1].conv.out_channels, classes[1].conv.out_channels) == expected
        assert (boxes[2].out_channels, classes[2].out_channels) == (64, num_classes)


def test_a_new_head_expects_few_objects():
    head = make(num_classes=5)
    for boxes, classes, stride in zip(head.box_branches, head.class_branches, STRIDES, strict=False):
        assert boxes[2].bias.eq(1).all()
        assert classes[2].bias.tolist() == pytest.approx([math.log(5 / 5 / (640 / stride) ** 2)] * 5)


@torch.no_grad()
def test_decoded_by_level_row_column():
    head = make()
    raw = head(features())
    assert [tuple(level.shape) for pair in raw for level in pair] == [
        (2, 64, 8, 12), (2, 2, 8, 12), (2, 64, 4, 6), (2, 2, 4, 6)
    ]  # fmt: skip
    found = head.decode(raw)
    assert found.level_sizes == (96, 24) and found.upper_bound is None
    assert found.boxes.shape == (2, 120, 4) and found.scores.shape == (2, 120, 2)
    # Level 1 (stride 16), row 2, column 5, of 4 x 6 cells.
    sides = [(bins.softmax(0) * torch.arange(16)).sum() for bins in raw[1][0][1, :, 2, 5].view(4, 16)]
    expected = torch.stack([5.5 - sides[0], 2.5 - sides[1], 5.5 + sides[2], 2.5 + sides[3]]) * 16
    assert_close(found.boxes[1, 96 + 2 * 6 + 5], expected)
    assert_close(found.scores[1, 96 + 2 * 6 + 5], raw[1][1][1, :, 2, 5].sigmoid())


def test_every_parameter_has_a_gradient_without_and_with_boxes():
    for gt_instances in ([instances([], [])] * 2, [instances([], []), instances([8, 8, 40, 40], [1])]):
        head = make()
        losses = head.losses(head(features()), gt_instances, (64, 96))
        assert set(losses) == {"loss_box", "loss_cls", "loss_bins"}
        assert all(loss.dtype == torch.float32 and loss.shape == () for loss in losses.values())
        sum(losses.values()).backward()
        assert all(parameter.grad is not None for parameter in head.parameters())


def test_losses_count_each_image():
    """Twice the same images have twice the targets, so the means are the same, and they count for twice the images."""
    head, maps, gt = make(), features(1), instances([[8, 8, 40, 40], [30, 20, 90, 60]], [1, 0])
    once = head.losses(head(maps), [gt], (64, 96))
    twice = head.losses(head([level.repeat(2, 1, 1, 1) for level in maps]), [gt, gt], (64, 96))
    assert_close(twice, {name: loss * 2 for name, loss in once.items()})


def test_half_precision_gives_float32_predictions_and_losses():
    head = make()
    with torch.autocast("cpu", torch.bfloat16):
        raw = head(features())
        assert {tensor.dtype for pair in raw for tensor in pair} == {torch.bfloat16}
        gt_instances = [instances([8, 8, 40, 40], [1]), instances([], [])]
        losses, predictions = head.losses(raw, gt_instances, (64, 96)), head.decode(raw)
    full = [tuple(tensor.float() for tensor in pair) for pair in raw]
    assert_close(head.losses(full, gt_instances, (64, 96)), losses, rtol=0, atol=0)
    assert_close(head.decode(full), predictions, rtol=0, atol=0)
    assert predictions.boxes.dtype == predictions.scores.dtype == torch.float32


def test_class_rows_are_the_last_convolutions_of_the_classes():
    head = make(num_classes=3)
    rows = head.class_rows()
    assert set(rows) == {f"class_branches.{level}.2.{name}" for level in (0, 1) for name in ("weight", "bias")}
    for name, row in rows.items():
        assert row.count_classes(head.get_parameter(name)) == 3
        assert row.prior == (pytest.approx(head.get_parameter(name)[0].item()) if name.endswith("bias") else 0)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_crowded_batch_takes_less_than_a_gigabyte(dtype, peak_bytes):
    """16 images of 1280 x 1280 with 1,000 boxes each; shapes only, so it also shows that no value is read back."""
    with torch.device("meta"):
        head = make(num_classes=80, channels=(8, 8, 8, 8))
        raw = [
            tuple(torch.zeros(16, c, 1280 // s, 1280 // s, dtype=dtype, requires_grad=True) for c in (64, 80))
            for s in STRIDES
        ]
        gt = Instances((1280, 1280), gt_boxes=Boxes(torch.zeros(1000, 4)), gt_classes=torch.zeros(1000).long())
        peak = peak_bytes(lambda: sum(head.losses(raw, [gt] * 16, (1280, 1280)).values()).backward())
    # Gradients of the network's outputs, up to 313 MB, are counted as well.
    assert 0.3e9 < peak < 1e9
