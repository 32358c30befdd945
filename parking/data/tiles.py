"""Read images and boxes of the training set, resized to fit a training sample: the tiles that mosaics are made of."""

import numpy as np
from detectron2.structures import BoxMode

from parking.data.annotations import get_training_annotations
from parking.data.cache import ImageCache
from parking.data.decoding.orientation import AUTO
from parking.data.image_io import (
    check_stated_size,
    compute_resized_sides,
    decode_image,
    get_reading_options,
    name_variant,
    read_image_file,
)
from parking.data.transforms.letterbox import LetterboxTransform, resize_to_fit
from parking.data.transforms.warp import clip_boxes


class TileReader:
    """Reads images at training size, through a cache if there is one.

    A tile is an image resized to fit into ``size``, before anything random. The cache holds tiles, so samples have the
    same pixels with and without it, except for losses by compression.
    """

    def __init__(self, size: tuple[int, int], cache: ImageCache | None = None, exif_orientation: str = AUTO):
        """
        Args:
            size: height and width in pixels of a sample.
            cache: made for the same size.
            exif_orientation: INPUT.EXIF_ORIENTATION.
        """
        self._size = size
        self._cache = cache
        self._orientation = exif_orientation

    def measure(self, dataset_dict: dict) -> tuple[int, int]:
        """Return (height, width) of the image at training size in pixels, without reading the file."""
        return compute_resized_sides(dataset_dict["height"], dataset_dict["width"], *self._size)

    def read_image(self, dataset_dict: dict) -> np.ndarray:
        """Return the image at training size, uint8 (h, w, 3) RGB; the caller must not change it.

        Raises:
            UnreadableImageError: names an image that cannot be read or does not have the size in the dict.
        """
        path, options = dataset_dict["file_name"], get_reading_options(dataset_dict, self._orientation)
        if self._cache is None:
            return self._load(read_image_file(path), path, options)[0]
        variant = name_variant(dataset_dict, self._orientation)
        image, size = self._cache.fetch(path, lambda data: self._load(data, path, options), variant=variant)
        check_stated_size(path, size, options["stated"])
        return image

    def read_boxes(self, dataset_dict: dict) -> tuple[np.ndarray, np.ndarray]:
        """Return the boxes to train on, scaled to training size, float (N, 4) XYXY_ABS, and their classes, (N,)."""
        h, w = dataset_dict["height"], dataset_dict["width"]
        annotations = get_training_annotations(dataset_dict)
        boxes = np.array([a["bbox"] for a in annotations], dtype=np.float64).reshape(-1, 4)
        modes = np.array([a["bbox_mode"] for a in annotations])
        for mode in set(modes.tolist()):
            boxes[modes == mode] = BoxMode.convert(boxes[modes == mode], BoxMode(mode), BoxMode.XYXY_ABS)
        classes = np.array([a["category_id"] for a in annotations], dtype=np.int64)
        transform = LetterboxTransform(h, w, *self.measure(dataset_dict))
        return transform.apply_box(clip_boxes(boxes, h, w)), classes

    def _load(self, data, path, options) -> tuple[np.ndarray, tuple[int, int]]:
        image = decode_image(data, path, **options)
        return resize_to_fit(image, self._size), image.shape[:2]
