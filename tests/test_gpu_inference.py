"""Inference on a GPU: ``python -m pytest -m gpu``. `make test` leaves these out."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from parking.checkpoint import read_weights
from parking.config import get_cfg
from parking.data.datasets.images import list_images
from parking.inference.barrier import PatientBarrier
from parking.inference.build import build_inference_model
from parking.inference.detector import Detector
from parking.inference.image_pipeline import kept_results, load_models, run_inference
from parking.inference.runner import inference_settings
from parking.inference.sinks.result_ids import choose_result_ids
from parking.inference.sources.orientations import settle_orientations
from parking.modeling import DensePredictions, DetectionFusion, YOLOPostprocessor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]
ROOT = Path(__file__).resolve().parents[1]
SIZES = [(60, 96), (48, 80), (96, 60), (50, 90), (64, 64), (56, 96), (96, 56)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("in")
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES * 3):
        small = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{i:02d}.png"), cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture
def run(mild_weights_file, folder, tmp_path):
    """``run(*opts)``: the detections, by image and descending score."""
    numbers = iter(range(100))

    def run(*opts, weights=(), device="cuda"):
        files = [str(path) for path in weights or [mild_weights_file]]
        models = load_models(None, files, ["MODEL.DEVICE", device, *map(str, opts)], default_config="")
        listed, classes = list_images(str(folder)), models[0].classes
        images = settle_orientations(listed.images, models[0].cfg, {})
        output_dir, barrier = tmp_path / f"out{next(numbers)}", PatientBarrier()
        output_dir.mkdir()
        with kept_results(str(output_dir), barrier) as journals:
            report = run_inference(
                models,
                images,
                output_dir=str(output_dir),
                folder=journals,
                barrier=barrier,
                ids=choose_result_ids(listed, classes, None, are_classes_numbered=False),
            )
        found = report.detections
        return found[np.lexsort([found.boxes[:, 0], -found.scores, found.image_ids])]

    return run


def assert_close(actual, expected):
    """Compare boxes to 0.01 px and scores to 1e-4; boxes that score nearly the same may change places."""
    assert len(actual) == len(expected) > 100
    for image_id in np.unique(expected.image_ids):
        ours, theirs = (d[d.image_ids == image_id] for d in (actual, expected))
        fits = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(axis=2) <= 0.01
        fits &= np.abs(ours.scores[:, None] - theirs.scores[None]) <= 1e-4
        fits &= ours.category_ids[:, None] == theirs.category_ids[None]
        assert fits.any(axis=1).all() and fits.any(axis=0).all()


@pytest.mark.parametrize("views", [False, True])
def test_float32_is_the_same_on_cpu_and_gpu_and_in_any_batch(run, views):
    opts = ("TEST.DTYPE", "float32", "TEST.AUG.ENABLED", views)
    alone = run(*opts, "TEST.IMS_PER_BATCH", 1)
    assert_close(run(*opts, "TEST.IMS_PER_BATCH", 5), alone)
    assert_close(run(*opts, device="cpu"), alone)


@pytest.mark.parametrize("name", ["soft_nms", "wbf"])
def test_fusions_are_the_same_on_cpu_and_gpu(run, name):
    opts = ("TEST.DTYPE", "float32", "TEST.AUG.ENABLED", True, "TEST.FUSION.NAME", name)
    assert_close(run(*opts), run(*opts, device="cpu"))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 0.03), ("bfloat16", 0.2)])
def test_other_types_find_about_the_same(run, dtype, tolerance):
    """Compare the best box of each image. Random weights amplify rounding much more than trained ones."""
    exact, found = run("TEST.DTYPE", "float32"), run("TEST.DTYPE", dtype)
    best = [[d.scores[d.image_ids == i].max() for i in np.unique(d.image_ids)] for d in (exact, found)]
    assert not np.array_equal(*best), "it is another type"
    np.testing.assert_allclose(*best, rtol=0, atol=tolerance)
    assert np.corrcoef(*best)[0, 1] > 0.97


def test_two_runs_are_equal_to_the_last_bit(run):
    first, second = run("TEST.AUG.ENABLED", True), run("TEST.AUG.ENABLED", True, "DATALOADER.NUM_WORKERS", 0)
    for name in ("image_ids", "category_ids", "boxes", "scores"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_the_detector_finds_what_the_tool_finds(run, folder, mild_weights_file):
    found = run("TEST.IMS_PER_BATCH", 1)
    detector = Detector(mild_weights_file, score_threshold=0.05)
    assert detector.device.type == "cuda"
    for image_id, path in enumerate(sorted(folder.iterdir()), start=1):
        rows = found.scores[found.image_ids == image_id]
        np.testing.assert_allclose(detector(path).scores[: len(rows)], rows, rtol=0, atol=1e-6)


def predictions(num_images, num_predictions=6000, num_classes=14):
    generator = torch.Generator().manual_seed(0)
    shape = (num_images, num_predictions)
    centres = (
        torch.randint(1, 8, (*shape, 2), generator=generator) * 150 + torch.randn(*shape, 2, generator=generator) * 9
    )
    sizes = torch.rand(*shape, 2, generator=generator) * 40 + 40
    scores = torch.rand(*shape, num_classes, generator=generator) ** 8
    return DensePredictions(torch.cat([centres - sizes / 2, centres + sizes / 2], dim=2), scores, (num_predictions,))


def rows(predictions, images=slice(None), boxes=slice(None), device="cpu"):
    """Some images and boxes of ``predictions``, on a device."""
    picked = (getattr(predictions, name)[images, boxes].to(device) for name in ("boxes", "scores"))
    return DensePredictions(*picked, predictions.level_sizes)


def assert_equal(actual, expected):
    for first, second in zip(actual, expected, strict=True):
        assert len(first) > 20
        assert torch.equal(first.pred_classes, second.pred_classes)
        torch.testing.assert_close(first.pred_boxes.tensor, second.pred_boxes.tensor, rtol=0, atol=1e-3)
        torch.testing.assert_close(first.scores, second.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("topk", [30000, 500])
def test_suppression_of_a_batch_is_that_of_each_image_on_either_device(topk, monkeypatch):
    postprocessor = YOLOPostprocessor(score_thresh=0.1, nms_thresh=0.7, max_detections=300, pre_nms_topk=topk)
    batch, sizes = predictions(6), [(1280, 1280)] * 6
    together = postprocessor(rows(batch, device="cuda"), sizes)
    assert_equal(together, postprocessor(batch, sizes))
    for i, found in enumerate(together):
        (alone,) = postprocessor(rows(batch, slice(i, i + 1), device="cuda"), sizes[:1])
        assert torch.equal(found.pred_boxes.tensor, alone.pred_boxes.tensor)
        assert torch.equal(found.scores, alone.scores)
    monkeypatch.setattr("parking.modeling.postprocessing._MAX_BOXES_GPU", 1000)
    assert_equal(postprocessor(rows(batch, device="cuda"), sizes), together)


def count_waits(function):
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)


@pytest.mark.parametrize("views", [False, True])
def test_the_gpu_is_not_waited_for_image_by_image(mild_weights_file, views):
    cfg = get_cfg()
    weights = read_weights(str(mild_weights_file))
    cfg.merge_from_dict(weights.config, source="weights")
    cfg.MODEL.DEVICE, cfg.TEST.AUG.ENABLED = "cuda", views
    model = build_inference_model(cfg, weights)
    image = torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8).pin_memory()

    def infer(num_images):
        with inference_settings(cfg, num_images):
            return model([{"image": image, "height": 96, "width": 96} for _ in range(num_images)])

    infer(8)
    few, many = (count_waits(lambda n=n: infer(n)) for n in (2, 8))
    assert 0 < many <= few < 20


@pytest.mark.parametrize("name", ["nms", "soft_nms", "wbf"])
def test_fusion_of_boxes_on_the_gpu(name):
    postprocessor = YOLOPostprocessor(score_thresh=0.1, nms_thresh=0.7, max_detections=300)
    fusion = DetectionFusion(name=name, iou_thresh=0.75, sigma=0.5, score_thresh=0.1, max_detections=100)
    parts = [rows(predictions(3), boxes=slice(start, start + 3000)) for start in (0, 3000)]
    opinions = [postprocessor(part, [(1280, 1280)] * 3) for part in parts]
    on_gpu = fusion([[found.to("cuda") for found in opinion] for opinion in opinions])
    assert_equal([found.to("cpu") for found in on_gpu], fusion(opinions))


def test_infer_as_a_process_on_the_gpu(folder, mild_weights_file, tmp_path):
    """Two runs write the same bytes."""
    results = []
    for name in ("first", "second"):
        command = [sys.executable, ROOT / "tools/infer.py", "--input", folder, "--weights", mild_weights_file]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        subprocess.run([*command, "--output", tmp_path / name, "--visualize", "2"], check=True, cwd=ROOT, env=env)
        results.append({p.name: p.read_bytes() for p in (tmp_path / name).rglob("*") if p.is_file()})
    assert results[0] == results[1] and "overview.png" in results[0]
