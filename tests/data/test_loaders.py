"""The mappers and the loaders around them."""

import itertools

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm
from PIL import Image

from parking.config import get_cfg
from parking.data.build import build_inference_loader, build_test_loader, build_train_loader, load_train_dicts
from parking.data.common import PositionedDataset
from parking.data.dataset_mapper import TestDatasetMapper, TrainDatasetMapper
from parking.data.image_io import UnreadableImageError
from parking.utils.errors import UserError

SIZES = [(40, 60), (61, 33), (20, 20), (48, 97), (30, 31)]
CLASS_COLORS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
PLAIN = {"MOSAIC_PROB": 0.0, "TRANSLATE": 0.0, "SCALE": 0.0, "HSV_H": 0.0, "HSV_S": 0.0, "HSV_V": 0.0}


@pytest.fixture
def dicts(tmp_path):
    """Five images with i boxes on the i-th, each filled with its class's colour; the first one has none."""
    rng = np.random.default_rng(0)
    result = []
    for i, (h, w) in enumerate(SIZES):
        image = np.full((h, w, 3), 30, np.uint8)
        annotations = []
        for k in range(i):
            x, y = 1 + k * w // i, int(rng.integers(1, h - 11))
            bw, bh = w // i - 2, 10
            image[y : y + bh, x : x + bw] = CLASS_COLORS[k % 3]
            annotations.append(
                {"bbox": [x, y, bw, bh], "bbox_mode": BoxMode.XYWH_ABS, "category_id": k % 3, "iscrowd": 0}
            )
        path = tmp_path / f"{i}.png"
        Image.fromarray(image).save(path)
        result.append({"file_name": str(path), "image_id": 10 + i, "height": h, "width": w, "annotations": annotations})
    return result


def make_cfg(num_workers=0, batch_size=4, size=(64, 96), **aug):
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = list(size)
    cfg.INPUT.SIZE_TEST = 64
    cfg.DATALOADER.NUM_WORKERS = num_workers
    cfg.SOLVER.IMS_PER_BATCH = batch_size
    for key, value in aug.items():
        cfg.INPUT.AUG[key] = value
    return cfg


def take(loader, n):
    return list(itertools.islice(loader, n))


def catch_error(loader):
    try:
        take(loader, 1)
    except Exception as e:
        # torch's traceback keeps the iterator in a cycle; collected as one, it waits 5 s for each of its workers.
        return e.with_traceback(None)
    return None


def flatten(sample):
    instances = sample["instances"]
    return sample["position"], sample["file_name"], sample["image"], instances.gt_boxes.tensor, instances.gt_classes


def assert_same_samples(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        for x, y in zip(flatten(a), flatten(b), strict=True):
            if isinstance(x, torch.Tensor):
                torch.testing.assert_close(x, y, rtol=0, atol=0)
            else:
                assert x == y


def make_mapper(dicts, **kwargs):
    return TrainDatasetMapper(make_cfg(**kwargs), dicts, seed=7)


def test_sample_without_augmentation(dicts):
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


@pytest.mark.parametrize("flips", [{}, {"FLIP_LR_PROB": 1.0, "FLIP_UD_PROB": 1.0}])
@pytest.mark.parametrize("mosaic_prob", [0.0, 1.0])
def test_boxes_lie_on_pixels_of_their_class(dicts, mosaic_prob, flips):
    mapper = make_mapper(dicts, MOSAIC_PROB=mosaic_prob, HSV_H=0.0, HSV_S=0.0, HSV_V=0.0, **flips)
    num_boxes = 0
    for position in range(40):
        sample = mapper({**dicts[position % 5], "position": position})
        instances = sample["instances"]
        for box, c in zip(instances.gt_boxes.tensor.tolist(), instances.gt_classes.tolist(), strict=True):
            assert 0 <= box[0] < box[2] <= 96
            assert 0 <= box[1] < box[3] <= 64
            # The inner pixels, a pixel from the border where colours mix, are of the class's colour.
            x0, y0, x1, y1 = int(np.ceil(box[0])) + 1, int(np.ceil(box[1])) + 1, int(box[2]) - 1, int(box[3]) - 1
            inner = sample["image"][:, y0:y1, x0:x1].float()
            if inner.numel():
                assert inner.mean(dim=(1, 2)).argmax() == c
                assert inner[c].min() > 200
                num_boxes += 1
    assert num_boxes > 30


@pytest.mark.parametrize("aug", [{"MOSAIC_PROB": 0.0}, {"MIXUP_PROB": 1.0}, {"DEGREES": 20.0, "PERSPECTIVE": 0.001}])
def test_extremes_give_valid_samples(dicts, aug):
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


def test_mixup_joins_the_boxes_of_both(dicts):
    full = [d for d in dicts if d["annotations"]][-1:]
    plain = {**PLAIN, "MOSAIC_PROB": 1.0, "FLIP_LR_PROB": 0.0}
    single, mixed = (
        [len(make_mapper(full, **plain, MIXUP_PROB=p)({**full[0], "position": i})["instances"]) for i in range(30)]
        for p in (0.0, 1.0)
    )
    assert sum(mixed) > 1.5 * sum(single)


def test_tiles_of_a_mosaic_touch_its_centre(tmp_path):
    # 20 x 40 fits into 40 x 40 as it is: only its place, not its pixels, may change.
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


def test_image_without_boxes(dicts):
    instances = make_mapper(dicts, MOSAIC_PROB=0.0)({**dicts[0], "position": 0})["instances"]
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_boxes.tensor.dtype == torch.float32
    assert instances.gt_classes.shape == (0,)
    assert instances.gt_classes.dtype == torch.int64


def test_crowds_are_not_trained_on_and_outside_is_cut_off(dicts):
    annotations = dicts[2]["annotations"]
    annotations[0]["iscrowd"] = 1
    annotations[1]["bbox"] = [10, -5, 100, 15]
    sample = make_mapper(dicts, size=(20, 20), **PLAIN, FLIP_LR_PROB=0.0)({**dicts[2], "position": 0})
    torch.testing.assert_close(sample["instances"].gt_boxes.tensor, torch.tensor([[10.0, 0.0, 20.0, 10.0]]))
    assert sample["instances"].gt_classes.tolist() == [1]


def test_samples_depend_on_seed_and_position_only(dicts):
    mapper = make_mapper(dicts)
    first = mapper({**dicts[3], "position": 12})
    np.random.seed(99)
    mapper({**dicts[1], "position": 3})
    assert_same_samples([mapper({**dicts[3], "position": 12})], [first])
    assert not torch.equal(mapper({**dicts[3], "position": 13})["image"], first["image"])
    other = TrainDatasetMapper(make_cfg(), dicts, seed=8)
    assert not torch.equal(other({**dicts[3], "position": 12})["image"], first["image"])


def test_training_input_is_not_changed(dicts):
    before = [dict(d, annotations=[dict(a, bbox=list(a["bbox"])) for a in d["annotations"]]) for d in dicts]
    mapper = make_mapper(dicts)
    for position in range(5):
        mapper({**dicts[position], "position": position})
    assert dicts == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MOSAIC_PROB", 1.5),
        ("FLIP_LR_PROB", -0.1),
        ("SCALE", 1.0),
        ("TRANSLATE", -1.0),
        ("HSV_V", 2.0),
        ("SHEAR", 90.0),
    ],
)
def test_impossible_augmentation_is_refused(dicts, key, value):
    with pytest.raises(UserError, match=rf"INPUT\.AUG\.{key} {value}"):
        make_mapper(dicts, **{key: value})


def test_impossible_sizes_are_refused(dicts):
    with pytest.raises(UserError, match=r"INPUT\.SIZE_TRAIN"):
        make_mapper(dicts, size=(64,))
    cfg = make_cfg()
    cfg.INPUT.SIZE_TEST = 0
    with pytest.raises(UserError, match=r"INPUT\.SIZE_TEST"):
        TestDatasetMapper(cfg)


def test_batches_are_the_same_for_any_number_of_workers(dicts):
    batches = [take(build_train_loader(make_cfg(n), dicts, seed=3), 7) for n in (0, 1, 2)]
    assert [len(batch) for batch in batches[0]] == [4] * 7
    expected = list(itertools.chain(*batches[0]))
    assert [sample["position"] for sample in expected] == list(range(28))
    for other in batches[1:]:
        assert_same_samples(list(itertools.chain(*other)), expected)


def test_batches_are_the_same_after_a_restart(dicts):
    expected = list(itertools.chain(*take(build_train_loader(make_cfg(), dicts, seed=3), 6)[2:]))
    restarted = take(build_train_loader(make_cfg(2), dicts, seed=3, start_iter=2), 4)
    assert_same_samples(list(itertools.chain(*restarted)), expected)


def test_global_batches_are_the_same_for_two_processes(dicts, monkeypatch):
    expected = take(build_train_loader(make_cfg(), dicts, seed=3), 4)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    # detectron2's builder has imported the function by name.
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(take(build_train_loader(make_cfg(rank), dicts, seed=3), 4))
    for i, batch in enumerate(expected):
        joined = sorted(shares[0][i] + shares[1][i], key=lambda sample: sample["position"])
        assert_same_samples(joined, batch)


def test_building_a_loader_leaves_the_global_generator_alone(dicts):
    state = torch.get_rng_state()
    take(build_train_loader(make_cfg(), dicts, seed=3), 1)
    torch.testing.assert_close(torch.get_rng_state(), state)


def test_batch_size_must_be_divisible(dicts, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    with pytest.raises(UserError, match=r"SOLVER\.IMS_PER_BATCH 4 .*3 training processes"):
        build_train_loader(make_cfg(), dicts, seed=3)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_training_image_is_named(dicts, num_workers):
    bad = [{**d, "file_name": "/nonexistent/사진.png"} for d in dicts]
    error = catch_error(build_train_loader(make_cfg(num_workers), bad, seed=3))
    assert isinstance(error, UnreadableImageError)
    assert "/nonexistent/사진.png" in str(error)


def test_an_unexpected_failure_names_the_image(dicts):
    def fail(_):
        raise ZeroDivisionError("oops")

    with pytest.raises(RuntimeError, match=r"Sample 2 .*1\.png.*oops") as info:
        PositionedDataset(dicts, fail)[2 * 5 + 1]
    assert isinstance(info.value.__cause__, ZeroDivisionError)


def test_a_size_that_is_not_the_jsons_is_an_error(dicts):
    with pytest.raises(UserError, match=r"3\.png' has 97 x 48 pixels, but its json says 97 x 50"):
        TestDatasetMapper(make_cfg())({**dicts[3], "height": 50})


def test_test_mapper(dicts):
    sample = TestDatasetMapper(make_cfg())(dicts[3])
    # 48 * 64/97 = 31.7.
    assert sample["image"].shape == (3, 32, 64)
    assert (sample["height"], sample["width"], sample["image_id"]) == (48, 97, 13)
    assert "annotations" not in sample
    without_size = {"file_name": dicts[3]["file_name"], "image_id": 1}
    assert TestDatasetMapper(make_cfg())(without_size)["width"] == 97


@pytest.mark.parametrize("num_workers", [0, 2])
def test_inference_loader_keeps_order_and_reports_unreadable_images(dicts, tmp_path, num_workers):
    (tmp_path / "2.png").write_bytes(b"broken")
    records = [{"file_name": d["file_name"], "image_id": d["image_id"]} for d in dicts]
    batches = list(build_inference_loader(make_cfg(num_workers), records))
    assert [len(batch) for batch in batches] == [1] * 5
    assert [batch[0]["image_id"] for batch in batches] == [10, 11, 12, 13, 14]
    assert ["error" in batch[0] for batch in batches] == [False, False, True, False, False]
    assert set(batches[2][0]) == {"file_name", "image_id", "error"}
    assert "2.png" in batches[2][0]["error"]


def test_registered_data_sets(dicts):
    name = "t_loaders"
    DatasetCatalog.register(name, lambda: dicts)
    try:
        cfg = make_cfg()
        cfg.DATASETS.TRAIN = (name,)
        assert [d["image_id"] for d in load_train_dicts(cfg)] == [10, 11, 12, 13, 14]
        assert [batch[0]["image_id"] for batch in build_test_loader(cfg, name)] == [10, 11, 12, 13, 14]
    finally:
        DatasetCatalog.remove(name)
    for names in ((), (name,)):
        cfg.DATASETS.TRAIN = names
        with pytest.raises(UserError, match=r"DATASETS\.TRAIN"):
            load_train_dicts(cfg)
