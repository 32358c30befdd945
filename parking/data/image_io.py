"""Reading images; needs neither torch nor detectron2."""

import os

import cv2
import numpy as np
from PIL import Image

from parking.utils.errors import UserError

# Boxes refer to the pixels as they are stored: no rotation by EXIF, here and in `read_image_size`.
_IMREAD_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


class UnreadableImageError(UserError):
    """An image file that is missing, or that no decoder understands; the message names it."""


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode an image file, whatever its bit depth and number of channels.

    Returns:
        uint8 array of shape (H, W, 3), RGB, contiguous.

    Raises:
        UnreadableImageError: naming the file.
    """
    try:
        # cv2.imread cannot open non-ASCII paths on every system.
        data = np.fromfile(path, dtype=np.uint8)
        image = cv2.imdecode(data, _IMREAD_FLAGS) if data.size else None
    except OSError as e:
        raise UnreadableImageError(f"The image '{path}' cannot be opened: {e.strerror or e}.") from e
    except cv2.error as e:
        raise UnreadableImageError(f"The image '{path}' cannot be decoded: {e.err}.") from e
    if image is None:
        reason = "it is not an image, or damaged" if data.size else "the file is empty"
        raise UnreadableImageError(f"The image '{path}' cannot be decoded: {reason}.")
    return image


def read_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width in pixels as :func:`read_image` will give them, from the file's header alone.

    Raises:
        UnreadableImageError: naming the file.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except FileNotFoundError as e:
        raise UnreadableImageError(f"The image '{path}' cannot be opened: {e.strerror}.") from e
    except (OSError, ValueError, Image.DecompressionBombError) as e:
        raise UnreadableImageError(f"The size of the image '{path}' cannot be read: {e}.") from e
    return height, width
