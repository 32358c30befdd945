"""Measure how fast training samples are made, and whether the memory of data workers grows."""

import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.structures import BoxMode
from torch.utils.data import DataLoader

from parking.config import get_cfg
from parking.data.build import build_train_loader
from parking.data.cache import JPEG_QUALITY, ImageCache
from parking.data.dataset_mapper import TrainDatasetMapper
from parking.data.image_io import read_image
from parking.synthetic import make_dataset
from parking.utils.errors import UserError

IMAGE_SIZE = (1080, 1920)
_SEED = 0
_NUM_BOXES, _NUM_CLASSES = 6, 14
_IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")


def run_data_benchmark(
    images: str, *, side: int = 1280, num_images: int = 64, num_samples: int = 24, num_rounds: int = 5
) -> Iterator[str]:
    """Time how one thread makes mosaics of PNGs (1920 x 1080), without a cache and with each format of the cache.

    Args:
        images: folder of photographs, from which the PNGs are made.
        side: width and height of a mosaic in pixels.
        num_images: number of PNGs.
        num_samples: number of mosaics in a round.
        num_rounds: number of rounds; the reported figures are medians over the rounds.

    Yields:
        Lines to print.
    """
    with tempfile.TemporaryDirectory(prefix="parking-benchmark-") as folder, _one_thread():
        dicts = make_pngs(images, Path(folder, "png"), num_images)
        mega = statistics.mean(os.path.getsize(d["file_name"]) for d in dicts) / 1e6
        yield f"{len(dicts)} PNGs of 1920 x 1080 pixels, {mega:.1f} MB each, from '{images}'"
        yield "one thread"
        samplers = make_samplers(dicts, side, Path(folder, "cache"))
        for d in dicts:
            for image_format in ("raw", "jpeg"):
                samplers[f"{image_format} disk cache"].tiles.read_image(d)
        yield f"loss of the jpeg cache (quality {JPEG_QUALITY}): " + describe_loss(
            dicts, samplers, Path(folder, "cache")
        )
        rates = time_samplers(samplers, dicts, num_samples, num_rounds)
        uncached = statistics.median(rates["no cache"])
        yield f"mosaics at {side}, images/s, median of {num_rounds} rounds of {num_samples} (slowest to fastest):"
        for name, values in rates.items():
            median = statistics.median(values)
            spread = f"({min(values):.1f} to {max(values):.1f})"
            yield f"  {name + ':':18}{median:6.1f}  {spread:18}{median / uncached:5.2f} x no cache"


@contextmanager
def open_photographs(images: str | None, num_images: int) -> Iterator[str]:
    """Yield the folder ``images``; if that is None, a temporary folder with ``num_images`` synthetic scenes."""
    if images:
        yield images
        return
    with tempfile.TemporaryDirectory(prefix="parking-scenes-") as scenes:
        make_dataset(scenes, num_train=num_images, num_test=1, size=(1920, 1080))
        yield scenes


def make_pngs(images: str, folder: Path, num_images: int) -> list[dict]:
    """Write PNGs of ``IMAGE_SIZE``, cut from resized ``images``; return their dataset dicts, with random boxes."""
    folder.mkdir(parents=True)
    sources = sorted(p for p in Path(images).rglob("*") if p.suffix.lower() in _IMAGE_ENDINGS)
    if not sources:
        raise UserError(f"--images: the folder '{images}' holds no JPEG or PNG.")
    rng = np.random.default_rng(_SEED)
    h, w = IMAGE_SIZE
    dicts = []
    for i in range(num_images):
        image = read_image(sources[i % len(sources)])
        scale = max(h / image.shape[0], w / image.shape[1])
        size = max(w, round(image.shape[1] * scale)), max(h, round(image.shape[0] * scale))
        image = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)[:h, :w]
        path = str(folder / f"{i:04d}.png")
        cv2.imwrite(path, image[..., ::-1])
        corners = rng.uniform(0, [w - 200, h - 200], (_NUM_BOXES, 2))
        boxes = np.hstack([corners, rng.uniform(20, 200, (_NUM_BOXES, 2))]).tolist()
        classes = rng.integers(_NUM_CLASSES, size=_NUM_BOXES).tolist()
        annotations = [
            {"bbox": box, "bbox_mode": BoxMode.XYWH_ABS, "category_id": c}
            for box, c in zip(boxes, classes, strict=True)
        ]
        dicts.append({"file_name": path, "image_id": i, "height": h, "width": w, "annotations": annotations})
    return dicts


def make_samplers(dicts: list[dict], side: int, cache_dir: Path) -> dict[str, TrainDatasetMapper]:
    """Return the samplers to compare, by name; given the same dict and position, all make the same mosaic."""
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = [side, side]
    options = TrainDatasetMapper.from_config(cfg, dicts, seed=_SEED)
    samplers = {"no cache": TrainDatasetMapper(**options)}
    for image_format in ("raw", "jpeg"):
        cache = ImageCache(cache_dir, size=(side, side), image_format=image_format)
        samplers[f"{image_format} disk cache"] = TrainDatasetMapper(**{**options, "cache": cache})
    return samplers


def time_samplers(
    samplers: dict[str, TrainDatasetMapper], dicts: list[dict], num_samples: int, num_rounds: int
) -> dict[str, list[float]]:
    """Measure the samples per second of each sampler in each round.

    The samplers take turns sample by sample, so that noise affects all alike.
    """
    rates = {name: [] for name in samplers}
    for i in range(num_rounds):
        seconds = dict.fromkeys(samplers, 0.0)
        for position in range(i * num_samples, (i + 1) * num_samples):
            for name, sampler in samplers.items():
                start = time.perf_counter()
                sampler({**dicts[position % len(dicts)], "position": position})
                seconds[name] += time.perf_counter() - start
        for name in samplers:
            rates[name].append(num_samples / seconds[name])
    return rates


def describe_loss(dicts: list[dict], samplers: dict, cache_dir: Path) -> str:
    """Describe quality (PSNR against the raw cache) and size (relative to the raw cache) of the jpeg cache."""
    psnr = []
    for d in dicts:
        raw, lossy = (samplers[f"{f} disk cache"].tiles.read_image(d).astype(np.float32) for f in ("raw", "jpeg"))
        psnr.append(10 * np.log10(255**2 / max(np.mean((raw - lossy) ** 2), 1e-9)))
    sizes = [sum(p.stat().st_size for p in cache_dir.glob(f"{f}-*/*/*")) for f in ("jpeg", "raw")]
    return (
        f"PSNR {np.mean(psnr):.1f} dB on average, {min(psnr):.1f} at worst, {sizes[0] / sizes[1]:.1%} of the raw size"
    )


def measure_memory_slope(loader: DataLoader, num_batches: int = 2000) -> float:
    """Measure by how many KB (1,000 bytes) the memory of a loader's workers grows in 1,000 batches; Linux only.

    A line is fitted to the mean resident memory of the workers over the second half of the batches. The first half is
    left out, because buffers and caches fill in it.

    Args:
        loader: an endless loader that starts its workers when it is iterated over.
    """
    others = set(multiprocessing.active_children())
    batches = iter(loader)
    points = []
    for i in range(num_batches):
        next(batches)
        if i >= num_batches // 2 and i % 10 == 0:
            workers = set(multiprocessing.active_children()) - others
            pages = [int(Path(f"/proc/{worker.pid}/statm").read_text().split()[1]) for worker in workers]
            points.append((i, statistics.mean(pages) * os.sysconf("SC_PAGE_SIZE")))
    x, y = np.array(points, dtype=float).T
    return float(np.polyfit(x, y, 1)[0])


def run_memory_benchmark(num_batches: int = 2000) -> Iterator[str]:
    """Yield a line on how much the memory of data workers grows while they make mosaics of tiny images.

    The workers' list of dataset dicts is as long as that of the challenge's training set.
    """
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN = [64, 64]
    cfg.SOLVER.IMS_PER_BATCH = 2
    cfg.DATALOADER.NUM_WORKERS = 2
    with tempfile.TemporaryDirectory(prefix="parking-benchmark-") as folder:
        path = os.path.join(folder, "a.png")
        cv2.imwrite(path, np.zeros((36, 64, 3), np.uint8))
        annotations = [{"bbox": [5, 5, 20, 20], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}] * 5
        record = {"file_name": path, "height": 36, "width": 64, "annotations": annotations}
        dicts = [{**record, "image_id": i} for i in range(24650)]
        slope = measure_memory_slope(build_train_loader(cfg, dicts, seed=_SEED), num_batches)
    yield f"resident memory of each of 2 workers: {slope:+.0f} KB per 1,000 batches, over {num_batches}"


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])
