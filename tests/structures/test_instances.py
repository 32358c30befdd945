import logging
import math

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from parking.structures.detections import Detections
from parking.structures.instances import drop_not_finite, to_detections


def make_instances(*boxes):
    """Boxes are (x1, y1, x2, y2, score, class)."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    instances = Instances((100, 100))
    instances.pred_boxes = Boxes(table[:, :4])
    # A model in mixed precision gives such scores, with gradients unless in no_grad.
    instances.scores = table[:, 4].half().requires_grad_()
    instances.pred_classes = table[:, 5].long()
    return instances


@pytest.mark.parametrize("image_id", [8, 2**64, "b"])
def test_columns(image_id):
    instances = make_instances((1, 2, 11, 22, 0.5, 1), (10.12345, 10, 12, 13, 0.75, 2), (0, 0, 5, 5, 0.25, 0))
    detections = to_detections(image_id, instances, [4, 7, None])
    assert detections.image_ids.tolist() == [image_id] * 2 and detections.category_ids.tolist() == [7, 4]
    # XYWH: 11 - 1, 22 - 2; 5 - 0, 5 - 0
    assert detections.boxes.tolist() == [[1, 2, 10, 20], [0, 0, 5, 5]] and detections.scores.tolist() == [0.5, 0.25]
    rounded = to_detections(image_id, instances, [4, 7, 9])
    assert rounded.boxes.tolist()[1] == [10.123, 10, 1.877, 3], "12 - 10.12345 is 1.87655"


def test_no_boxes():
    for category_ids in ([], [1], [None]):
        detections = to_detections(1, make_instances(), category_ids)
        assert len(detections) == 0 and detections.boxes.shape == (0, 4)


def test_classes_must_be_known():
    with pytest.raises(ValueError, match=r"class 2\b.* 2 classes"):
        to_detections(1, make_instances((0, 0, 1, 1, 0.5, 2)), [1, 2])


def test_boxes_that_are_not_finite_are_dropped(caplog):
    boxes = [[0, 0, math.inf, 1], [0, 0, 1, 1], [0, 0, 2, 2]]
    with caplog.at_level(logging.WARNING):
        kept = drop_not_finite(Detections.from_columns([1, 1, 1], [0, 0, 0], boxes, np.array([0.5, math.nan, 0.25])))
    assert kept.boxes.tolist() == [[0, 0, 2, 2]] and "2 of 3 boxes" in caplog.text
