"""Read pictures and boxes of a data set to draw them: as they are annotated, or as they are trained on."""

import itertools
import random
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.structures import BoxMode

from .build import build_train_loader
from .image_io import UnreadableImageError, read_listed_image


class AnnotatedPicture(NamedTuple):
    """A picture (H, W, 3) uint8 RGB with N boxes XYXY_ABS and their class ids."""

    file_name: str
    pixels: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


def read_annotated_images(
    cfg: CfgNode, dataset_dicts: list[dict], num_images: int, unreadable: list[str]
) -> Iterator[AnnotatedPicture]:
    """Yield images spread evenly over the data set; append a sentence about each unreadable one to ``unreadable``."""
    # Spread the images, because the first few would all look alike in a data set that begins with a video.
    for record in (dataset_dicts[k] for k in sorted({i * len(dataset_dicts) // num_images for i in range(num_images)})):
        try:
            pixels = read_listed_image(record, cfg.INPUT.EXIF_ORIENTATION)
        except UnreadableImageError as e:
            unreadable.append(str(e))
            continue
        boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in record["annotations"]]
        classes = [a["category_id"] for a in record["annotations"]]
        yield AnnotatedPicture(record["file_name"], pixels, np.array(boxes), np.array(classes))


def read_training_samples(
    cfg: CfgNode, dataset_dicts: list[dict], num_images: int, unreadable: list[str]
) -> Iterator[AnnotatedPicture]:
    """Yield the first samples that a training makes; append to ``unreadable`` the file names of unreadable images."""
    # Workers would make the same samples, but also many batches ahead that nobody looks at.
    cfg.DATALOADER.NUM_WORKERS = 0
    loader = build_train_loader(cfg, dataset_dicts, seed=cfg.SEED if cfg.SEED >= 0 else random.randrange(2**31))
    for sample in itertools.islice(itertools.chain.from_iterable(loader), num_images):
        unreadable += sample.get("unreadable", [])
        pixels, instances = sample["image"].permute(1, 2, 0).contiguous().numpy(), sample["instances"]
        boxes, classes = instances.gt_boxes.tensor.numpy(), instances.gt_classes.numpy()
        yield AnnotatedPicture(sample["file_name"], pixels, boxes, classes)
