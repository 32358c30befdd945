"""Read images; needs neither torch nor detectron2.

:func:`~parking.data.decoding.orientation.is_applied` decides for sizes and pixels alike whether EXIF's orientation is
applied. It depends on ``orientation``, a value of INPUT.EXIF_ORIENTATION ("auto", "apply" or "ignore"), and on
``stated``, the height and width that a json or an image list gives the picture.
"""

import hashlib
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import NamedTuple

import numpy as np

from parking.data.decoding import decoders, headers
from parking.data.decoding.headers import Header
from parking.data.decoding.orientation import AUTO, IGNORE, Size, is_applied, turn
from parking.data.decoding.problem import ImageProblem
from parking.utils.errors import UserError
from parking.utils.files import open_regular, read_regular
from parking.utils.limits import MAX_IMAGE_BYTES
from parking.utils.text import printable


class UnreadableImageError(UserError):
    """An image that cannot be used; the message names its file.

    Attributes:
        kind: a key of ``KINDS`` in :mod:`parking.data.checking.findings`: image_missing, image_empty, image_not_image,
            image_truncated, image_unsupported, image_too_large, size_differs, or else image_unreadable.
    """

    def __init__(self, message: str, kind: str = "image_unreadable"):
        super().__init__(message)
        self.kind = kind


class ImageFacts(NamedTuple):
    """The header of an image file, and what is wrong with the file, as :func:`inspect_image` returns them.

    Attributes:
        header: None if even the header cannot be read.
        problem: the ``kind`` of an :class:`UnreadableImageError`; None if every pixel can be read.
        detail: the message of that error, "" without a problem.
        content_hash: hash of the stored pixels, equal for a picture stored in different lossless formats; "" with a
            problem.
    """

    header: Header | None = None
    problem: str | None = None
    detail: str = ""
    content_hash: str = ""


def read_image(path: str | os.PathLike, *, stated: Size | None = None, orientation: str = AUTO) -> np.ndarray:
    """Decode an image file, whatever its bit depth and number of channels.

    Returns:
        uint8 array of shape (H, W, 3), RGB, contiguous.

    Raises:
        UnreadableImageError: names the file. A file that is cut off or damaged is unreadable even if most of it could
            be shown. So is a file whose size is not the stated one; none of it is decoded.
    """
    return decode_image(read_image_file(path), path, stated=stated, orientation=orientation)


def read_listed_image(record: Mapping, orientation: str = AUTO) -> np.ndarray:
    """Read the image file of a dataset dict, or of an entry of an image list, by :func:`read_image`.

    Args:
        record: ``file_name``, a path; ``height`` and ``width`` if they are stated; and, if it is settled for this
            image, ``exif_orientation``, "apply" or "ignore", which overrides ``orientation``.
    """
    return read_image(record["file_name"], **get_reading_options(record, orientation))


def get_reading_options(record: Mapping, orientation: str) -> dict:
    """Return the arguments ``stated`` and ``orientation`` with which :func:`read_image` reads a record's image."""
    stated = (record["height"], record["width"]) if record.keys() >= {"height", "width"} else None
    return {"stated": stated, "orientation": record.get("exif_orientation", orientation)}


def name_variant(record: Mapping, orientation: str) -> str:
    """Return a text that tells apart the ways in which :func:`read_listed_image` may read the same file."""
    return "{orientation} {stated}".format(**get_reading_options(record, orientation))


def read_image_file(path: str | os.PathLike) -> bytes:
    """Read the bytes of an image file.

    Raises:
        UnreadableImageError: the file cannot be opened, is not a regular file, or is larger than ``MAX_IMAGE_BYTES``.
    """
    with _explaining_access(path):
        return read_regular(path, max_bytes=MAX_IMAGE_BYTES)


def decode_image(
    data: bytes,
    path: str | os.PathLike,
    *,
    stated: Size | None = None,
    orientation: str = AUTO,
) -> np.ndarray:
    """Decode the bytes of an image file as :func:`read_image` does.

    Args:
        path: path of the file, for error messages.
    """
    try:
        header = headers.read_header(io.BytesIO(data))
        # If "auto" cannot decide, use the image as stored. Callers that know the image's json pass "apply" or "ignore".
        is_upright = bool(is_applied(orientation, header.orientation, header.stored_size, stated))
        check_stated_size(path, header.get_size(is_upright=is_upright), stated)
        image = decoders.decode(data, header)
        return turn(image, header.orientation) if is_upright and header.orientation != 1 else image
    except ImageProblem as e:
        raise UnreadableImageError(f"{_name(path)} cannot be decoded: {e}.", e.kind) from e


def read_image_header(path: str | os.PathLike) -> Header:
    """Read the header of an image file, without its pixels.

    Raises:
        UnreadableImageError: names the file.
    """
    try:
        with _explaining_access(path), open_regular(path) as file:
            return headers.read_header(file)
    except ImageProblem as e:
        raise UnreadableImageError(f"The size of the image '{printable(path)}' cannot be read: {e}.", e.kind) from e


def compute_resized_sides(h: int, w: int, max_h: int, max_w: int) -> tuple[int, int]:
    """Return height and width in pixels of an (h, w) image scaled to just fit into (max_h, max_w), each at least 1."""
    ratio = min(max_h / h, max_w / w)
    return max(round(h * ratio), 1), max(round(w * ratio), 1)


def inspect_image(path: str | os.PathLike) -> ImageFacts:
    """Read an image file once and decode all of it; return a problem with the file instead of raising an error."""
    facts = ImageFacts()
    try:
        data = read_image_file(path)
        with suppress(ImageProblem):  # decode_image reports it below
            facts = ImageFacts(headers.read_header(io.BytesIO(data)))
        image = decode_image(data, path, orientation=IGNORE)
    except UnreadableImageError as e:
        return facts._replace(problem=e.kind, detail=str(e))
    digest = hashlib.blake2b(f"{facts.header.height} {facts.header.width} ".encode(), digest_size=16)
    digest.update(image)
    return facts._replace(content_hash=digest.hexdigest())


def _name(path) -> str:
    return f"The image '{printable(path)}'"


@contextmanager
def _explaining_access(path) -> Iterator[None]:
    """Turn errors of the ``with`` block, which opens or reads the file at ``path``, into an UnreadableImageError."""
    try:
        yield
    except UserError as e:
        raise UnreadableImageError(str(e), "image_too_large") from e
    except (OSError, ValueError) as e:
        kind = "image_missing" if isinstance(e, FileNotFoundError | NotADirectoryError) else "image_unreadable"
        reason = getattr(e, "strerror", None) or e
        raise UnreadableImageError(f"{_name(path)} cannot be opened: {reason}.", kind) from e


def check_stated_size(path: str | os.PathLike, size: Size, stated: Size | None) -> None:
    """Raise an :class:`UnreadableImageError` if an image's (height, width) ``size`` is not the ``stated`` one."""
    if stated is None or tuple(stated) == tuple(size):
        return
    advice = "the boxes in the json were drawn on a picture of that size, so use that picture or correct size and boxes"
    if tuple(stated) == tuple(size)[::-1]:
        advice += "; INPUT.EXIF_ORIENTATION auto turns a picture by EXIF if it then has the size in the json"
    raise UnreadableImageError(
        f"{_name(path)} has {size[1]} x {size[0]} pixels, but its json says {stated[1]} x {stated[0]}; {advice}.",
        "size_differs",
    )
