import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators
from detectron2.structures import Boxes, BoxMode, Instances
from detectron2.utils import comm

from parking.evaluation.prediction_pictures import PredictionPictures, pop_pictures
from parking.visualization.colors import class_colors

CLASSES = ["cat", "dog"]
CAT, DOG = class_colors(CLASSES)
SIDE = 480


@pytest.fixture
def dataset():
    """20 images of 400 x 200 pixels, each with a cat at its left, a crowd of dogs at its right and its own gray."""
    name = "pictures_test"
    cat = {"bbox": [20, 40, 80, 120], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0, "iscrowd": 0}
    dogs = {"bbox": [200, 40, 180, 120], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 1, "iscrowd": 1}
    dicts = [
        {"file_name": f"/in/{i}.png", "image_id": f"id{i}", "height": 200, "width": 400, "annotations": [cat, dogs]}
        for i in range(20)
    ]
    DatasetCatalog.register(name, lambda: dicts)
    MetadataCatalog.get(name).set(thing_classes=CLASSES)
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


def gray_of(i):
    return 100 + 5 * i


def process(evaluator, indices, *boxes):
    """Boxes are (x1, y1, x2, y2, score, class), predicted in every image, which the model saw at half its size."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    for i in indices:
        instances = Instances((200, 400))
        instances.pred_boxes = Boxes(table[:, :4].clone())
        # Scores as a model gives them in mixed precision and outside of no_grad.
        instances.scores = table[:, 4].half().requires_grad_()
        instances.pred_classes = table[:, 5].long()
        image = torch.full((3, 100, 200), gray_of(i), dtype=torch.uint8)
        evaluator.process([{"image_id": f"id{i}", "image": image}], [{"instances": instances}])


def picture_of(evaluator):
    return pop_pictures(evaluator.evaluate())["val/predictions"]


def is_color(picture, color):
    return (picture == color).all(axis=2)


def grays_in(picture):
    return [i for i in range(20) if is_color(picture, [gray_of(i)] * 3).sum() > SIDE]


def test_predictions_stand_beside_the_annotations(dataset):
    evaluator = PredictionPictures(dataset, max_images=1)
    process(evaluator, [0], (200, 40, 300, 160, 0.75, 1), (20, 40, 100, 160, 0.125, 0))
    picture = picture_of(evaluator)
    # Two tiles of 480 with gaps of 480 / 60 = 8: 8 + 480 + 8 + 480 + 8.
    assert picture.dtype == np.uint8 and picture.shape[1] == 984
    left, right = picture[:, : 8 + SIDE], picture[:, 8 + SIDE + 8 :]
    # 480 / 400 = 1.2 from the original image: from 24 + 8 to 120 + 8.
    xs = np.nonzero(is_color(left, CAT))[1]
    assert (xs.min(), xs.max() + 1) == (32, 128)
    assert not is_color(left, DOG).any(), "crowds are not drawn"
    # From 1.2 * 200; the second tile starts where ``right`` does.
    xs = np.nonzero(is_color(right, DOG))[1]
    assert (xs.min(), xs.max() + 1) == (240, 360)
    assert not is_color(right, CAT).any(), "its score is too low"


def test_images_are_spread_over_the_data_set_in_its_order(dataset):
    evaluator = PredictionPictures(dataset, max_images=4)
    process(evaluator, reversed(range(20)))
    picture = picture_of(evaluator)
    assert grays_in(picture) == [0, 5, 10, 15]
    first, last = (np.argwhere(is_color(picture, [gray_of(i)] * 3)).mean(axis=0) for i in (0, 15))
    # Two images in a row: the first at the top left, the last at the bottom right.
    assert first[0] < last[0] and first[1] < last[1]


def test_the_main_process_shows_what_all_have_seen(dataset, monkeypatch):
    gathered = []
    for share in (range(0, 20, 2), range(1, 20, 2)):
        evaluator = PredictionPictures(dataset, max_images=4)
        process(evaluator, share)
        monkeypatch.setattr(comm, "gather", lambda tiles: gathered.append(tiles) or [])
        assert evaluator.evaluate() == {}, "as on another process"
    monkeypatch.setattr(comm, "gather", lambda _: gathered)
    assert grays_in(picture_of(evaluator)) == [0, 5, 10, 15]


def test_nothing_processed_and_started_anew(dataset):
    evaluator = PredictionPictures(dataset)
    assert evaluator.evaluate() == {}
    process(evaluator, range(20))
    evaluator.reset()
    assert evaluator.evaluate() == {}


def test_images_without_annotations_and_fewer_than_asked_for(dataset):
    for record in DatasetCatalog.get(dataset):
        del record["annotations"]
    evaluator = PredictionPictures(dataset, max_images=50)
    process(evaluator, range(20), (200, 40, 300, float("nan"), 0.75, 1))
    picture = picture_of(evaluator)
    assert len(grays_in(picture)) == 20
    assert not is_color(picture, DOG).any()


class Scores(DatasetEvaluator):
    def evaluate(self):
        return {"bbox": {"AP": 1.0}}


def test_pictures_are_taken_out_of_the_scores(dataset):
    def evaluate():
        evaluator = DatasetEvaluators([Scores(), PredictionPictures(dataset)])
        evaluator.reset()
        process(evaluator, range(2))
        return evaluator.evaluate()

    results = evaluate()
    assert pop_pictures(results).keys() == {"val/predictions"}
    assert results == {"bbox": {"AP": 1.0}} and pop_pictures(results) == {}
    results = {"a": evaluate(), "b": evaluate()}
    assert pop_pictures(results).keys() == {"val/predictions/a", "val/predictions/b"}
    assert results == {"a": {"bbox": {"AP": 1.0}}, "b": {"bbox": {"AP": 1.0}}}
