import logging

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from parking.evaluation.prediction_collector import ImagePredictions, PredictionCollector, to_detections


def output(*boxes):
    """Boxes are (x1, y1, x2, y2, score, class)."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(table[:, :4])
    # As a model in mixed precision, and outside of no_grad, would give them.
    instances.scores = table[:, 4].half().requires_grad_()
    instances.pred_classes = table[:, 5].long()
    return {"instances": instances}


def predictions(boxes, scores, classes):
    return ImagePredictions(
        np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(classes, np.int64)
    )


def test_last_of_an_image_counts():
    collector = PredictionCollector()
    collector.reset()
    collector.process([{"image_id": 1}, {"image_id": "b"}], [output((0, 0, 1, 1, 0.5, 0)), output()])
    collector.process([{"image_id": 1}], [output((0, 0, 2, 2, 0.25, 3))])
    gathered = collector.gather()
    assert list(gathered) == [1, "b"] and gathered["b"].boxes.shape == (0, 4)
    assert gathered[1].boxes.tolist() == [[0, 0, 2, 2]] and gathered[1].classes.tolist() == [3]
    assert gathered[1].scores.dtype == np.float32 and gathered[1].scores.tolist() == [0.25]
    collector.reset()
    assert collector.gather() == {}


def test_inputs_and_outputs_must_match():
    with pytest.raises(ValueError):
        PredictionCollector().process([{"image_id": 1}], [])


def test_columns_follow_the_images():
    detections = to_detections(
        {
            8: predictions([[1, 2, 11, 22], [0, 0, 5, 5]], [0.5, 0.25], [1, 0]),
            3: predictions([], [], []),
            5: predictions([[10, 10, 12, 13]], [0.75], [0]),
        },
        [4, 7],
    )
    assert detections.image_ids.tolist() == [8, 8, 5] and detections.category_ids.tolist() == [7, 4, 4]
    # XYWH: 11 - 1, 22 - 2; 5 - 0, 5 - 0; 12 - 10, 13 - 10
    assert detections.boxes.tolist() == [[1, 2, 10, 20], [0, 0, 5, 5], [10, 10, 2, 3]]
    assert detections.scores.tolist() == [0.5, 0.25, 0.75]


@pytest.mark.parametrize("empty", [{}, {1: predictions([], [], [])}])
def test_no_boxes(empty):
    detections = to_detections(empty, [1])
    assert len(detections) == 0 and detections.boxes.shape == (0, 4)


def test_boxes_that_are_not_finite_are_dropped(caplog):
    boxes = predictions([[0, 0, np.inf, 1], [0, 0, 1, 1], [0, 0, 2, 2]], [0.5, np.nan, 0.25], [0, 0, 0])
    with caplog.at_level(logging.WARNING):
        detections = to_detections({1: boxes}, [1])
    assert detections.boxes.tolist() == [[0, 0, 2, 2]] and "2 of 3 boxes" in caplog.text


def test_classes_must_be_known():
    with pytest.raises(ValueError, match=r"class 2\b.* 2 classes"):
        to_detections({1: predictions([[0, 0, 1, 1]], [0.5], [2])}, [1, 2])
