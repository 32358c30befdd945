"""From dataset dicts to what the model takes.

A sample, inside this module, is an image (uint8 (H, W, 3), RGB), its boxes (float (N, 4), XYXY_ABS) and their classes
(int (N,)).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList
from detectron2.structures import Boxes, BoxMode, Instances

from parking.data.annotations import get_training_annotations
from parking.data.image_io import read_image
from parking.data.transforms import (
    PadToSize,
    RandomAugInput,
    RandomFlip,
    RandomHSV,
    RandomPerspective,
    ResizeToFit,
    blend_images,
    clip_boxes,
    compose_mosaic,
    find_box_candidates,
    get_sample_rng,
)
from parking.utils.errors import UserError

_TILES_PER_MOSAIC = 4
# Both parameters of the Beta distribution that mixup draws its ratio from.
_MIXUP_BETA = 32.0


class Sample(NamedTuple):
    """See the module's docstring."""

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


class TrainDatasetMapper:
    """Makes one training sample, as a mosaic, out of a dataset dict and others that it draws itself.

    It owns the data set to draw from. Everything random depends on the seed and the sample's position in the stream
    alone: not on the worker, the process or the samples before.
    """

    @configurable
    def __init__(
        self,
        *,
        dataset: Sequence[dict],
        size: tuple[int, int],
        mosaic_prob: float,
        mixup_prob: float,
        warp: RandomPerspective,
        augmentations: list[Augmentation],
        seed: int,
        strong_end: int | None = None,
    ):
        """
        Args:
            dataset: the dataset dicts that mosaics draw from.
            size: height and width in pixels of a sample.
            mosaic_prob: probability that a sample is a mosaic of four images.
            mixup_prob: probability that a mosaic is blended with a second one.
            warp: the map from a mosaic's canvas (or one letterboxed image) to ``size``.
            augmentations: applied to the result; they draw from the ``rng`` of their input and keep the image's size.
            seed: not negative.
            strong_end: position in the stream from which on there are no mosaics and so no mixup; None: there always
                are.
        """
        self.dataset = dataset
        self.size = size
        self.mosaic_prob = mosaic_prob
        self.mixup_prob = mixup_prob
        self.fit = ResizeToFit(size)
        self.pad = PadToSize(size)
        self.warp = warp
        self.augmentations = AugmentationList(augmentations)
        self.seed = seed
        self.strong_end = strong_end

    @classmethod
    def from_config(cls, cfg, dataset: Sequence[dict], *, seed: int) -> dict[str, Any]:
        _check_augmentation_config(cfg)
        aug = cfg.INPUT.AUG
        size = tuple(cfg.INPUT.SIZE_TRAIN)
        strong_end = (cfg.SOLVER.MAX_ITER - aug.STRONG_OFF_ITERS) * cfg.SOLVER.IMS_PER_BATCH
        return {
            "dataset": dataset,
            "size": size,
            "mosaic_prob": aug.MOSAIC_PROB,
            "mixup_prob": aug.MIXUP_PROB,
            "warp": RandomPerspective(
                size,
                degrees=aug.DEGREES,
                translate=aug.TRANSLATE,
                scale=aug.SCALE,
                shear=aug.SHEAR,
                perspective=aug.PERSPECTIVE,
            ),
            "augmentations": [
                RandomHSV(aug.HSV_H, aug.HSV_S, aug.HSV_V),
                RandomFlip(aug.FLIP_UD_PROB, vertical=True),
                RandomFlip(aug.FLIP_LR_PROB),
            ],
            "seed": seed,
            "strong_end": strong_end if aug.STRONG_OFF_ITERS else None,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Args:
            dataset_dict: detectron2's standard dict with the further key ``position`` (in the stream, 0..).

        Returns:
            ``image`` uint8 tensor (3, H, W), RGB; ``instances`` with ``gt_boxes`` (inside the image) and
            ``gt_classes``, possibly none; and ``file_name``, ``image_id``, ``height``, ``width``, ``position`` of the
            dict itself.

        Raises:
            UserError: naming an image that is unreadable or not of the size the dict states.
        """
        rng = get_sample_rng(self.seed, dataset_dict["position"])
        if rng.random() < self.mosaic_prob and self._is_strong(dataset_dict["position"]):
            sample = self._make_mosaic(dataset_dict, rng)
            if rng.random() < self.mixup_prob:
                other = self._make_mosaic(self._draw_partner(rng), rng)
                sample = _mix(sample, other, rng.beta(_MIXUP_BETA, _MIXUP_BETA))
        else:
            sample = self._warp(self._read_tile(dataset_dict, self.fit, self.pad), rng)
        aug_input = RandomAugInput(sample.image, boxes=sample.boxes, rng=rng)
        self.augmentations(aug_input)
        return {
            **{key: dataset_dict[key] for key in ("file_name", "image_id", "height", "width", "position")},
            "image": _to_tensor(aug_input.image),
            "instances": _to_instances(aug_input.boxes, sample.classes, self.size),
        }

    def _is_strong(self, position) -> bool:
        return self.strong_end is None or position < self.strong_end

    def _draw_partner(self, rng) -> dict:
        return self.dataset[int(rng.integers(len(self.dataset)))]

    def _read_tile(self, dataset_dict, *resizing: Augmentation) -> Sample:
        sample = _read_sample(dataset_dict)
        aug_input = AugInput(sample.image, boxes=sample.boxes)
        AugmentationList(resizing)(aug_input)
        return Sample(aug_input.image, aug_input.boxes, sample.classes)

    def _make_mosaic(self, dataset_dict, rng) -> Sample:
        h, w = self.size
        centre = int(rng.uniform(w / 2, 3 * w / 2)), int(rng.uniform(h / 2, 3 * h / 2))
        dicts = [dataset_dict] + [self._draw_partner(rng) for _ in range(_TILES_PER_MOSAIC - 1)]
        # Not padded: the gray would come between the pictures and the centre.
        tiles = [self._read_tile(d, self.fit) for d in dicts]
        canvas, boxes = compose_mosaic([t.image for t in tiles], [t.boxes for t in tiles], centre, self.size)
        return self._warp(Sample(canvas, np.concatenate(boxes), np.concatenate([t.classes for t in tiles])), rng)

    def _warp(self, sample, rng) -> Sample:
        transform = self.warp.get_transform(sample.image, rng)
        boxes = clip_boxes(transform.apply_box(sample.boxes), *self.size)
        keep = find_box_candidates(sample.boxes, boxes, transform.scale)
        return Sample(transform.apply_image(sample.image), boxes[keep], sample.classes[keep])


class TestDatasetMapper:
    """Reads an image and resizes its long side; the model pads and scales the boxes back."""

    # Keeps pytest from collecting a class of this name.
    __test__ = False

    @configurable
    def __init__(self, *, size: int, report_errors: bool = False):
        """
        Args:
            size: long side in pixels of what the model sees.
            report_errors: return an unreadable image as a dict with an ``error`` instead of raising.
        """
        self.resize = ResizeToFit((size, size))
        self.report_errors = report_errors

    @classmethod
    def from_config(cls, cfg, *, report_errors: bool = False) -> dict[str, Any]:
        if cfg.INPUT.SIZE_TEST < 1:
            raise UserError(f"INPUT.SIZE_TEST {cfg.INPUT.SIZE_TEST} must be a number of pixels above 0.")
        return {"size": cfg.INPUT.SIZE_TEST, "report_errors": report_errors}

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Args:
            dataset_dict: ``file_name`` and ``image_id``; ``height`` and ``width`` are checked where they are there.

        Returns:
            The dict without its annotations, with ``height`` and ``width`` of the file and ``image``, uint8 tensor
            (3, H, W), RGB, resized. With ``report_errors``, for an image that cannot be used: ``file_name``,
            ``image_id`` and ``error``, a sentence.

        Raises:
            UserError: naming the image that is unreadable or not of the size the dict states.
        """
        try:
            image = _read_checked(dataset_dict)
        except UserError as e:
            if not self.report_errors:
                raise
            return {"file_name": dataset_dict["file_name"], "image_id": dataset_dict["image_id"], "error": str(e)}
        height, width = image.shape[:2]
        image = self.resize.get_transform(image).apply_image(image)
        rest = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        return {**rest, "height": height, "width": width, "image": _to_tensor(image)}


def _read_checked(dataset_dict) -> np.ndarray:
    image = read_image(dataset_dict["file_name"])
    height, width = image.shape[:2]
    expected = dataset_dict.get("height", height), dataset_dict.get("width", width)
    if (height, width) != expected:
        raise UserError(
            f"The image '{dataset_dict['file_name']}' has {width} x {height} pixels, but its json says "
            f"{expected[1]} x {expected[0]}; correct the json, or remove width and height from it."
        )
    return image


def _read_sample(dataset_dict) -> Sample:
    image = _read_checked(dataset_dict)
    annotations = get_training_annotations(dataset_dict)
    boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
    modes = np.array([a["bbox_mode"] for a in annotations])
    for mode in set(modes.tolist()):
        boxes[modes == mode] = BoxMode.convert(boxes[modes == mode], BoxMode(mode), BoxMode.XYXY_ABS)
    classes = np.array([a["category_id"] for a in annotations], dtype=np.int64)
    return Sample(image, clip_boxes(boxes, *image.shape[:2]), classes)


def _mix(first: Sample, second: Sample, ratio: float) -> Sample:
    return Sample(
        blend_images(first.image, second.image, ratio),
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.classes, second.classes]),
    )


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def _to_instances(boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int]) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    instances.gt_classes = torch.from_numpy(classes)
    return instances


def _check_augmentation_config(cfg) -> None:
    aug = cfg.INPUT.AUG
    for key in ("MOSAIC_PROB", "MIXUP_PROB", "FLIP_LR_PROB", "FLIP_UD_PROB", "HSV_H", "HSV_S", "HSV_V"):
        if not 0 <= aug[key] <= 1:
            raise UserError(f"INPUT.AUG.{key} {aug[key]} must lie between 0 and 1.")
    for key, limit in (("SCALE", 1), ("TRANSLATE", 1), ("SHEAR", 90), ("DEGREES", 360), ("PERSPECTIVE", 1)):
        if not 0 <= aug[key] < limit:
            raise UserError(f"INPUT.AUG.{key} {aug[key]} must be at least 0 and below {limit}.")
    if not 0 <= aug.STRONG_OFF_ITERS <= cfg.SOLVER.MAX_ITER:
        raise UserError(
            f"INPUT.AUG.STRONG_OFF_ITERS {aug.STRONG_OFF_ITERS} must be at least 0 and at most SOLVER.MAX_ITER "
            f"{cfg.SOLVER.MAX_ITER}."
        )
    size = cfg.INPUT.SIZE_TRAIN
    if len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size):
        raise UserError(f"INPUT.SIZE_TRAIN {size} must be [height, width] in pixels.")
