import math

import pytest
import torch
from torch.testing import assert_close

from parking.modeling import YOLOHead


def make(num_classes=2):
    return YOLOHead(in_channels=[4, 6], strides=[8, 16], num_anchors=3, num_classes=num_classes)


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
                patch.setattr(YOLOHead, "_add_prior", lambda *_: None)
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
