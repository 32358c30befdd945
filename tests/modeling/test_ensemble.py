import pytest
import torch
from detectron2.structures import Boxes, Instances
from torch.testing import assert_close

from parking.modeling import DetectionFusion


def make(name, **overrides):
    arguments = {"iou_thresh": 0.6, "sigma": 0.5, "score_thresh": 0.01, "max_detections": 100}
    return DetectionFusion(name=name, **(arguments | overrides))


def found(*rows, image_size=(20, 200)):
    """10 x 10 boxes: (left, score, class)."""
    rows = torch.tensor(rows, dtype=torch.float32).reshape(-1, 3)
    boxes = torch.stack([rows[:, 0], torch.zeros(len(rows)), rows[:, 0] + 10, torch.full((len(rows),), 10.0)], dim=1)
    return Instances(image_size, pred_boxes=Boxes(boxes), scores=rows[:, 1], pred_classes=rows[:, 2].long())


def assert_found(instances, *rows):
    expected = found(*rows, image_size=instances.image_size)
    assert_close(instances.pred_boxes.tensor, expected.pred_boxes.tensor)
    assert_close(instances.scores, expected.scores)
    assert_close(instances.pred_classes, expected.pred_classes)


every_name = pytest.mark.parametrize("name", ["nms", "soft_nms", "wbf"])


def test_two_opinions_by_hand():
    opinions = [[found((0, 0.8, 1), (100, 0.5, 1))], [found((2, 0.4, 1), (0, 0.3, 0))]]
    # 2 apart: IoU 8 / 12.
    (nms,) = make("nms")(opinions)
    assert_found(nms, (0, 0.8, 1), (100, 0.5, 1), (0, 0.3, 0))
    # 0.4 * exp(-(2/3)^2 / 0.5) = 0.4 * 0.411112
    (soft,) = make("soft_nms")(opinions)
    assert_found(soft, (0, 0.8, 1), (100, 0.5, 1), (0, 0.3, 0), (2, 0.164445, 1))
    # (0 * 0.8 + 2 * 0.4) / 1.2 and (0.8 + 0.4) / 2; what one of two sources has counts half.
    (mean,) = make("wbf")(opinions)
    assert_found(mean, (2 / 3, 0.6, 1), (100, 0.25, 1), (0, 0.15, 0))


def test_the_numbers_that_decide():
    opinions = [[found((0, 0.8, 0))], [found((2, 0.4, 0))]]
    assert len(make("nms", iou_thresh=0.7)(opinions)[0]) == 2
    assert len(make("wbf", iou_thresh=0.7)(opinions)[0]) == 2
    # 0.4 * exp(-(4/9) / 0.1) = 0.0047
    assert len(make("soft_nms", sigma=0.1)(opinions)[0]) == 1
    assert len(make("soft_nms", sigma=0.1, score_thresh=0.004)(opinions)[0]) == 2


@every_name
def test_images_and_classes_do_not_mix(name):
    first, second, third = found((0, 0.9, 0), (0, 0.8, 1)), found((0, 0.7, 0)), found(image_size=(30, 40))
    other = [found(), found((0, 0.6, 1)), found(image_size=(30, 40))]
    results = make(name)([[first, second, third], other])
    assert [result.pred_classes.tolist() for result in results] == [[0, 1], [0, 1], []]
    assert [result.image_size for result in results] == [(20, 200), (20, 200), (30, 40)]
    assert results[2].pred_boxes.tensor.shape == (0, 4)
    for result, *images in zip(results, [first, second, third], other, strict=True):
        (alone,) = make(name)([[image] for image in images])
        assert_close(result.pred_boxes.tensor, alone.pred_boxes.tensor, rtol=0, atol=0)
        assert_close(result.scores, alone.scores, rtol=0, atol=0)


@every_name
def test_one_source(name):
    (result,) = make(name)([[found((50, 0.3, 0), (0, 0.9, 2), (90, 0.5, 0))]])
    assert_found(result, (0, 0.9, 2), (90, 0.5, 0), (50, 0.3, 0))


@every_name
def test_only_the_best_of_an_image(name):
    opinions = [[found((0, 0.2, 0), (40, 0.6, 1)), found((0, 0.1, 0))], [found((80, 0.4, 0)), found()]]
    first, second = make(name, max_detections=2)(opinions)
    assert first.pred_boxes.tensor[:, 0].tolist() == [40, 80]
    assert len(second) == 1


@every_name
def test_of_equal_scores_the_first_source_comes_first(name):
    (result,) = make(name)([[found((40, 0.5, 1))], [found((0, 0.5, 1), (80, 0.5, 1))]])
    assert result.pred_boxes.tensor[:, 0].tolist() == [40, 0, 80]


@every_name
def test_nothing_anywhere(name):
    results = make(name)([[found(), found()], [found(), found()]])
    assert [len(result) for result in results] == [0, 0]
    for result in results:
        assert result.scores.dtype == torch.float32
        assert result.pred_classes.dtype == torch.int64
    assert make(name)([[], []]) == []


@every_name
def test_opinions_are_not_changed(name):
    opinions = [[found((0, 0.4, 0), (2, 0.8, 0))], [found((1, 0.6, 0))]]
    make(name)(opinions)
    assert_found(opinions[0][0], (0, 0.4, 0), (2, 0.8, 0))
    assert_found(opinions[1][0], (1, 0.6, 0))


def test_sources_must_be_of_the_same_images():
    with pytest.raises(ValueError, match="one frame"):
        make("nms")([[found()], [found(image_size=(5, 5))]])
    with pytest.raises(ValueError, match="shorter"):
        make("nms")([[found(), found()], [found()]])


def test_from_the_config(pico_cfg):
    pico_cfg.TEST.FUSION.NAME = "wbf"
    pico_cfg.TEST.FUSION.IOU_THRESH = 0.7
    pico_cfg.TEST.FUSION.SOFT_NMS_SIGMA = 0.3
    pico_cfg.TEST.DETECTIONS_PER_IMAGE = 7
    pico_cfg.MODEL.YOLO.SCORE_THRESH_TEST = 0.02
    fusion = DetectionFusion(pico_cfg)
    assert (fusion.name, fusion.iou_thresh, fusion.sigma) == ("wbf", 0.7, 0.3)
    assert (fusion.score_thresh, fusion.max_detections) == (0.02, 7)
