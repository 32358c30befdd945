"""The loaders, with the samplers and mappers in them."""

import itertools

import pytest
from detectron2.data import DatasetCatalog
from detectron2.utils import comm

from parking.data.build import (
    PositionedDataset,
    build_inference_loader,
    build_train_loader,
    load_test_dicts,
    load_train_dicts,
)
from parking.data.image_io import UnreadableImageError
from parking.data.samplers.class_balanced_sampler import ClassBalancedTrainingSampler, class_balanced_weights
from parking.data.samplers.repeat_factor_sampler import RepeatFactorTrainingSampler, compute_repeat_factors
from parking.utils.errors import UserError

SAMPLERS = ["TrainingSampler", "ClassBalancedTrainingSampler", "RepeatFactorTrainingSampler"]


def take(loader, n):
    return list(itertools.islice(loader, n))


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


def test_samplers_of_the_config(dicts, make_cfg):
    def take_codes(name, *, class_ap=None, **loader):
        cfg = make_cfg(sampler=name)
        cfg.SOLVER.ITERS_PER_EPOCH, cfg.DATALOADER.REPEAT_SQRT = loader.get("iters", 0), loader.get("sqrt", True)
        return take(build_train_loader(cfg, dicts, seed=3, class_ap=class_ap).sampler, 24)

    class_ap = [1.0, 1.0, None] + [float("nan")] * 11
    # An epoch is 5 images, one for each of the data set, or 3 iterations of 4.
    for iters, epoch_size, ap in ((0, 5, None), (3, 12, None), (3, 12, class_ap)):
        expected = ClassBalancedTrainingSampler(class_balanced_weights(dicts, 14, ap), epoch_size=epoch_size, seed=3)
        assert take_codes("ClassBalancedTrainingSampler", iters=iters, class_ap=ap) == take(expected, 24)
    for sqrt in (True, False):
        expected = RepeatFactorTrainingSampler(compute_repeat_factors(dicts, 0.9, sqrt=sqrt), seed=3)
        assert take_codes("RepeatFactorTrainingSampler", sqrt=sqrt) == take(expected, 24)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_training_image_is_named(dicts, num_workers, make_cfg):
    bad = [{**d, "file_name": "/nonexistent/사진.png"} for d in dicts]
    with pytest.raises(UnreadableImageError, match=r"/nonexistent/사진\.png"):
        take(build_train_loader(make_cfg(num_workers), bad, seed=3), 1)


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
