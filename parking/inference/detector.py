"""Call models on pictures in memory or on image files: :class:`Detector` is the Python interface of the package."""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from detectron2.structures import Instances
from PIL import Image
from torch import nn

from parking.checkpoint import Weights, read_weights
from parking.config import CfgNode, Task
from parking.data.dataset_mapper import TestDatasetMapper
from parking.data.decoding.kinds import FORMATS
from parking.data.decoding.orientation import IGNORE, turn
from parking.data.decoding.pillow import read_orientation
from parking.data.image_io import read_image
from parking.inference.models import (
    check_config,
    choose_inference_classes,
    find_config_and_weights,
    find_fitting_config,
    resolve_device,
)
from parking.modeling import DetectionFusion
from parking.utils.errors import UserError

from .build import build_inference_model
from .image_detections import ImageDetections
from .runner import detect, find_batch_size, inference_settings, run_ahead

_COCO_CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "coco"

#: What :class:`Detector` takes as an image.
ImageLike: TypeAlias = str | os.PathLike | np.ndarray | Image.Image


class ArrayDetector:
    """Finds objects in pictures with one model, or with several models whose detections it fuses."""

    def __init__(self, cfgs: Sequence, models: Sequence[nn.Module]):
        """
        Args:
            cfgs: one for each model; the first one says how the detections of several models are fused.
            models: from :func:`.build.build_inference_model`, all with the same classes in the same order.
        """
        self._cfgs = list(cfgs)
        self._models = list(models)
        self._mappers = [TestDatasetMapper(cfg) for cfg in cfgs]
        self._fuse = DetectionFusion(cfgs[0]) if len(self._models) > 1 else None

    def __call__(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """
        Args:
            images: each (H, W, 3) uint8 RGB; they are padded to a common size.

        Returns:
            For each image its detections on the CPU, by descending score, with ``pred_boxes`` in pixels of the image.
        """
        with inference_settings(self._cfgs[0], len(images)):
            return self._detect(images)

    def detect_ahead(self, batches: Iterable[Sequence[np.ndarray]]) -> Iterator[list[Instances]]:
        """Yield the detections in each batch; a GPU computes two batches at once (:func:`.runner.run_ahead`)."""
        # A CUDA stream belongs to one device. If the models are on several, work on one batch at a time, as on a CPU.
        devices = {next(model.parameters()).device for model in self._models}
        device = devices.pop() if len(devices) == 1 else torch.device("cpu")
        with inference_settings(self._cfgs[0], find_batch_size(self._cfgs[0])):
            for _, found in run_ahead(self._detect, batches, device):
                yield found

    def _detect(self, images: Sequence[np.ndarray]) -> list[Instances]:
        opinions = []
        for model, mapper in zip(self._models, self._mappers, strict=True):
            found = detect(model, [mapper.prepare(image) for image in images])
            opinions.append([instances.to("cpu") for instances in found])
        return opinions[0] if self._fuse is None else self._fuse(opinions)


class Detector:
    """Finds objects in pictures, and returns the same results as ``tools/infer.py`` for the same files.

    It runs on one device, in the calling thread, one image at a time. It changes neither settings of PyTorch, OpenCV or
    logging nor the state of random generators.

    Attributes:
        cfg: the config that the model was built from.
        device: where the model is.
        thing_classes: names of the model's classes.
        category_ids: for each class its id in the COCO json of the data set.
        score_threshold: the lowest score of a detection that is returned.
    """

    def __init__(
        self,
        weights: str | os.PathLike,
        *,
        config_file: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        score_threshold: float = 0.25,
        overrides: Mapping[str, Any] | None = None,
    ):
        """
        Args:
            weights: a file that :func:`parking.checkpoint.read_weights` can read.
            config_file: by default the config that ``weights`` carry; for published weights, which carry none, the file
                of the repository's ``configs/coco`` that fits them.
            device: such as "cpu" or "cuda:1"; by default MODEL.DEVICE of the config, or the CPU where there is no GPU.
            score_threshold: 0..1; detections that score less are left out.
            overrides: config values by their full keys, such as ``{"INPUT.SIZE_TEST": 640}``.

        Raises:
            UserError: something is wrong with a file, with the config, or with ``device``.
            ValueError: ``score_threshold`` is outside 0..1, or ``overrides`` holds a key that is an argument here.
        """
        if not 0 <= score_threshold <= 1:
            raise ValueError(f"score_threshold must lie between 0 and 1, not {score_threshold}")
        overrides = dict(overrides or {})
        for key in {"MODEL.WEIGHTS", "MODEL.DEVICE"} & overrides.keys():
            raise ValueError(f"{key} is an argument of Detector; do not give it in overrides")
        cfg, loaded = _find_config_and_weights(os.fspath(weights), config_file)
        if score_threshold < cfg.MODEL.YOLO.SCORE_THRESH_TEST:
            overrides = {"MODEL.YOLO.SCORE_THRESH_TEST": float(score_threshold), **overrides}
        _merge_overrides(cfg, overrides, device)
        self.cfg = cfg
        self.score_threshold = score_threshold
        self.thing_classes, self.category_ids = choose_inference_classes(cfg, loaded)
        self.device = torch.device(cfg.MODEL.DEVICE)
        # Building a model draws random weights before it loads the given ones; keep the caller's random state.
        with torch.random.fork_rng(devices=[]):
            model = build_inference_model(cfg, loaded, self.thing_classes)
        self._orientation = cfg.INPUT.EXIF_ORIENTATION
        self._detect_arrays = ArrayDetector([cfg], [model])

    def __call__(self, images: ImageLike | Iterable[ImageLike]) -> ImageDetections | list[ImageDetections]:
        """
        Args:
            images: one or many of

                - the path of an image file;
                - an array, (H, W, 3) uint8 **RGB** (give ``image[..., ::-1]`` for an image in OpenCV's BGR);
                - a PIL image with 8 bits a channel, which is converted to RGB without alpha.

                Files and PIL images are turned upright by their EXIF orientation, and boxes refer to the upright
                picture, unless INPUT.EXIF_ORIENTATION is "ignore".

        Returns:
            The detections in the image; for many images, a list with the detections in each.

        Raises:
            UserError: an image file cannot be read.
            TypeError, ValueError: ``images`` holds something other than the three kinds above.
        """
        # Tensors, mappings and bytes are iterable, too, but hold no images.
        if isinstance(images, ImageLike | torch.Tensor | Mapping | bytes) or not isinstance(images, Iterable):
            return self._detect(images, "the image")
        return [self._detect(image, f"images[{i}]") for i, image in enumerate(images)]

    def _detect(self, image: ImageLike, role: str) -> ImageDetections:
        pixels = _get_pixels(image, role, self._orientation)
        (found,) = self._detect_arrays([pixels])
        source = pixels
        if isinstance(image, str | os.PathLike):
            # Keep a function that reads the file again when needed: the pixels of many files would fill the memory.
            source = functools.partial(read_image, image, orientation=self._orientation)
        return ImageDetections.from_instances(
            found,
            min_score=self.score_threshold,
            thing_classes=self.thing_classes,
            category_ids=self.category_ids,
            image_source=source,
        )


def _find_config_and_weights(path: str, config_file) -> tuple[CfgNode, Weights]:
    if config_file is not None:
        config_file = os.fspath(config_file)
        return find_config_and_weights(config_file, path, [], default_config=config_file)
    weights = read_weights(path)
    return find_fitting_config(weights, None, candidates=sorted(_COCO_CONFIGS.glob("*.yaml")))[0], weights


def _merge_overrides(cfg: CfgNode, overrides: Mapping[str, Any], device: str | torch.device | None) -> None:
    for key, value in overrides.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        cfg.merge_from_dict(value, source="overrides")
    if device is not None:
        cfg.MODEL.DEVICE = str(device)
    check_config(cfg, Task.INFER)
    resolve_device(cfg)
    if device is not None and str(device) != cfg.MODEL.DEVICE:
        raise UserError(f"device {str(device)!r}: PyTorch finds no GPU here; give 'cpu', or no device.")


def _get_pixels(image: object, role: str, orientation: str) -> np.ndarray:
    """Return the image as (H, W, 3) uint8 RGB; error messages call the image ``role``."""
    if isinstance(image, str | os.PathLike):
        return read_image(image, orientation=orientation)
    if isinstance(image, Image.Image):
        image = _convert_pil(image, role, orientation)
    if not isinstance(image, np.ndarray):
        raise TypeError(
            f"{role} is a {type(image).__name__}; give a path, a uint8 RGB array of shape (H, W, 3) or a PIL image"
        )
    if image.dtype != np.uint8:
        raise ValueError(f"{role} is an array of {image.dtype}; give uint8 values of 0..255 in RGB order")
    if image.ndim != 3 or image.shape[2] != 3 or not image.size:
        several = "; give several images as a list" if image.ndim == 4 else ""
        raise ValueError(f"{role} is an array of shape {image.shape}; give (H, W, 3) in RGB order{several}")
    return image


def _convert_pil(image: Image.Image, role: str, orientation: str) -> np.ndarray:
    # Refuse other formats before Pillow decodes the file, because for some formats it would start another program.
    if image.format is not None and image.format not in (*FORMATS, "MPO", "DIB"):
        raise ValueError(f"{role} is a PIL image of the format {image.format}; save it as PNG first")
    # Refuse modes with more than 8 bits, whose values Pillow would clip at 255.
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{role} is a PIL image of mode {image.mode}; give one with 8 bits a channel, or its file")
    try:
        pixels = np.array(image.convert("RGB"))
        # Read the orientation only after decoding: Pillow has then turned a TIFF by itself and dropped its orientation.
        turned = 1 if orientation == IGNORE else read_orientation(image)
        return turn(pixels, turned)
    except OSError as e:  # Pillow decodes the file only in convert()
        name = getattr(image, "filename", "")
        raise UserError(f"{role}{f', {name},' if name else ''} cannot be decoded: {e}.") from e
