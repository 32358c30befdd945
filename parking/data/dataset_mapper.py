"""Map dataset dicts to the input of the model."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from detectron2.config import configurable
from detectron2.data.transforms import AugInput, Augmentation, AugmentationList
from detectron2.structures import Boxes, Instances

from parking.data.cache import ImageCache, build_cache
from parking.data.checking.findings import KINDS, LEAVE_OUT
from parking.data.decoding.orientation import AUTO
from parking.data.image_io import UnreadableImageError, read_listed_image
from parking.data.tiles import TileReader
from parking.data.transforms.color import RandomHSV
from parking.data.transforms.flip import RandomFlip
from parking.data.transforms.letterbox import pad_to_size, resize_to_fit
from parking.data.transforms.mosaic import blend_images, compute_tile_offset, crop_to_canvas, place_boxes
from parking.data.transforms.warp import RandomPerspective, clip_boxes, find_box_candidates
from parking.utils.constants import PAD_VALUE
from parking.utils.errors import UserError

_TILES_PER_MOSAIC = 4
# Give up after this many consecutive unreadable images.
_MAX_REPLACEMENTS = 100
# Both parameters of the Beta distribution from which mixup draws its ratio.
_MIXUP_BETA = 32.0


class Sample(NamedTuple):
    """A training sample before it becomes tensors.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        boxes: float (N, 4), XYXY_ABS.
        classes: int (N,).
        unreadable: names of files that the sample should have used, but that cannot be read.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    unreadable: tuple[str, ...] = ()


class TrainDatasetMapper:
    """Makes one training sample, usually a mosaic, from a dataset dict and other dicts that it draws itself.

    Everything random depends only on the seed and the sample's position in the stream, not on the worker, the process
    or earlier samples.
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
        policy: str = "strict",
        cache: ImageCache | None = None,
        exif_orientation: str = AUTO,
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
            strong_end: first position in the stream without mosaics and mixup; None: they never end.
            policy: "strict": an image that cannot be used is an error; "repair": another image replaces it.
            cache: keeps the images after they are resized to fit into ``size``; None: there is no cache.
            exif_orientation: INPUT.EXIF_ORIENTATION; a dict's own ``exif_orientation`` overrides it.
        """
        self.dataset = dataset
        self.size = size
        self.mosaic_prob = mosaic_prob
        self.mixup_prob = mixup_prob
        self.tiles = TileReader(size, cache, exif_orientation)
        self.warp = warp
        self.augmentations = AugmentationList(augmentations)
        self.seed = seed
        self.strong_end = strong_end
        self.policy = policy

    @classmethod
    def from_config(cls, cfg, dataset: Sequence[dict], *, seed: int) -> dict[str, Any]:
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
            "policy": cfg.DATASETS.POLICY,
            "cache": build_cache(cfg, dataset),
            "exif_orientation": cfg.INPUT.EXIF_ORIENTATION,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Args:
            dataset_dict: detectron2's standard dict with the additional key ``position`` (in the stream, 0..).

        Returns:
            ``image`` uint8 tensor (3, H, W), RGB; ``instances`` with ``gt_boxes`` (inside the image) and
            ``gt_classes``, possibly empty; and ``file_name``, ``image_id``, ``height``, ``width``, ``position`` of the
            dict itself, whatever images were used. If images were replaced, also ``unreadable``, a list of their file
            names.

        Raises:
            UserError: names an image that is unreadable, does not have the size in the dict, or has no room in the
                cache.
        """
        rng = get_sample_rng(self.seed, dataset_dict["position"])
        is_strong = self.strong_end is None or dataset_dict["position"] < self.strong_end
        if rng.random() < self.mosaic_prob and is_strong:
            sample = self._make_mosaic(dataset_dict, rng)
            if rng.random() < self.mixup_prob:
                other = self._make_mosaic(self._draw_partner(rng), rng)
                sample = _mix(sample, other, rng.beta(_MIXUP_BETA, _MIXUP_BETA))
        else:
            sample = self._make_single(dataset_dict, rng)
        aug_input = AugInput(sample.image, boxes=sample.boxes)
        # detectron2 passes ``aug_input.rng`` to the argument ``rng`` of an augmentation's ``get_transform``. Our
        # augmentations draw from it, because numpy's global state depends on what the worker did before.
        aug_input.rng = rng
        self.augmentations(aug_input)
        result = {
            **{key: dataset_dict[key] for key in ("file_name", "image_id", "height", "width", "position")},
            "image": _to_tensor(aug_input.image),
            "instances": _to_instances(aug_input.boxes, sample.classes, self.size),
        }
        return {**result, "unreadable": list(sample.unreadable)} if sample.unreadable else result

    def _draw_partner(self, rng) -> dict:
        return self.dataset[int(rng.integers(len(self.dataset)))]

    def _make_single(self, dataset_dict, rng) -> Sample:
        dataset_dict, tile, unreadable = self._read_or_replace(dataset_dict, rng)
        transform = self.warp.draw(*self.size, rng)
        boxes, classes = self.tiles.read_boxes(dataset_dict)
        image = transform.apply_image(pad_to_size(tile, self.size))
        return self._finish(image, boxes, classes, transform, unreadable)

    def _make_mosaic(self, dataset_dict, rng) -> Sample:
        h, w = self.size
        centre = int(rng.uniform(w / 2, 3 * w / 2)), int(rng.uniform(h / 2, 3 * h / 2))
        dicts = [dataset_dict] + [self._draw_partner(rng) for _ in range(_TILES_PER_MOSAIC - 1)]
        transform = self.warp.draw(2 * h, 2 * w, rng)
        # If the tiles stay upright, paint each one straight into the sample; otherwise paste the tiles on
        # a canvas and warp the canvas, which takes longer.
        is_upright = transform.is_upright
        image = np.full((h, w, 3) if is_upright else (2 * h, 2 * w, 3), PAD_VALUE, dtype=np.uint8)
        unreadable = ()
        for i in range(_TILES_PER_MOSAIC):
            is_visible = functools.partial(self._is_visible, i, centre=centre, transform=transform)
            dicts[i], tile, names = self._read_or_replace(dicts[i], rng, is_visible)
            unreadable += names
            if tile is not None:
                # The tile is not padded, because the gray would lie between the picture and the mosaic's centre.
                part, (x, y) = crop_to_canvas(tile, self._place(i, dicts[i], centre), self.size)
                if is_upright:
                    transform.paint(part, (x, y), image)
                else:
                    image[y : y + part.shape[0], x : x + part.shape[1]] = part
        if not is_upright:
            image = transform.apply_image(image)
        placed = [self._place_boxes(i, d, centre) for i, d in enumerate(dicts)]
        return self._finish(image, *map(np.concatenate, zip(*placed, strict=True)), transform, unreadable)

    def _read_or_replace(self, dataset_dict, rng, is_visible=lambda _: True):
        """Read a dict's image, trying others while it is unreadable; return dict, image and names of unreadable files.

        Under "repair", a dict whose image cannot be used is replaced by one drawn from ``rng``. If ``is_visible`` of a
        dict is False, its image is not read and the tile is None.
        """
        unreadable = []
        while True:
            try:
                tile = self.tiles.read_image(dataset_dict) if is_visible(dataset_dict) else None
                return dataset_dict, tile, tuple(unreadable)
            except UnreadableImageError as e:
                if KINDS[e.kind].action(self.policy) != LEAVE_OUT:
                    raise
                unreadable.append(dataset_dict["file_name"])
                if len(unreadable) == _MAX_REPLACEMENTS:
                    message = f"{_MAX_REPLACEMENTS} consecutive training images could not be read. The last error: {e}"
                    raise UserError(message) from e
            dataset_dict = self._draw_partner(rng)

    def _place(self, i, dataset_dict, centre) -> tuple[int, int]:
        return compute_tile_offset(i, self.tiles.measure(dataset_dict), centre)

    def _is_visible(self, i, dataset_dict, *, centre, transform) -> bool:
        if not transform.is_upright:
            return True
        (h, w), (x, y) = self.tiles.measure(dataset_dict), self._place(i, dataset_dict, centre)
        x0, y0, x1, y1 = transform.find_pixels(place_boxes(np.array([[0, 0, w, h]]), (x, y), self.size))
        return x0 < x1 and y0 < y1

    def _place_boxes(self, i, dataset_dict, centre) -> tuple[np.ndarray, np.ndarray]:
        boxes, classes = self.tiles.read_boxes(dataset_dict)
        return place_boxes(boxes, self._place(i, dataset_dict, centre), self.size), classes

    def _finish(self, image, boxes, classes, transform, unreadable) -> Sample:
        mapped = clip_boxes(transform.apply_box(boxes), *self.size)
        keep = find_box_candidates(boxes, mapped, transform.scale)
        return Sample(image, mapped[keep], classes[keep], unreadable)


def get_sample_rng(seed: int, position: int) -> np.random.Generator:
    """Return the generator for the sample at a position of the training stream."""
    # The third number makes these generators differ from the sampler's, whose seeds are two numbers.
    return np.random.default_rng([seed, position, 1])


class TestDatasetMapper:
    """Reads an image and resizes its long side; the model pads it and scales the boxes back."""

    # Keeps pytest from collecting this class by its name.
    __test__ = False

    @configurable
    def __init__(self, *, size: int, exif_orientation: str = AUTO):
        """
        Args:
            size: length in pixels to which the long side of an image is resized.
            exif_orientation: INPUT.EXIF_ORIENTATION; a dict's own ``exif_orientation`` overrides it.
        """
        self.size = (size, size)
        self.exif_orientation = exif_orientation

    @classmethod
    def from_config(cls, cfg) -> dict[str, Any]:
        return {"size": cfg.INPUT.SIZE_TEST, "exif_orientation": cfg.INPUT.EXIF_ORIENTATION}

    def __call__(self, dataset_dict: dict) -> dict:
        """
        Args:
            dataset_dict: ``file_name`` and ``image_id``; ``height`` and ``width`` are checked if they are given.

        Returns:
            The dict without its annotations, with ``height`` and ``width`` of the picture (as EXIF's orientation turns
            it, if that is applied) and ``image``, uint8 tensor (3, H, W), RGB, resized. For an image that is unreadable
            or does not have the size in the dict: ``file_name``, ``image_id`` and ``error``, a sentence.
        """
        try:
            image = read_listed_image(dataset_dict, self.exif_orientation)
        except UserError as e:
            return {"file_name": dataset_dict["file_name"], "image_id": dataset_dict["image_id"], "error": str(e)}
        rest = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        return {**rest, **self.prepare(image)}

    def prepare(self, image: np.ndarray) -> dict:
        """Return ``image``, ``height`` and ``width`` as :meth:`__call__` does, for an (H, W, 3) uint8 RGB array."""
        height, width = image.shape[:2]
        return {"height": height, "width": width, "image": _to_tensor(resize_to_fit(image, self.size))}


def _mix(first: Sample, second: Sample, ratio: float) -> Sample:
    return Sample(
        blend_images(first.image, second.image, ratio),
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.classes, second.classes]),
        first.unreadable + second.unreadable,
    )


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    planes = np.empty((3, *image.shape[:2]), dtype=np.uint8)
    # cv2.split is several times faster than copying the transposed image.
    cv2.split(image, list(planes))
    return torch.from_numpy(planes)


def _to_instances(boxes: np.ndarray, classes: np.ndarray, size: tuple[int, int]) -> Instances:
    instances = Instances(size)
    instances.gt_boxes = Boxes(torch.from_numpy(boxes.astype(np.float32)))
    instances.gt_classes = torch.from_numpy(classes)
    return instances
