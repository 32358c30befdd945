"""The loaders, with the samplers and mappers in them."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from parking.data.build import build_inference_loader, build_train_loader, load_test_dicts, load_train_dicts
from parking.data.common import PositionedDataset
from parking.data.dataset_mapper import TrainDatasetMapper
from parking.data.image_io import UnreadableImageError
from parking.data.samplers import ClassBalancedTrainingSampler, class_balanced_weights, decode_position
from parking.utils.errors import UserError

SAMPLERS = ["TrainingSampler", "ClassBalancedTrainingSampler", "RepeatFactorTrainingSampler"]


def take(loader, n):
    return list(itertools.islice(loader, n))


def catch_error(loader):
    with pytest.raises(Exception) as info:
        take(loader, 1)
    return info.value


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batches_are_the_same_for_any_number_of_workers(dicts, sampler, make_cfg, assert_same_samples):
    batches = [take(build_train_loader(make_cfg(n, sampler=sampler), dicts, seed=3), 9) for n in (0, 1, 2, 8)]
    assert [len(batch) for batch in batches[0]] == [4] * 9
    expected = list(itertools.chain(*batches[0]))
    assert [sample["position"] for sample in expected] == list(range(36))
    for other in batches[1:]:
        assert_same_samples(list(itertools.chain(*other)), expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_batches_are_the_same_after_a_restart(dicts, sampler, make_cfg, assert_same_samples):
    expected = list(itertools.chain(*take(build_train_loader(make_cfg(sampler=sampler), dicts, seed=3), 6)[2:]))
    restarted = take(build_train_loader(make_cfg(2, sampler=sampler), dicts, seed=3, start_iter=2), 4)
    assert_same_samples(list(itertools.chain(*restarted)), expected)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_global_batches_are_the_same_for_two_processes(dicts, monkeypatch, sampler, make_cfg, assert_same_samples):
    expected = take(build_train_loader(make_cfg(sampler=sampler), dicts, seed=3), 4)
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    shares = []
    for rank in (0, 1):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        shares.append(take(build_train_loader(make_cfg(2 * rank, sampler=sampler), dicts, seed=3), 4))
    for i, batch in enumerate(expected):
        joined = sorted(shares[0][i] + shares[1][i], key=lambda sample: sample["position"])
        assert_same_samples(joined, batch)


def count_images(cfg, dicts, num_iters, **kwargs):
    """How often each image begins a sample, without making the samples."""
    sampler = build_train_loader(cfg, dicts, seed=3, **kwargs).sampler
    codes = itertools.islice(sampler, num_iters * cfg.SOLVER.IMS_PER_BATCH)
    return Counter(decode_position(code, len(dicts))[1] for code in codes)


def test_class_balanced_stream_depends_on_the_scores(dicts, make_cfg):
    cfg = make_cfg(sampler="ClassBalancedTrainingSampler")
    # Boxes of the images: none; 0; 0 1; 0 1 2; 0 1 2 0. Class 2 has 2 boxes, 1 has 3 and 0 has 5.
    before = count_images(cfg, dicts, 1000)
    # 1 / boxes: 0.2, 0.2 + 0.333, 0.2 + 0.333 + 0.5, the same + 0.2, and for image 0 their mean, 0.75.
    sums = np.array([0.75, 0.2, 0.533, 1.033, 1.233])
    np.testing.assert_allclose([before[i] / 4000 for i in range(5)], sums / sums.sum(), atol=0.04)
    after = count_images(cfg, dicts, 1000, class_ap=[1.0, 1.0, None] + [float("nan")] * 11)
    # Only class 2 counts: 0.5 in images 3 and 4, the mean 0.25 in image 0 and 0.0025 in the others.
    sums = np.array([0.25, 0.0025, 0.0025, 0.5, 0.5])
    np.testing.assert_allclose([after[i] / 4000 for i in range(5)], sums / sums.sum(), atol=0.04)
    assert before != after


def test_epochs_of_the_class_balanced_sampler(dicts, make_cfg):
    cfg = make_cfg(sampler="ClassBalancedTrainingSampler")
    positions = {}
    for iters in (0, 3):
        cfg.SOLVER.ITERS_PER_EPOCH = iters
        positions[iters] = list(itertools.islice(build_train_loader(cfg, dicts, seed=3).sampler, 24))
    # An epoch is 5 images, one for each of the data set, or 3 iterations of 4.
    assert positions[0][:5] == positions[3][:5]
    assert positions[0] != positions[3]
    weights = class_balanced_weights(dicts, 14)
    expected = ClassBalancedTrainingSampler(weights, epoch_size=12, seed=3)
    assert positions[3] == list(itertools.islice(expected, 24))


def test_repeat_factors_of_the_config(dicts, make_cfg):
    cfg = make_cfg(sampler="RepeatFactorTrainingSampler")
    # Classes 0, 1 and 2 are in 4, 3 and 2 of 5 images: sqrt(0.9 / f) is 1.061, 1.225 and 1.5.
    rooted = count_images(cfg, dicts, 1000)
    np.testing.assert_allclose([rooted[i] / rooted[0] for i in range(5)], [1, 1.061, 1.225, 1.5, 1.5], atol=0.1)
    cfg.DATALOADER.REPEAT_SQRT = False
    plain = count_images(cfg, dicts, 1000)
    np.testing.assert_allclose([plain[i] / plain[0] for i in range(5)], [1, 1.125, 1.5, 2.25, 2.25], atol=0.1)


def test_strong_augmentation_ends_at_the_stated_iteration(dicts, monkeypatch, make_cfg, assert_same_samples):
    def take_samples(**aug):
        cfg = make_cfg(max_iter=6, **{"MIXUP_PROB": 1.0, **aug})
        return list(itertools.chain(*take(build_train_loader(cfg, dicts, seed=3), 7)))

    always, never = take_samples(), take_samples(MOSAIC_PROB=0.0)
    mosaics = []
    make_mosaic = TrainDatasetMapper._make_mosaic

    def record(self, dataset_dict, rng):
        mosaics.append(dataset_dict["file_name"])
        return make_mosaic(self, dataset_dict, rng)

    monkeypatch.setattr(TrainDatasetMapper, "_make_mosaic", record)
    samples = take_samples(STRONG_OFF_ITERS=2)
    # Off in iterations 4 and 5 of 0 to 5, from position (6 - 2) * 4 on; two mosaics to a sample before.
    assert len(mosaics) == 2 * 16
    assert_same_samples(samples[:16], always[:16])
    assert_same_samples(samples[16:], never[16:])
    assert not torch.equal(samples[16]["image"], always[16]["image"])


def test_building_a_loader_leaves_the_global_generator_alone(dicts, make_cfg):
    state = torch.get_rng_state()
    take(build_train_loader(make_cfg(), dicts, seed=3), 1)
    torch.testing.assert_close(torch.get_rng_state(), state)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_training_image_is_named(dicts, num_workers, make_cfg):
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


@pytest.mark.parametrize("num_workers", [0, 2])
def test_inference_loader_keeps_order_and_reports_unreadable_images(dicts, tmp_path, num_workers, make_cfg):
    (tmp_path / "2.png").write_bytes(b"broken")
    records = [{"file_name": d["file_name"], "image_id": d["image_id"]} for d in dicts]
    planned = [records[:1], records[1:3], records[3:]]
    batches = list(build_inference_loader(make_cfg(num_workers), planned, [0, 2, 1]))
    assert [[image["image_id"] for image in batch] for batch in batches] == [[10], [13, 14], [11, 12]]
    broken = batches[2][1]
    assert [image for batch in batches for image in batch if "error" in image] == [broken]
    assert set(broken) == {"file_name", "image_id", "error"} and "2.png" in broken["error"]
    assert list(build_inference_loader(make_cfg(num_workers), planned, [])) == []


def test_registered_data_sets(dicts, make_cfg):
    name = "t_loaders"
    DatasetCatalog.register(name, lambda: dicts)
    try:
        cfg = make_cfg()
        cfg.DATASETS.TRAIN = (name,)
        assert [d["image_id"] for d in load_train_dicts(cfg)] == [10, 11, 12, 13, 14]
        assert [d["image_id"] for d in load_test_dicts(name)] == [10, 11, 12, 13, 14]
    finally:
        DatasetCatalog.remove(name)
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN"):
        load_train_dicts(cfg)
