"""Decode pictures with selected decoders of Pillow, called by name, so that no file's content can choose another.

``Image.open`` would choose among all decoders of Pillow, and the one for EPS starts a program.
"""

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, Jpeg2KImagePlugin, PpmImagePlugin, TiffImagePlugin, features

try:
    from PIL import AvifImagePlugin
except ImportError:
    # Versions of Pillow before 11.3 cannot decode AVIF.
    AvifImagePlugin = None

from parking.data.decoding.problem import ImageProblem, cut_off, damaged, unsupported
from parking.data.decoding.tiff_tags import ORIENTATION, clean_orientation
from parking.utils.limits import MAX_IMAGE_PIXELS

_CLASSES = {
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
}
_NEEDED_FEATURES = {"AVIF": "avif", "JPEG2000": "jpg_2000"}
# What Pillow raises for a file that it cannot open or decode.
_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, TypeError, KeyError, IndexError, RuntimeError, OverflowError),
    *(AttributeError, struct.error, Image.DecompressionBombError),
)
_SIGNS_OF_CUTTING = ("truncated", "not enough", "incomplete", "end of file", "too short", "eof", "reached end")

_limit_lock = threading.Lock()


@contextmanager
def explaining_errors() -> Iterator[None]:
    """Turn any error that Pillow raises in the block into an ImageProblem."""
    try:
        yield
    except ImageProblem:
        raise
    except _ERRORS as e:
        raise _explain(e) from e


@contextmanager
def opened(file: BinaryIO, image_format: str) -> Iterator[Image.Image]:
    """Open a picture of a known format and read its header.

    Raises:
        ImageProblem: Pillow cannot open the picture, or raises an error in the block.
    """
    feature = _NEEDED_FEATURES.get(image_format)
    if feature and not features.check(feature):
        raise unsupported(f"a picture in the format {image_format}, which this Pillow lacks", "convert it to JPEG")
    opener = AvifImagePlugin.AvifImageFile if image_format == "AVIF" else _CLASSES[image_format]
    file.seek(0)
    with explaining_errors(), opener(file) as image:
        yield image


def decode(file: BinaryIO, image_format: str, size: tuple[int, int]) -> Image.Image:
    """Decode the first picture of a file; a TIFF is turned upright by the orientation that its tags state.

    Args:
        size: height and width in the header, which :func:`.headers.read_header` has checked.

    Raises:
        ImageProblem: Pillow cannot decode the picture, or reads another size; this is found before memory is taken.
    """
    with opened(file, image_format) as image, _own_limit(image):
        if (image.height, image.width) != size:
            raise damaged("its headers contradict each other")
        # Remove the XMP data, by which Pillow would turn a TIFF that has no tag with an orientation.
        image.info.pop("xmp", None)
        image.load()
        return image.copy()


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1..8; 1 if it is missing or invalid."""
    try:
        return clean_orientation(image.getexif().get(ORIENTATION))
    except _ERRORS:
        return 1


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of a picture with at most 8 bits a channel; alpha is dropped without changing colours.

    Raises:
        ImageProblem: Pillow cannot convert the picture's mode to RGB.
    """
    try:
        if image.mode in ("RGB", "RGBA"):
            return np.ascontiguousarray(np.asarray(image)[..., :3])
        if image.mode in ("P", "PA"):
            # Convert to RGBA first, because Pillow warns if a palette with alpha is converted to RGB.
            image = image.convert("RGBA")
            return np.ascontiguousarray(np.asarray(image)[..., :3])
        return np.array(image.convert("RGB"))
    except _ERRORS as e:
        raise unsupported(f"a picture of the kind {image.mode!r}") from e


def _explain(error: Exception) -> ImageProblem:
    text = str(error)
    if isinstance(error, EOFError) or any(sign in text.lower() for sign in _SIGNS_OF_CUTTING):
        return cut_off()
    if "unknown pixel mode" in text or "not supported" in text.lower() or "unsupported" in text.lower():
        return unsupported(f"of a kind that cannot be read ({text.rstrip('.')})")
    return damaged(text)


@contextmanager
def _own_limit(image: Image.Image) -> Iterator[None]:
    """Increase Pillow's own limit of pixels to ``MAX_IMAGE_PIXELS`` for the ``with`` block, if ``image`` needs that."""
    if Image.MAX_IMAGE_PIXELS is None or image.width * image.height <= Image.MAX_IMAGE_PIXELS:
        yield
        return
    with _limit_lock:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_IMAGE_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit
