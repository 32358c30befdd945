import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image

from parking.data.dataset_mapper import TestDatasetMapper, TrainDatasetMapper
from parking.data.transforms.warp import find_box_candidates

CLASS_COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
PLAIN = {"MOSAIC_PROB": 0.0, "TRANSLATE": 0.0, "SCALE": 0.0, "HSV_H": 0.0, "HSV_S": 0.0, "HSV_V": 0.0}


@pytest.fixture
def make_mapper(make_cfg):
    return lambda dicts, **kwargs: TrainDatasetMapper(make_cfg(**kwargs), dicts, seed=7)


def test_sample_without_augmentation(dicts, make_mapper):
    sample = make_mapper(dicts, **PLAIN, FLIP_LR_PROB=0.0)({**dicts[1], "position": 0})
    # 61 x 33 into 64 x 96: ratio 64 / 61, 33 * 64/61 = 34.6.
    assert sample["image"].shape == (3, 64, 96)
    assert sample["image"].dtype == torch.uint8
    assert sample["image"].is_contiguous()
    assert (sample["image"][:, :, 35:] == 114).all()
    assert (sample["height"], sample["width"], sample["image_id"]) == (61, 33, 11)
    x, y, w, h = dicts[1]["annotations"][0]["bbox"]
    expected = np.array([[x, y, x + w, y + h]]) * [35 / 33, 64 / 61, 35 / 33, 64 / 61]
    torch.testing.assert_close(sample["instances"].gt_boxes.tensor, torch.tensor(expected, dtype=torch.float32))
    assert sample["instances"].gt_classes.tolist() == [0]
    assert sample["instances"].image_size == (64, 96)


@pytest.mark.parametrize("aug", [{"MOSAIC_PROB": 0.0}, {"MIXUP_PROB": 1.0}, {"DEGREES": 20.0, "PERSPECTIVE": 0.001}])
def test_extremes_give_valid_samples(dicts, aug, make_mapper):
    mapper = make_mapper(dicts, SCALE=0.9, SHEAR=10.0, **aug)
    for position in range(20):
        sample = mapper({**dicts[position % 5], "position": position})
        boxes = sample["instances"].gt_boxes.tensor
        assert sample["image"].shape == (3, 64, 96)
        assert torch.isfinite(boxes).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) > 2).all()
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([96, 64, 96, 64])).all()
        assert len(boxes) == len(sample["instances"].gt_classes)


def find_objects(image, c):
    """Return the boxes of the connected areas of a class's colour, (N, 4)."""
    channels = image.numpy().astype(int)
    others = np.delete(channels, c, axis=0).max(axis=0)
    # The difference is 0 in the gray of background and padding, and 255 in the object.
    stats = cv2.connectedComponentsWithStats((channels[c] - others > 112).astype(np.uint8))[2][1:]
    return np.column_stack([stats[:, :2], stats[:, :2] + stats[:, 2:4]])


@pytest.mark.parametrize("aug", [{}, {"MOSAIC_PROB": 0.0}, {"FLIP_UD_PROB": 0.5, "HSV_V": 0.1}])
def test_every_box_frames_its_object_to_a_pixel(tmp_path, aug, make_mapper):
    dicts = []
    for c, (h, w, x, y, side) in enumerate([(60, 90, 9, 7, 31), (80, 50, 20, 40, 19), (64, 64, 5, 5, 40)]):
        image = np.full((h, w, 3), 30, np.uint8)
        image[y : y + side, x : x + side] = CLASS_COLORS[c]
        Image.fromarray(image).save(tmp_path / f"{c}.png")
        box = {"bbox": [x, y, side, side], "bbox_mode": BoxMode.XYWH_ABS, "category_id": c}
        record = {"file_name": str(tmp_path / f"{c}.png"), "image_id": c, "height": h, "width": w}
        dicts.append({**record, "annotations": [box]})
    mapper = make_mapper(dicts, **{"HSV_H": 0.0, "HSV_S": 0.0, "HSV_V": 0.0, **aug})
    num_boxes = 0
    for position in range(60):
        sample = mapper({**dicts[position % 3], "position": position})
        instances = sample["instances"]
        for box, c in zip(instances.gt_boxes.tensor.numpy(), instances.gt_classes.tolist(), strict=True):
            assert abs(find_objects(sample["image"], c) - box).max(axis=1).min() <= 1
            num_boxes += 1
    assert num_boxes >= 40


@pytest.mark.parametrize("aug", [{"MOSAIC_PROB": 0.0}, {}, {"MIXUP_PROB": 1.0}])
def test_a_sample_has_the_boxes_that_the_rule_keeps(dicts, monkeypatch, aug, make_mapper):
    calls = []

    def record(original, mapped, scale):
        keep = find_box_candidates(original, mapped, scale)
        calls.append((mapped[keep], (~keep).sum()))
        return keep

    monkeypatch.setattr("parking.data.dataset_mapper.find_box_candidates", record)
    mapper = make_mapper(dicts, SCALE=0.9, DEGREES=10.0, FLIP_LR_PROB=0.0, **aug)
    num_kept = num_dropped = 0
    for position in range(20):
        calls.clear()
        boxes = mapper({**dicts[position % 5], "position": position})["instances"].gt_boxes.tensor.numpy()
        np.testing.assert_allclose(boxes, np.concatenate([kept for kept, _ in calls]), rtol=1e-6)
        num_kept += len(boxes)
        num_dropped += sum(dropped for _, dropped in calls)
    assert len(calls) == 1 + ("MIXUP_PROB" in aug)
    assert num_kept > 0
    assert num_dropped > 0


@pytest.mark.parametrize("aug", [{"MOSAIC_PROB": 0.0}, {}, {"MIXUP_PROB": 1.0}])
def test_pictures_without_any_box_are_made_the_same(dicts, aug, make_mapper):
    empty = [{**d, "annotations": []} for d in dicts]
    with_boxes, without = make_mapper(dicts, **aug), make_mapper(empty, **aug)
    for position in range(6):
        sample = without({**empty[3], "position": position})
        boxes, classes = sample["instances"].gt_boxes.tensor, sample["instances"].gt_classes
        assert (boxes.shape, boxes.dtype, classes.shape, classes.dtype) == ((0, 4), torch.float32, (0,), torch.int64)
        expected = with_boxes({**dicts[3], "position": position})
        torch.testing.assert_close(sample["image"], expected["image"], rtol=0, atol=0)


def test_tiles_of_a_mosaic_touch_its_centre(tmp_path, make_mapper):
    # 20 x 40 fits into 40 x 40 without resizing, so that only its place may change.
    picture = np.full((20, 40, 3), 255, np.uint8)
    picture[0], picture[-1] = (0, 255, 0), (255, 0, 0)
    Image.fromarray(picture).save(tmp_path / "wide.png")
    dicts = [{"file_name": str(tmp_path / "wide.png"), "image_id": 1, "height": 20, "width": 40, "annotations": []}]
    mapper = make_mapper(dicts, size=(40, 40), **{**PLAIN, "MOSAIC_PROB": 1.0}, MIXUP_PROB=0.0, FLIP_LR_PROB=0.0)
    centres = []
    for position in range(12):
        column = mapper({**dicts[0], "position": position})["image"][:, :, 20].T
        # The lower pictures begin at the centre; the upper ones, 20 rows high, begin above it.
        centres.append(max(y for y in range(40) if column[y].tolist() == [0, 255, 0]))
        above = column[max(centres[-1] - 20, 0) : centres[-1]]
        assert not (above == 114).any()
        assert above[-1:].tolist() in ([], [[255, 0, 0]])
    assert max(centres) > 20


def test_crowds_are_not_trained_on_and_outside_is_cut_off(dicts, make_mapper):
    annotations = dicts[2]["annotations"]
    annotations[0]["iscrowd"] = 1
    annotations[1]["bbox"] = [10, -5, 100, 15]
    sample = make_mapper(dicts, size=(20, 20), **PLAIN, FLIP_LR_PROB=0.0)({**dicts[2], "position": 0})
    torch.testing.assert_close(sample["instances"].gt_boxes.tensor, torch.tensor([[10.0, 0.0, 20.0, 10.0]]))
    assert sample["instances"].gt_classes.tolist() == [1]


def test_samples_depend_on_seed_and_position_only(dicts, make_cfg, make_mapper, assert_same_samples):
    mapper = make_mapper(dicts)
    first = mapper({**dicts[3], "position": 12})
    np.random.seed(99)
    mapper({**dicts[1], "position": 3})
    assert_same_samples([mapper({**dicts[3], "position": 12})], [first])
    assert not torch.equal(mapper({**dicts[3], "position": 13})["image"], first["image"])
    other = TrainDatasetMapper(make_cfg(), dicts, seed=8)
    assert not torch.equal(other({**dicts[3], "position": 12})["image"], first["image"])


def test_training_input_is_not_changed(dicts, make_mapper):
    before = [dict(d, annotations=[dict(a, bbox=list(a["bbox"])) for a in d["annotations"]]) for d in dicts]
    mapper = make_mapper(dicts)
    for position in range(5):
        mapper({**dicts[position], "position": position})
    assert dicts == before


@pytest.mark.parametrize(("strong_off_iters", "num_strong"), [(0, 28), (1, 20), (6, 0)])
def test_number_of_samples_with_strong_augmentation(dicts, strong_off_iters, num_strong, make_mapper):
    mapper = make_mapper(dicts, max_iter=6, MIXUP_PROB=1.0, STRONG_OFF_ITERS=strong_off_iters)
    drawn = []
    mapper._draw_partner = lambda rng: drawn.append(1) or dicts[0]
    for position in range(28):
        mapper({**dicts[1], "position": position})
    # Three partners for the mosaic, and four for the mosaic that is mixed in.
    assert len(drawn) == 7 * num_strong


def test_a_size_that_is_not_the_jsons_is_an_error(dicts, make_cfg):
    error = TestDatasetMapper(make_cfg())({**dicts[3], "height": 50})["error"]
    assert "3.png' has 97 x 48" in error and "97 x 50" in error


def test_test_mapper(dicts, make_cfg):
    sample = TestDatasetMapper(make_cfg())(dicts[3])
    # 48 * 64/97 = 31.7.
    assert sample["image"].shape == (3, 32, 64)
    assert (sample["height"], sample["width"], sample["image_id"]) == (48, 97, 13)
    assert "annotations" not in sample
    without_size = {"file_name": dicts[3]["file_name"], "image_id": 1}
    assert TestDatasetMapper(make_cfg())(without_size)["width"] == 97
