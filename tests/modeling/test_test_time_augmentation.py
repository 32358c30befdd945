import pytest
import torch
from torch import nn
from torch.testing import assert_close

from parking.inference.build import wrap_for_inference
from parking.modeling import DensePredictions, DetectionFusion, YOLOWithTTA


class StandIn(nn.Module):
    """Records the views it is shown and predicts one box per level k = 1, 2, 3: [k, k, 3k, 2k] with the score k."""

    size_divisibility = 32

    def __init__(self):
        super().__init__()
        self.views = []

    def normalize(self, images):
        return images / 255

    def predict(self, images):
        self.views.append(images)
        scores = torch.tensor([1.0, 2, 3]).view(1, 3, 1).repeat(len(images), 1, 1)
        return DensePredictions(scores * torch.tensor([1.0, 1, 3, 2]), scores, (1, 1, 1), upper_bound=scores[..., 0])


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
            [1.0, 1, 3, 2],
            [2.0, 2, 6, 4],
            [64 - 6, 2, 64 - 2, 4],
            [64 - 12, 4, 64 - 4, 8],
            [64 - 18, 6, 64 - 6, 12],
            [8, 8, 24, 16],
            [12, 12, 36, 24],
        ]
    )
    assert_close(predictions.boxes, expected[None])
    assert predictions.scores.flatten().tolist() == [1, 2, 1, 2, 3, 2, 3]
    assert predictions.upper_bound.flatten().tolist() == [1, 2, 1, 2, 3, 2, 3]
    assert predictions.level_sizes == (1,) * 7


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


@pytest.fixture(params=[None, "nms", "soft_nms", "wbf"])
def fusion(request):
    if request.param is None:
        return None
    return DetectionFusion(name=request.param, iou_thresh=0.6, sigma=0.5, score_thresh=0.0, max_detections=100)


@torch.no_grad()
def test_a_batch_equals_one_by_one(pico, sample, fusion):
    # Padded to 64 x 96, 96 x 64, 64 x 96 and 64 x 64: were all padded to 96 x 96, they would differ.
    inputs = [sample(64, 96), sample(90, 60), sample(50, 70) | {"height": 100, "width": 140}, sample(40, 64)]
    detector = YOLOWithTTA(pico, fusion=fusion).eval()
    together = detector(inputs)
    assert [output["instances"].image_size for output in together] == [(64, 96), (90, 60), (100, 140), (40, 64)]
    for one, output in zip(inputs, together, strict=True):
        expected, found = detector([one])[0]["instances"], output["instances"]
        assert len(expected) > 0
        # Not bit for bit: convolutions of two images at once may add up in another order.
        assert_close(found.scores, expected.scores, rtol=1e-5, atol=1e-6)
        assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, rtol=1e-5, atol=1e-3)
        assert found.pred_classes.tolist() == expected.pred_classes.tolist()


def test_images_of_one_padded_shape_share_a_batch(pico, sample, monkeypatch):
    shapes = []
    real = pico.predict

    def record(images):
        shapes.append(tuple(images.shape))
        return real(images)

    monkeypatch.setattr(pico, "predict", record)
    with torch.no_grad():
        YOLOWithTTA(pico)([sample(64, 96), sample(96, 64), sample(33, 90)])
    assert shapes[::3] == [(2, 3, 64, 96), (1, 3, 96, 64)]
    assert len(shapes) == 6


@torch.no_grad()
def test_no_images(pico):
    assert YOLOWithTTA(pico)([]) == []


@torch.no_grad()
def test_fused_views_are_whole_and_each_has_its_own_suppression(pico, sample):
    opinions = []

    def record(views):
        opinions.extend(views)
        return [instances[:0] for instances in views[0]]

    inputs = [sample(64, 96), sample(60, 70)]
    images = pico.preprocess_image(inputs)
    YOLOWithTTA(pico, scales=(1.0, 1.0), flips=(False, True), fusion=record)(inputs)
    expected = pico.postprocessor(pico.predict(images.tensor), images.image_sizes)
    mirrored = pico.predict(images.tensor.flip(-1))
    mirrored = mirrored._replace(boxes=mirrored.boxes[..., [2, 1, 0, 3]])
    mirrored.boxes[..., [0, 2]] = 96 - mirrored.boxes[..., [0, 2]]
    expected += pico.postprocessor(mirrored, images.image_sizes)
    found = [instances for view in opinions for instances in view]
    assert len(found) == len(expected) == 4
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.image_size == theirs.image_size
        assert_close(ours.pred_boxes.tensor, theirs.pred_boxes.tensor)
        assert_close(ours.scores, theirs.scores)


@torch.no_grad()
def test_views_that_agree_fuse_to_themselves(pico, sample):
    # Thrice the same view: wbf averages equal boxes, of which all three views are sure.
    pico.postprocessor.nms_thresh = 0.3
    fusion = DetectionFusion(name="wbf", iou_thresh=0.9, sigma=0.5, score_thresh=0.0, max_detections=100)
    inputs = [sample(64, 96)]
    fused = YOLOWithTTA(pico, scales=(1.0,) * 3, flips=(False,) * 3, fusion=fusion)(inputs)[0]["instances"]
    plain = pico(inputs)[0]["instances"]
    assert len(plain) > 0
    assert_close(fused.pred_boxes.tensor, plain.pred_boxes.tensor)
    assert_close(fused.scores, plain.scores)
    assert fused.pred_classes.tolist() == plain.pred_classes.tolist()


@pytest.mark.parametrize(("name", "expected"), [("nms", None), ("soft_nms", "soft_nms"), ("wbf", "wbf")])
def test_the_config_says_how_views_are_fused(pico_cfg, pico, name, expected):
    pico_cfg.TEST.AUG.ENABLED = True
    pico_cfg.TEST.FUSION.NAME = name
    fusion = wrap_for_inference(pico_cfg, pico).fusion
    assert fusion is None if expected is None else fusion.name == expected


@torch.no_grad()
def test_one_view_twice_is_that_view(pico):
    images = torch.rand(1, 3, 64, 64)
    view = pico.predict(images)
    joined = YOLOWithTTA(pico, scales=(1.0, 1.0), flips=(False, False)).predict(images)
    finest, coarsest = view.level_sizes[0], view.level_sizes[-1]
    assert_close(joined.boxes, torch.cat([view.boxes[:, :-coarsest], view.boxes[:, finest:]], dim=1))
    assert_close(joined.scores, torch.cat([view.scores[:, :-coarsest], view.scores[:, finest:]], dim=1))


@pytest.mark.parametrize("views", [((1.0,), (False,)), ((1.0, 0.5), (False,))])
def test_views_must_be_two_or_more_with_a_flip_each(views):
    with pytest.raises(ValueError, match="two or more views"):
        YOLOWithTTA(StandIn(), scales=views[0], flips=views[1])
