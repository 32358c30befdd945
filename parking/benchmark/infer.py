"""Measure how fast inference on images is, and how its time divides among decoding, network, NMS and writing."""

import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from parking.benchmark.data import make_pngs
from parking.checkpoint import Weights
from parking.config import Task
from parking.data.build import build_inference_loader
from parking.data.dataset_mapper import TestDatasetMapper
from parking.inference.build import build_inference_model, build_model, inference_dtype
from parking.inference.models import check_config, resolve_device
from parking.inference.runner import describe, detect, inference_settings, measure_speed, plan_inference
from parking.inference.sinks.journal import ResultsJournal

# Number of images in the challenge's test set.
_NUM_TEST_IMAGES = 19521
# If no weights are given, the score threshold is set such that about _NUM_CANDIDATES boxes per image enter the NMS. The
# threshold is found on _NUM_CALIBRATION_IMAGES images.
_NUM_CANDIDATES, _NUM_CALIBRATION_IMAGES = 1000, 8
# Each part is timed for at least this many seconds and repeated at least this many times.
_MIN_SECONDS, _MIN_REPEATS = 2.0, 5


def run_infer_benchmark(
    cfg: CfgNode, images: str, *, weights: Weights | None = None, num_images: int = 64, num_passes: int = 1
) -> Iterator[str]:
    """Time each part of an inference by itself, and then the whole pipeline.

    Args:
        cfg: changed in place: MODEL.DEVICE, NUM_CLASSES 0 and, for random weights, SCORE_THRESH_TEST are replaced.
        images: folder of photographs, from which PNGs of 1920 x 1080 pixels are made.
        weights: None stands for random weights and a score threshold with about 1,000 candidates an image.
        num_images: number of PNGs.
        num_passes: how often the pipeline may see each PNG; as for --max-hours, its first batches are not timed.

    Yields:
        Lines to print.
    """
    check_config(cfg, Task.INFER)
    resolve_device(cfg)
    if cfg.MODEL.YOLO.NUM_CLASSES == 0:
        cfg.MODEL.YOLO.NUM_CLASSES = len(weights.class_names) if weights and weights.class_names else 14
    with tempfile.TemporaryDirectory(prefix="parking-benchmark-") as folder:
        records = make_pngs(images, Path(folder, "png"), num_images)
        records = [{key: r[key] for key in ("file_name", "image_id", "height", "width")} for r in records]
        mapper = TestDatasetMapper(cfg)
        weights = weights or make_weights(
            cfg, [mapper(record)["image"] for record in records[:_NUM_CALIBRATION_IMAGES]]
        )
        model = build_inference_model(cfg, weights)
        batches = plan_inference(cfg, model, records)
        category_ids = list(range(1, cfg.MODEL.YOLO.NUM_CLASSES + 1))
        yield describe_setup(cfg, batches[0])
        journal = ResultsJournal(Path(folder, "parts"), {})
        yield from time_parts(cfg, model, batches, mapper, journal, category_ids)

        rate = 1 / measure_speed(cfg, model, batches * num_passes)
        yield f"{'pipeline:':20}{rate:8.1f} images/s with {cfg.DATALOADER.NUM_WORKERS} workers"
        yield f"{_NUM_TEST_IMAGES} images in {_NUM_TEST_IMAGES / rate / 60:.1f} min"
        if cfg.MODEL.DEVICE.startswith("cuda"):
            yield f"GPU memory: {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB at most"


def describe_setup(cfg: CfgNode, batch: list[dict]) -> str:
    on_gpu = cfg.MODEL.DEVICE.startswith("cuda")
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads"
    dtype = str(inference_dtype(cfg)).removeprefix("torch.")
    views = "test-time augmentation" if cfg.TEST.AUG.ENABLED else "one view"
    return f"{device}, {dtype}, batches of {len(batch)} PNGs of 1920 x 1080 at {cfg.INPUT.SIZE_TEST}, {views}"


def time_parts(cfg, model, batches, mapper, journal, category_ids) -> Iterator[str]:
    """Yield lines with the time of each part by itself, in ms an image, including the time until the GPU finishes."""
    decode = _time(lambda: mapper(batches[0][0]))
    (batch,) = build_inference_loader(cfg, batches, [0])
    detector = getattr(model, "model", model)
    with inference_settings(cfg, len(batch)):
        images = detector.preprocess_image(batch).tensor
        network = _time(lambda: model.predict(images)) / len(batch)
        everything = _time(lambda: detect(model, batch)) / len(batch)
        instances = detect(model, batch)
        found = list(zip(batch, instances, strict=True))
        write = _time(lambda: journal.append([describe(*pair, category_ids) for pair in found])) / len(batch)
        candidates = (model.predict(images).scores > cfg.MODEL.YOLO.SCORE_THRESH_TEST).sum().item() / len(batch)
    yield f"{'bare model:':20}{1 / network:8.1f} images/s"
    yield (
        f"ms an image: decode {1e3 * decode:.1f} (one process of {cfg.DATALOADER.NUM_WORKERS}), network "
        f"{1e3 * network:.2f}, upload and NMS of {candidates:.0f} candidates {1e3 * (everything - network):.2f}, "
        f"write {1e3 * write:.2f}"
    )


def _time(function: Callable[[], object]) -> float:
    """Return the median seconds of a call, including the time until the GPU has finished."""
    timer = Timer("function()", globals={"function": function}, num_threads=torch.get_num_threads())
    timer.timeit(1)
    seconds: list[float] = []
    while len(seconds) < _MIN_REPEATS or sum(seconds) < _MIN_SECONDS:
        # Time one call after the other: within a call of timeit, the GPU is waited for only at the end.
        seconds.append(timer.timeit(1).median)
    return statistics.median(seconds)


def make_weights(cfg: CfgNode, images: Sequence[Tensor]) -> Weights:
    """Make random weights whose scores vary from box to box, and set SCORE_THRESH_TEST to get enough candidates.

    MODEL.YOLO.SCORE_THRESH_TEST is set such that ``images``, each (3, H, W), have about as many candidates as with a
    trained detector.
    """
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        for name, rows in model.head.class_rows().items():
            tensor = model.head.get_parameter(name)
            if tensor.dim() > 1:
                nn.init.normal_(tensor, std=0.05)
            else:
                # Set biases to 0, because those of a new head make all class scores low.
                tensor.view(rows.groups, -1)[:, rows.before :] = 0.0
        batch = model.preprocess_image([{"image": image} for image in images]).tensor
        # Compute the statistics of the norms on these images; otherwise outputs would shrink from layer to layer.
        for norm in norms:
            norm.train().momentum = 1.0
        model.predict(batch)
        for norm in norms:
            norm.eval()
        best = model.predict(batch).scores.flatten().topk(_NUM_CANDIDATES * len(images)).values
        cfg.MODEL.YOLO.SCORE_THRESH_TEST = best[-1].item()
    state = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    return Weights("random weights", state, class_names=[str(i) for i in range(cfg.MODEL.YOLO.NUM_CLASSES)])
