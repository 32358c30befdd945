"""One model over many images: which images go together, and what they have to do with each other."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from parking.checkpoint import read_weights
from parking.config import get_cfg
from parking.inference.build import build_inference_model
from parking.inference.image_pipeline import load_models
from parking.inference.runner import (
    detect,
    find_batch_size,
    measure_speed,
    plan_inference,
    predict_images,
)
from parking.inference.sinks.journal import ResultsJournal
from parking.utils.errors import UserError
from parking.visualization.drawing import save_image

# Height and width: padded to multiples of 32 at a long side of 96, the first four have one shape, two another.
SIZES = [(48, 80), (60, 96), (50, 90), (32, 50), (80, 48), (96, 96), (90, 60)]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    records = []
    for i, size in enumerate(SIZES):
        path = folder / f"{i}.png"
        small = rng.integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + 1, 3), dtype=np.uint8)
        save_image(small.repeat(8, 0).repeat(8, 1)[: size[0], : size[1]], path)
        records.append(
            {"image_id": i + 1, "file_name": str(path), "relative_path": path.name, "height": size[0], "width": size[1]}
        )
    return records


@pytest.fixture
def predict(mild_weights_file, images, tmp_path):
    """``predict(*opts)``: the detections of all images, as columns, and the batches."""
    numbers = iter(range(100))

    def predict(*opts, images=images):
        opts = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", *map(str, opts)]
        (loaded,) = load_models(None, [str(mild_weights_file)], opts, default_config="")
        model = build_inference_model(loaded.cfg, loaded.weights)
        batches = plan_inference(loaded.cfg, model, images)
        journal = ResultsJournal(tmp_path / str(next(numbers)), {})
        predict_images(loaded.cfg, model, batches, journal, category_ids=[7, 3])
        content = journal.gather()
        journal.close()
        return content, [[image["image_id"] for image in batch] for batch in batches]

    return predict


def rows(content):
    """By image and descending score, whatever the order in which they came."""
    found = content.detections
    order = np.lexsort([found.boxes[:, 0], -found.scores, found.image_ids])
    return found[order]


def assert_equal(actual, expected):
    actual, expected = rows(actual), rows(expected)
    np.testing.assert_array_equal(actual.image_ids, expected.image_ids)
    np.testing.assert_array_equal(actual.category_ids, expected.category_ids)
    np.testing.assert_array_equal(actual.boxes, expected.boxes)
    np.testing.assert_array_equal(actual.scores, expected.scores)


def test_on_the_cpu_no_bit_depends_on_the_number_of_images_in_a_batch(make_weights, tmp_path):
    # Wide enough for the CPU to choose other convolutions for other numbers of images.
    path = make_weights(tmp_path / "wide.pth", "MODEL.YOLO.WIDTH_MULTIPLE", "0.5", std=0.01)
    (loaded,) = load_models(None, [str(path)], ["MODEL.DEVICE", "cpu"], default_config="")
    model = loaded.build()
    generator = torch.Generator().manual_seed(0)
    batch = [{"image": torch.randint(256, (3, 64, 96), generator=generator, dtype=torch.uint8)} for _ in range(8)]
    with torch.inference_mode():
        alone = [instances for inputs in batch for instances in detect(model, [inputs])]
        assert all(len(instances) for instances in alone)
        for size in (2, 3, 5, 8):
            for instances, expected in zip(detect(model, batch[:size]), alone, strict=False):
                assert torch.equal(instances.pred_boxes.tensor, expected.pred_boxes.tensor)
                assert torch.equal(instances.scores, expected.scores)
                assert torch.equal(instances.pred_classes, expected.pred_classes)


@pytest.mark.parametrize("views", [False, True])
def test_results_depend_on_neither_batch_nor_order_nor_workers(predict, images, views):
    alone, batches = predict("TEST.AUG.ENABLED", views)
    assert batches == [[1], [2], [3], [4], [5], [6], [7]]
    assert alone.done == {1, 2, 3, 4, 5, 6, 7} and set(alone.detections.image_ids) == alone.done
    together, batches = predict("TEST.AUG.ENABLED", views, "TEST.IMS_PER_BATCH", 3)
    assert batches == [[1, 2, 3], [4], [5, 7], [6]]
    assert_equal(together, alone)
    backwards, batches = predict("TEST.AUG.ENABLED", views, "TEST.IMS_PER_BATCH", 3, images=images[::-1])
    assert batches == [[7, 5], [6], [4, 3, 2], [1]]
    assert_equal(backwards, alone)
    assert_equal(predict("TEST.AUG.ENABLED", views, "DATALOADER.NUM_WORKERS", 2)[0], alone)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=30), st.integers(1, 5))
def test_each_image_is_in_one_batch(sizes, batch_size):
    cfg = get_cfg()
    cfg.TEST.IMS_PER_BATCH = batch_size
    images = [{"image_id": i, "height": h, "width": w} for i, (h, w) in enumerate(sizes)]
    batches = plan_inference(cfg, SimpleNamespace(size_divisibility=32), images)
    assert sorted(image["image_id"] for batch in batches for image in batch) == list(range(len(sizes)))
    assert all(1 <= len(batch) <= batch_size for batch in batches)


def test_unreadable_images_cost_only_themselves(predict, images, tmp_path):
    expected, _ = predict("TEST.IMS_PER_BATCH", 3)
    broken = [dict(image) for image in images]
    for i, name in ((1, "missing.png"), (5, "broken.png")):
        # An image whose header cannot be read has no size.
        broken[i] = {"image_id": i + 1, "file_name": str(tmp_path / name), "relative_path": name}
    (tmp_path / "broken.png").write_bytes(b"no image")
    # It shares a batch by its stated size, and turns out to be another image when it is read.
    broken[2]["height"], broken[2]["width"] = 50, 91
    content, batches = predict("TEST.IMS_PER_BATCH", 3, images=broken)
    assert batches == [[1, 3, 4], [2], [5, 7], [6]]
    assert content.done == expected.done and set(content.errors) == {2, 3, 6}
    assert "missing.png" in content.errors[2] and "3.png" not in content.errors[3] and "2.png" in content.errors[3]
    kept = np.isin(expected.detections.image_ids, [1, 4, 5, 7])
    assert_equal(content, type(expected)(expected.detections[kept], set(), {}))


def test_types_of_the_network(predict):
    exact, _ = predict()
    content, _ = predict("TEST.DTYPE", "bfloat16")
    assert abs(len(content.detections) - len(exact.detections)) < 0.1 * len(exact.detections)
    # Another type shows in the digits, so it was really used, and the scores are still about the same.
    best = [rows(c).scores[rows(c).image_ids == 1][:5] for c in (exact, content)]
    assert not np.array_equal(*best)
    np.testing.assert_allclose(*best, atol=0.05)


def test_only_the_network_is_of_that_type(weights_file):
    (loaded,) = load_models(None, [str(weights_file)], ["TEST.DTYPE", "bfloat16"], default_config="")
    loaded.cfg.MODEL.DEVICE = "cpu"
    model = build_inference_model(loaded.cfg, loaded.weights)
    types = {name: tensor.dtype for name, tensor in model.state_dict().items()}
    for name, dtype in types.items():
        in_half = name.startswith(("backbone", "head")) and name != "head.anchors"
        assert dtype == (torch.bfloat16 if in_half else torch.float32), name
    found = model.predict(torch.rand(1, 3, 64, 64))
    assert {found.boxes.dtype, found.scores.dtype, found.upper_bound.dtype} == {torch.float32}
    assert torch.bfloat16 not in {tensor.dtype for tensor in loaded.weights.state_dict.values()}


def test_batch_sizes_by_device():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    assert find_batch_size(cfg) == 1
    cfg.MODEL.DEVICE = "cuda:1"
    assert find_batch_size(cfg) == 8
    cfg.TEST.IMS_PER_BATCH = 3
    assert find_batch_size(cfg) == 3


def test_out_of_memory_names_the_keys(predict, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")

    monkeypatch.setattr("parking.modeling.YOLO.forward", fail)
    with pytest.raises(UserError, match=r"TEST.IMS_PER_BATCH .* 3 .*INPUT.SIZE_TEST"):
        predict("TEST.IMS_PER_BATCH", 3)


class Counting(nn.Module):
    def __init__(self, detector):
        super().__init__()
        self.backbone, self.detector, self.sizes = detector.backbone, detector, []

    def forward(self, batch):
        self.sizes.append(len(batch))
        return self.detector(batch)


def test_a_speed_is_measured_on_the_first_batches(weights_file, images):
    (loaded,) = load_models(None, [str(weights_file)], ["DATALOADER.NUM_WORKERS", "0"], default_config="")
    loaded.cfg.MODEL.DEVICE = "cpu"
    model = Counting(build_inference_model(loaded.cfg, read_weights(str(weights_file))))
    batches = [[image] for image in images] * 9
    assert measure_speed(loaded.cfg, model, batches) > 0
    assert model.sizes == [1] * 10  # two for warming up, eight that are timed
    model.sizes.clear()
    loaded.cfg.DATALOADER.NUM_WORKERS = 3
    assert measure_speed(loaded.cfg, model, batches) > 0
    # Two, and two that each worker may have ready by then; four of each that are timed.
    assert model.sizes == [1] * (2 + 6 + 12)
    model.sizes.clear()
    assert measure_speed(loaded.cfg, model, [images[:1]]) > 0
    assert model.sizes == [1]
