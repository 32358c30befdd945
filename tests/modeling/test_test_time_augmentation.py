from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from parking.modeling import YOLOWithTTA


class StandIn(nn.Module):
    """Records the views it is shown and predicts one box per level: level + 1 everywhere."""

    backbone = SimpleNamespace(size_divisibility=32)

    def __init__(self):
        super().__init__()
        self.views = []

    def normalize(self, images):
        return images / 255

    def predict_levels(self, images):
        self.views.append(images)
        return [torch.full((len(images), 1, 6), float(level + 1)) for level in range(3)]


def test_views_are_resized_to_the_floor_and_padded_in_whole_strides():
    model = StandIn()
    images = torch.rand(2, 3, 64, 96)
    YOLOWithTTA(model).predict(images)
    # 0.83: 53.12 x 79.68, needs 2 and 3 strides. 0.67: 42.88 x 64.32, needs 2 and 3 (64.32 is more than 2).
    assert [tuple(view.shape) for view in model.views] == [(2, 3, 64, 96)] * 3
    assert_close(model.views[0], images, rtol=0, atol=0)
    for view, (height, width) in zip(model.views[1:], [(53, 79), (42, 64)], strict=True):
        gray = torch.full_like(view, 0.447)
        assert_close(view[..., height:, :], gray[..., height:, :])
        assert_close(view[..., width:], gray[..., width:])
        assert view[..., :height, :width].std() > 0.1


def test_a_mirrored_view_shows_the_mirror_image():
    model = StandIn()
    images = torch.rand(1, 3, 32, 64)
    YOLOWithTTA(model, scales=(1.0, 1.0), flips=(False, True)).predict(images)
    assert_close(model.views[1], images.flip(3), rtol=0, atol=0)


def test_join_by_hand():
    predictions = YOLOWithTTA(StandIn(), scales=(1.0, 0.5, 0.25), flips=(False, True, False)).predict(
        torch.zeros(1, 3, 32, 64)
    )
    # View 1 without its coarsest level; view 2 over 0.5 and mirrored in 64 pixels; view 3 over 0.25 without its finest.
    expected = torch.tensor(
        [
            [1.0, 1, 1, 1, 1, 1],
            [2.0, 2, 2, 2, 2, 2],
            [64 - 2, 2, 2, 2, 1, 1],
            [64 - 4, 4, 4, 4, 2, 2],
            [64 - 6, 6, 6, 6, 3, 3],
            [8, 8, 8, 8, 2, 2],
            [12, 12, 12, 12, 3, 3],
        ]
    )
    assert_close(predictions, expected[None])


@torch.no_grad()
def test_the_contract_is_the_models(pico, sample):
    inputs = [sample(64, 96) | {"height": 128, "width": 192}, sample(50, 70)]
    detector = YOLOWithTTA(pico).eval()
    together = detector(inputs)
    assert [output["instances"].image_size for output in together] == [(128, 192), (50, 70)]
    for output in together:
        instances = output["instances"]
        assert len(instances) > 0
        assert instances.pred_boxes.inside_box(instances.image_size, boundary_threshold=1e-3).all()
        assert (instances.scores.diff() <= 0).all()
    # Image by image, so that the other image of a batch makes no difference at all.
    alone = detector(inputs[1:])[0]["instances"]
    assert_close(alone.pred_boxes.tensor, together[1]["instances"].pred_boxes.tensor, rtol=0, atol=0)


@torch.no_grad()
def test_one_view_twice_is_that_view(pico):
    images = torch.rand(1, 3, 64, 64)
    levels = pico.predict_levels(images)
    joined = YOLOWithTTA(pico, scales=(1.0, 1.0), flips=(False, False)).predict(images)
    assert_close(joined, torch.cat([*levels[:-1], *levels[1:]], dim=1))


@pytest.mark.parametrize("views", [((1.0,), (False,)), ((1.0, 0.5), (False,))])
def test_views_must_be_two_or_more_with_a_flip_each(views):
    with pytest.raises(ValueError, match="two or more views"):
        YOLOWithTTA(StandIn(), scales=views[0], flips=views[1])
