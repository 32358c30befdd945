import math

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch.testing import assert_close
from torchvision.ops import box_iou

from parking.config import get_cfg
from parking.modeling import YOLO
from parking.modeling.dense_heads.yolox import YOLOXHead

ASSIGNERS = ["SimOTA", "TaskAligned"]


def make(num_classes=2, in_channels=(8, 16), strides=(8, 16), assigner="SimOTA", depthwise=False):
    cfg = get_cfg()
    cfg.MODEL.YOLO.NUM_CLASSES, cfg.MODEL.YOLO.DEPTHWISE = num_classes, depthwise
    cfg.MODEL.YOLOX_HEAD.ASSIGNER = assigner
    torch.manual_seed(0)
    return YOLOXHead(cfg, [ShapeSpec(channels=c, stride=s) for c, s in zip(in_channels, strides, strict=True)])


_GENERATOR = torch.Generator().manual_seed(1)
FEATURES = [torch.rand(2, *shape, generator=_GENERATOR) for shape in ((8, 4, 6), (16, 2, 3))]


def make_instances(*images):
    """Of each image, rows of XYXY and a class."""
    rows = [torch.tensor(image, dtype=torch.float32).reshape(-1, 5) for image in images]
    return [Instances((32, 48), gt_boxes=Boxes(row[:, :4]), gt_classes=row[:, 4].long()) for row in rows]


def test_every_level_has_the_width_of_the_finest():
    head = make()
    outputs = head(FEATURES)
    assert [[tuple(part.shape) for part in level] for level in outputs] == [
        [(2, 4, 4, 6), (2, 1, 4, 6), (2, 2, 4, 6)],
        [(2, 4, 2, 3), (2, 1, 2, 3), (2, 2, 2, 3)],
    ]
    assert {predictor.in_channels for predictor in head.class_predictors} == {8}
    with pytest.raises(ValueError, match="zip"):
        head(FEATURES[:1])


def test_new_heads_expect_little():
    head = make()
    for predictor in (*head.class_predictors, *head.objectness_predictors):
        assert_close(predictor.bias.sigmoid(), torch.full_like(predictor.bias, 0.01))
    assert {rows.prior for rows in head.class_rows().values()} == {0.0, -math.log(99)}
    for name, rows in head.class_rows().items():
        assert rows.count_classes(head.get_parameter(name)) == 2


@torch.no_grad()
def test_decoded_by_level_row_column():
    head = make().eval()
    raw = head(FEATURES)
    found = head.decode(raw)
    assert found.level_sizes == (24, 6)
    # Level 1 (stride 16), row 1, column 2 of 2 x 3 cells.
    (x, y, w, h), objectness, classes = (part[1, :, 1, 2] for part in raw[1])
    center, sides = torch.stack([(x + 2) * 16, (y + 1) * 16]), torch.stack([w.exp() * 16, h.exp() * 16])
    row = 24 + 1 * 3 + 2
    assert_close(found.boxes[1, row], torch.cat([center - sides / 2, center + sides / 2]))
    assert_close(found.scores[1, row], objectness.sigmoid() * classes.sigmoid())
    assert_close(found.upper_bound[1, row], objectness.sigmoid()[0])
    assert (found.scores <= found.upper_bound[..., None]).all()
    half = head.decode([tuple(part.bfloat16() for part in level) for level in raw])
    assert {half.boxes.dtype, half.scores.dtype, half.upper_bound.dtype} == {torch.float32}


@pytest.mark.parametrize("images", [([], []), ([[4, 4, 20, 30, 1]], []), ([[0, 0, 48, 32, 0], [8, 8, 9, 9, 1]],) * 2])
@pytest.mark.parametrize("l1_begins", [None, 3, 4])
@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_every_parameter_gets_a_gradient(images, l1_begins, assigner):
    head = make(depthwise=True, assigner=assigner)
    head.strong_augmentation_ends(l1_begins)
    with EventStorage(3):
        losses = head.losses(head(FEATURES), make_instances(*images), (32, 48))
    assert sorted(losses) == ["loss_box", "loss_cls", *(["loss_l1"] if l1_begins == 3 else []), "loss_obj"]
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    if not any(images):
        assert [name for name, loss in losses.items() if loss] == ["loss_obj"]


def test_a_gain_of_0_leaves_l1_out():
    head = make()
    head.loss.l1_gain = 0
    head.strong_augmentation_ends(0)
    with EventStorage(0):
        assert "loss_l1" not in head.losses(head(FEATURES), make_instances([], []), (32, 48))


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_boxes_are_computed_in_float32_under_mixed_precision(assigner):
    head = make(assigner=assigner)
    instances = make_instances([[4, 4, 20, 30, 1]], [[10, 3, 40, 30, 0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        raw = head(FEATURES)
        losses = head.losses(raw, instances, (32, 48))
    assert {part.dtype for level in raw for part in level} == {torch.bfloat16}
    # The same as in float32 from the same outputs: nothing in between has fewer digits.
    expected = head.losses([tuple(part.float() for part in level) for level in raw], instances, (32, 48))
    assert_close(losses, expected, rtol=1e-6, atol=0)
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize("value", [1e3, -1e3, math.inf, math.nan])
@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_outputs_of_any_value_end_in_no_crash(value, assigner):
    """The trainer leaves a step out whose losses or gradients are not finite."""
    head = make(assigner=assigner)
    raw = [tuple(torch.full_like(part, value) for part in level) for level in head(FEATURES)]
    losses = head.losses(raw, make_instances([[4, 4, 20, 30, 1]], []), (32, 48))
    assert losses["loss_obj"].isfinite() == math.isfinite(value)


@pytest.mark.parametrize("assigner", ASSIGNERS)
def test_it_learns_the_boxes_of_two_images(assigner):
    head = make(assigner=assigner)
    head.strong_augmentation_ends(90)
    instances = make_instances([[2, 3, 14, 21, 1]], [[10, 4, 40, 28, 0], [30, 2, 44, 12, 1]])
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.03)
    with EventStorage() as storage:
        for storage.iter in range(120):
            optimizer.zero_grad()
            sum(head.losses(head(FEATURES), instances, (32, 48)).values()).backward()
            optimizer.step()
    with torch.no_grad():
        found = head.decode(head(FEATURES))
    for i, image in enumerate(instances):
        for box, label in zip(image.gt_boxes.tensor, image.gt_classes, strict=True):
            best = found.scores[i, :, label] * box_iou(found.boxes[i], box[None])[:, 0]
            assert best.max() > 0.5


@pytest.mark.long
@pytest.mark.parametrize(
    ("assigner", "dtype"), [("SimOTA", torch.float32), ("SimOTA", torch.float16), ("TaskAligned", torch.float32)]
)
def test_a_crowded_batch_takes_less_than_a_gigabyte(dtype, assigner, peak_bytes):
    """16 images of 1280 x 1280 with 1,000 boxes each; shapes only, so it also shows that no value is read back."""
    with torch.device("meta"):
        head = make(num_classes=80, in_channels=(8, 8, 8), strides=(8, 16, 32), assigner=assigner)
        sides = [1280 // stride for stride in head.strides]
        raw = [
            tuple(torch.zeros(16, c, side, side, dtype=dtype, requires_grad=True) for c in (4, 1, 80)) for side in sides
        ]
        gt = Instances((1280, 1280), gt_boxes=Boxes(torch.zeros(1000, 4)), gt_classes=torch.zeros(1000).long())
        head.strong_augmentation_ends(0)
        with EventStorage():
            peak = peak_bytes(lambda: sum(head.losses(raw, [gt] * 16, (1280, 1280)).values()).backward())
    # Gradients of the network's outputs, up to 183 MB, are counted as well.
    assert 0.1e9 < peak < 1e9


@pytest.mark.parametrize("backbone", ["build_csp_darknet_pafpn_backbone", "build_resnet_fpn_backbone"])
def test_it_fits_every_backbone(backbone):
    cfg = get_cfg()
    opts = ["MODEL.BACKBONE.NAME", backbone, "MODEL.HEAD.NAME", "YOLOXHead", "MODEL.DEVICE", "cpu"]
    cfg.merge_from_list(opts)
    with torch.device("meta"):
        head = YOLO(cfg).head
    assert head.strides == [8, 16, 32]
