"""Reading images; needs neither torch nor detectron2.

Whether EXIF's orientation is applied is one decision, :func:`~parking.data.decoding.orientation.is_applied`, for sizes
and pixels alike. It depends on ``orientation``, a value of INPUT.EXIF_ORIENTATION ("auto", "apply" or "ignore"), and on
``stated``, the height and width that a json or an image list gives the picture.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from parking.data.decoding import decoders, headers
from parking.data.decoding.headers import Header
from parking.data.decoding.orientation import AUTO, IGNORE, Size, is_applied, turn, turn_size
from parking.data.decoding.problem import ImageProblem
from parking.utils.errors import UserError
from parking.utils.files import open_regular, read_regular
from parking.utils.limits import MAX_IMAGE_BYTES
from parking.utils.text import printable


class UnreadableImageError(UserError):
    """An image that cannot be used; the message names its file.

    Attributes:
        kind: one of ``KINDS`` of :mod:`parking.data.checking.findings`: image_missing, image_empty, image_not_image,
            image_truncated, image_unsupported, image_too_large, size_differs, or image_unreadable for the rest.
    """

    def __init__(self, message: str, kind: str = "image_unreadable"):
        super().__init__(message)
        self.kind = kind


class ImageFacts(NamedTuple):
    """What :func:`inspect_image` finds out about a file.

    Attributes:
        height, width: in pixels, as stored; 0 where even the header cannot be read.
        mode: Pillow's name of the file's pixel format, such as "RGB", "L", "P", "RGBA", "CMYK", "I;16"; with ";16"
            where Pillow itself would narrow 16-bit colours; "" if unknown.
        is_8bit_rgb: whether the file holds 8-bit RGB, or YCbCr as JPEG does.
        orientation: EXIF's, 1..8; 1 is upright.
        has_more: whether further pictures (frames, pages), which are not read, follow the first one.
        problem: the ``kind`` of an :class:`UnreadableImageError`; None: every pixel can be read.
        detail: its message, "" without a problem.
        content_hash: of the stored pixels, the same for a picture stored twice in any lossless way; "" with a problem.
    """

    height: int
    width: int
    mode: str
    is_8bit_rgb: bool
    orientation: int
    has_more: bool
    problem: str | None
    detail: str
    content_hash: str


def read_image(path: str | os.PathLike, *, stated: Size | None = None, orientation: str = AUTO) -> np.ndarray:
    """Decode an image file, whatever its bit depth and number of channels.

    Returns:
        uint8 array of shape (H, W, 3), RGB, contiguous.

    Raises:
        UnreadableImageError: naming the file. A file that is cut off or damaged is one, too, though most of it could
            be shown, and one whose size is not the stated one, before any of it is decoded.
    """
    return decode_image(read_image_file(path), path, stated=stated, orientation=orientation)[0]


def read_listed_image(record: Mapping, orientation: str = AUTO) -> np.ndarray:
    """:func:`read_image` of the file that a dataset dict or an entry of an image list names.

    Args:
        record: ``file_name``, a path; ``height`` and ``width`` where they are stated; and ``exif_orientation``, "apply"
            or "ignore", where it is known better than by ``orientation`` for this image.
    """
    return read_image(record["file_name"], **get_reading_options(record, orientation))


def get_reading_options(record: Mapping, orientation: str) -> dict:
    """``stated`` and ``orientation`` for the image of a dataset dict; see :func:`read_listed_image`."""
    stated = (record["height"], record["width"]) if record.keys() >= {"height", "width"} else None
    return {"stated": stated, "orientation": record.get("exif_orientation", orientation)}


def name_variant(record: Mapping, orientation: str) -> str:
    """A text for what, beside the bytes of its file, the pixels of a dataset dict's image depend on."""
    return "{orientation} {stated}".format(**get_reading_options(record, orientation))


def read_image_file(path: str | os.PathLike) -> bytes:
    """The bytes of an image file, at least one.

    Raises:
        UnreadableImageError: the file cannot be opened, is not a regular one, empty, or larger than
            ``MAX_IMAGE_BYTES``.
    """
    data = _access(path, lambda: read_regular(path, max_bytes=MAX_IMAGE_BYTES))
    if not data:
        raise UnreadableImageError(f"{_name(path)} cannot be decoded: the file is empty.", "image_empty")
    return data


def decode_image(
    data: bytes,
    path: str | os.PathLike,
    num_rows: int | None = None,
    *,
    stated: Size | None = None,
    orientation: str = AUTO,
) -> tuple[np.ndarray, int]:
    """:func:`read_image` of the bytes of a file.

    Args:
        path: for the error's message.
        num_rows: how many rows from the top are needed; None: all.

    Returns:
        These rows, (min(num_rows, H), W, 3); and H, the height of the whole image.
    """
    try:
        header = headers.read_header_of(data)
        is_upright = _is_applied(header, stated, orientation)
        size = _check_size(header, is_upright, path, stated)
        if not is_upright or header.orientation == 1:
            return decoders.decode(data, header, num_rows), size[0]
        return turn(decoders.decode(data, header), header.orientation)[:num_rows], size[0]
    except ImageProblem as e:
        raise UnreadableImageError(f"{_name(path)} cannot be decoded: {e}.", e.kind) from e


def read_image_header(path: str | os.PathLike) -> Header:
    """What the header of an image file says, without its pixels.

    Raises:
        UnreadableImageError: naming the file.
    """

    def read() -> Header:
        with open_regular(path) as file:
            return headers.read_header(file)

    try:
        return _access(path, read)
    except ImageProblem as e:
        raise UnreadableImageError(f"The size of the image '{printable(path)}' cannot be read: {e}.", e.kind) from e


def read_image_size(path: str | os.PathLike, *, stated: Size | None = None, orientation: str = AUTO) -> tuple[int, int]:
    """Height and width in pixels as :func:`read_image` will give them, from the file's header alone.

    Raises:
        UnreadableImageError: naming the file.
    """
    header = read_image_header(path)
    return _check_size(header, _is_applied(header, stated, orientation), path, stated)


def compute_resized_sides(h: int, w: int, max_h: int, max_w: int) -> tuple[int, int]:
    """Height and width in pixels of an (h, w) image scaled to just fit into (max_h, max_w); at least 1 each."""
    ratio = min(max_h / h, max_w / w)
    return max(round(h * ratio), 1), max(round(w * ratio), 1)


def inspect_image(path: str | os.PathLike) -> ImageFacts:
    """Read a file once and decode all of it. Raises nothing for a bad one; threads may share the work."""
    header = None
    try:
        data = read_image_file(path)
        try:
            header = headers.read_header_of(data)
        except ImageProblem as e:
            raise UnreadableImageError(f"{_name(path)} cannot be decoded: {e}.", e.kind) from e
        image, _ = decode_image(data, path, orientation=IGNORE)
    except UnreadableImageError as e:
        return _describe(header, problem=e.kind, detail=str(e))
    digest = hashlib.blake2b(f"{header.height} {header.width} ".encode(), digest_size=16)
    digest.update(image)
    return _describe(header, content_hash=digest.hexdigest())


def _describe(header: Header | None, *, problem: str | None = None, detail: str = "", content_hash: str = ""):
    if header is None:
        return ImageFacts(0, 0, "", False, 1, False, problem, detail, content_hash)
    _, height, width, mode, orientation, has_more, _ = header
    return ImageFacts(height, width, mode, mode == "RGB", orientation, has_more, problem, detail, content_hash)


def _name(path) -> str:
    return f"The image '{printable(path)}'"


def _access(path, read: Callable):
    """``read()``, whose errors of opening and reading the file at ``path`` become UnreadableImageErrors."""
    try:
        return read()
    except UserError as e:
        raise UnreadableImageError(str(e), "image_too_large") from e
    except (OSError, ValueError) as e:
        kind = "image_missing" if isinstance(e, FileNotFoundError | NotADirectoryError) else "image_unreadable"
        reason = getattr(e, "strerror", None) or e
        raise UnreadableImageError(f"{_name(path)} cannot be opened: {reason}.", kind) from e


def _is_applied(header: Header, stated: Size | None, orientation: str) -> bool:
    # Where nothing tells, as it is stored; who knows the other pictures of its json gives "apply" or "ignore".
    return bool(is_applied(orientation, header.orientation, header.stored_size, stated))


def _check_size(header: Header, is_upright: bool, path, stated: Size | None) -> Size:
    """The size that the picture will have; UnreadableImageError unless it is the stated one, or none is."""
    size = turn_size(header.stored_size, header.orientation) if is_upright else header.stored_size
    check_stated_size(path, size, stated)
    return size


def check_stated_size(path: str | os.PathLike, size: Size, stated: Size | None) -> None:
    """Raise an :class:`UnreadableImageError` unless ``stated`` is the height and width of the image, or None."""
    if stated is None or tuple(stated) == tuple(size):
        return
    advice = "the json's boxes belong to a picture of that size, and with other numbers alone they would be wrong"
    if tuple(stated) == tuple(size)[::-1]:
        advice += "; with INPUT.EXIF_ORIENTATION auto, EXIF turns a picture where that makes its size the json's"
    raise UnreadableImageError(
        f"{_name(path)} has {size[1]} x {size[0]} pixels, but its json says {stated[1]} x {stated[0]}: {advice}.",
        "size_differs",
    )
