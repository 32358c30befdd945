"""Measure the time and memory that loading a made-up data set of the challenge's size takes."""

import gc
import json
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from parking.challenge.classes import CLASS_NAMES
from parking.challenge.registration import register_datasets_from_config
from parking.config import get_cfg
from parking.data.build import load_train_dicts
from parking.engine.resume import digest_dataset
from parking.synthetic.names import DAYTIME, LOCATION, REGIONS, SIDES, WEATHER, FrameName
from parking.utils.constants import PARKING_DATASETS

# Rough frequency of each class: sedans and adults are common, school buses and strollers rare.
_WEIGHTS = (500, 220, 90, 12, 3, 110, 25, 320, 40, 45, 8, 30, 6, 15)
# Longest sequence of images, in frames.
_MAX_FRAMES = 60


def run_load_benchmark(num_images: int = 24650, num_boxes: int = 134741) -> Iterator[str]:
    """Make a data set of empty image files in a temporary folder, and load it in this process as a training does.

    Yields:
        Lines to print: for each step its seconds, and by how many MB (10^6 bytes) it raised the process's peak memory.
    """
    cfg = get_cfg()
    with tempfile.TemporaryDirectory() as root:
        write_fake_dataset(root, num_images, num_boxes)
        yield f"{num_images} images, {num_boxes} boxes"
        cfg.DATASETS.ROOT = root
        dicts: dict[str, list[dict]] = {}

        def load() -> None:
            register_datasets_from_config(cfg)
            dicts["train"] = load_train_dicts(cfg)
            dicts["val"] = DatasetCatalog.get("parking_val")

        yield _measure("register, load and split", load)
        yield _measure("get parking_train again", lambda: DatasetCatalog.get("parking_train"))
        yield _measure("digest for --resume", lambda: [digest_dataset(part) for part in dicts.values()])
        for name in PARKING_DATASETS:
            DatasetCatalog.pop(name)
            MetadataCatalog.pop(name)


def write_fake_dataset(root: str, num_images: int, num_boxes: int) -> None:
    """Write a folder ``train`` in the challenge's layout (``datasets/README.md``); the images are empty files."""
    generator = random.Random(0)
    names = make_names(num_images, generator)
    images = [{"id": i, "file_name": name, "width": 1920, "height": 1080} for i, name in enumerate(names, start=1)]
    annotations = []
    for i in range(1, num_boxes + 1):
        w, h = generator.uniform(10, 400), generator.uniform(10, 300)
        box = [round(v, 2) for v in (generator.uniform(0, 1920 - w), generator.uniform(0, 1080 - h), w, h)]
        image_id, category_id = generator.randint(1, num_images), generator.choices(range(1, 15), _WEIGHTS)[0]
        annotation = {"id": i, "image_id": image_id, "category_id": category_id, "bbox": box}
        annotations.append({**annotation, "area": round(w * h, 2), "iscrowd": 0})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)]
    for folder in ("images", "label"):
        os.makedirs(os.path.join(root, "train", folder))
    for name in names:
        open(os.path.join(root, "train", "images", name), "xb").close()
    with open(os.path.join(root, "train", "label", "Train.json"), "x", encoding="utf-8") as f:
        json.dump({"images": images, "annotations": annotations, "categories": categories}, f, ensure_ascii=False)


def make_names(num_images: int, generator: random.Random) -> list[str]:
    """Make file names like the challenge's: sequences of up to 60 frames, one a second, under random conditions."""
    names: list[str] = []
    for sequence in range(num_images):
        date = f"2020{generator.randint(6, 12):02d}{generator.randint(1, 28):02d}"
        region, *words = (generator.choice(list(words)) for words in (REGIONS, WEATHER, DAYTIME, LOCATION, SIDES))
        first = FrameName(date, region, "-", "-", *words, sequence, generator.randrange(100_000))
        names += [str(replace(first, frame=first.frame + 30 * k)) for k in range(generator.randint(1, _MAX_FRAMES))]
        if len(names) >= num_images:
            break
    return names[:num_images]


def _measure(title: str, function: Callable[[], Any]) -> str:
    gc.collect()
    before, start = _peak_memory(), time.perf_counter()
    function()
    seconds = time.perf_counter() - start
    return f"{title:26}{seconds:6.2f} s{(_peak_memory() - before) / 1e6:6.0f} MB more at the peak"


def _peak_memory() -> int:
    """Return the largest resident memory that this process has had so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
