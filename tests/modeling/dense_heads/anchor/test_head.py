import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from parking.config import get_cfg
from parking.modeling.dense_heads.anchor import AnchorHead, RatioAssigner, YOLOLoss
from parking.utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[4] / "configs"
ANCHORS = [[[10, 13], [16, 30], [33, 23]], [[30, 61], [62, 45], [59, 119]]]


def make(num_classes=2, anchors=ANCHORS, strides=(8, 16), in_channels=(4, 6), **overrides):
    loss = YOLOLoss(num_classes=num_classes, box_gain=1, obj_gain=1, cls_gain=1, obj_level_weights=[1] * len(strides))
    parts = {"assigner": RatioAssigner(anchor_ratio=4.0), "loss": loss, "num_classes": num_classes}
    return AnchorHead(in_channels=in_channels, strides=strides, anchors=anchors, **parts, **overrides)


def test_channels_are_anchor_major():
    head = make()
    features = [torch.rand(2, 4, 6, 8), torch.rand(2, 6, 3, 4)]
    outputs = head(features)
    assert [output.shape for output in outputs] == [(2, 3, 6, 8, 7), (2, 3, 3, 4, 7)]
    raw = head.predictors[1](features[1])
    assert_close(outputs[1][1, 2, 0, 3], raw[1, 14:21, 0, 3])


def test_prior_is_added_to_the_biases(monkeypatch):
    with_prior = []
    for add in (True, False):
        with monkeypatch.context() as patch:
            if not add:
                patch.setattr(AnchorHead, "_add_prior", lambda *_: None)
            torch.manual_seed(0)
            with_prior.append([p.bias.detach().view(3, 7) for p in make().predictors])
    for level, stride in enumerate((8, 16)):
        added = with_prior[0][level] - with_prior[1][level]
        assert_close(added[:, :4], torch.zeros(3, 4))
        # 8 objects in 80 x 80 or 40 x 40 cells; 0.6 / (2 - 0.99999).
        assert_close(added[:, 4], torch.full((3,), math.log(8 / (640 / stride) ** 2)))
        assert_close(added[:, 5:], torch.full((3, 2), math.log(0.6 / 1.00001)))


def test_prior_of_one_class_is_finite():
    assert all(predictor.bias.isfinite().all() for predictor in make(num_classes=1).predictors)


def test_wrong_number_of_features_raises():
    with pytest.raises(ValueError, match="zip"):
        make()([torch.rand(1, 4, 2, 2)])


@torch.no_grad()
def test_decoded_by_level_anchor_row_column():
    head = make()
    raw = head([torch.rand(2, 4, 4, 6), torch.rand(2, 6, 2, 3)])
    found = head.decode(raw)
    assert found.level_sizes == (3 * 4 * 6, 3 * 2 * 3)
    assert found.boxes.shape == (2, 90, 4) and found.scores.shape == (2, 90, 2) and found.upper_bound.shape == (2, 90)
    # Level 1 (stride 16), anchor 1 (62 x 45), row 1, column 2, of 2 x 3 cells.
    x, y, w, h, obj, *classes = raw[1][1, 1, 1, 2].sigmoid()
    center, sides = torch.stack([(2 * x + 1.5) * 16, (2 * y + 0.5) * 16]), torch.stack([4 * w**2 * 62, 4 * h**2 * 45])
    row = 72 + 1 * 6 + 1 * 3 + 2
    assert_close(found.boxes[1, row], torch.cat([center - sides / 2, center + sides / 2]))
    assert_close(found.scores[1, row], obj * torch.stack(classes))
    assert_close(found.upper_bound[1, row], obj)
    assert (found.scores <= found.upper_bound[..., None]).all()


def test_decode_equals_the_published_numbers(parity_data, monkeypatch):
    # As cx, cy, w, h: corners are sums, whose error in proportion to them has no bound.
    monkeypatch.setattr("parking.modeling.dense_heads.anchor.head.box_convert", lambda boxes, *_: boxes)
    data = {key: torch.from_numpy(value) for key, value in np.load(parity_data / "decoding.npz").items()}
    cfg = get_cfg()
    cfg.merge_from_file(str(CONFIGS / "Base-YOLO-P6.yaml"))
    strides = [8, 16, 32, 64]
    head = make(14, cfg.MODEL.ANCHOR_HEAD.ANCHORS, strides, in_channels=[4] * 4)
    found = head.decode([data[f"raw_p{level}"] for level in (3, 4, 5, 6)])
    decoded = data["decoded"]
    assert_close(found.boxes, decoded[..., :4], rtol=1e-6, atol=1e-5)
    assert_close(found.upper_bound, decoded[..., 4], rtol=1e-6, atol=0)
    assert_close(found.scores, decoded[..., 4:5] * decoded[..., 5:], rtol=1e-6, atol=0)


def test_anchors_are_part_of_the_state():
    head = make()
    assert {"anchors", "predictors.0.weight", "predictors.1.bias"} < set(head.state_dict())
    assert_close(head.anchors[1, 0], torch.tensor([30.0, 61]))


@pytest.mark.parametrize(
    "anchors",
    [
        [ANCHORS[0]],
        [[[10, 13]], [[30, 61], [62, 45]]],
        [[[10, 13, 1]], [[30, 61, 1]]],
        [[10, 13], [30, 61]],
        [[[10, -13]], [[30, 61]]],
        [[["a", "b"]], [[30, 61]]],
    ],
)
def test_odd_anchors_are_the_users_mistake(anchors):
    with pytest.raises(UserError, match=r"MODEL\.ANCHOR_HEAD\.ANCHORS"):
        make(anchors=anchors)


def test_class_rows_are_behind_five_others_of_each_anchor():
    rows = make().class_rows()
    assert set(rows) == {f"predictors.{level}.{name}" for level in (0, 1) for name in ("weight", "bias")}
    assert all((of.groups, of.before) == (3, 5) for of in rows.values())
    assert rows["predictors.1.weight"].prior == 0
    assert rows["predictors.1.bias"].prior == pytest.approx(math.log(0.6 / 1.00001))


def test_anchors_of_weights():
    state = {"anchors": torch.full((2, 3, 2), 7.0)}
    assert make().adapt_weights(state) == [] and state["anchors"].eq(7).all()
    head = make(anchors_from_weights=False)
    assert head.adapt_weights(state) == ["the anchors are the config's"]
    assert torch.equal(state["anchors"], head.anchors)
    for size in (0.0, -8.0):
        with pytest.raises(ValueError, match=r"head\.anchors"):
            make().adapt_weights({"anchors": torch.tensor([[[10.0, size]]])})
