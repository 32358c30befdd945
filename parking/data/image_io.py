"""Reading images; needs neither torch nor detectron2."""

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from parking.utils.errors import UserError

try:
    import pyspng
except ImportError:
    # Optional: it gives the same pixels a sixth faster, and can stop early.
    pyspng = None

# Boxes refer to the pixels as they are stored: no rotation by EXIF, here and in `read_image_size`. Alpha is dropped,
# 16-bit pixels keep their upper 8 bits.
_IMREAD_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION

_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START = b"\x89PNG\r\n\x1a\n"
_TIFF_STARTS = (b"II*\0", b"MM\0*")
_EXIF_ORIENTATION = 0x0112
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)


class UnreadableImageError(UserError):
    """An image that cannot be used; the message names its file.

    Attributes:
        kind: one of ``KINDS`` of :mod:`parking.data.datasets.findings`: image_missing, image_empty, image_not_image,
            image_truncated, size_differs, or image_unreadable for the rest.
    """

    def __init__(self, message: str, kind: str = "image_unreadable"):
        super().__init__(message)
        self.kind = kind


class ImageFacts(NamedTuple):
    """What :func:`inspect_image` finds out about a file.

    Attributes:
        height, width: in pixels, 0 where even the header cannot be read.
        mode: Pillow's name of the file's pixel format, such as "RGB", "L", "P", "RGBA", "CMYK", "I;16"; with ";16"
            where Pillow itself would narrow 16-bit colours; "" if unknown.
        is_8bit_rgb: whether the file holds 8-bit RGB, or YCbCr as JPEG does.
        exif_rotated: whether EXIF asks for a rotation or mirroring, which is not applied.
        problem: the ``kind`` of an :class:`UnreadableImageError`; None: every pixel can be read.
        detail: its message, "" without a problem.
        content_hash: of the decoded pixels, the same for a picture stored twice in any lossless way; "" with a problem.
    """

    height: int
    width: int
    mode: str
    is_8bit_rgb: bool
    exif_rotated: bool
    problem: str | None
    detail: str
    content_hash: str


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Decode an image file, whatever its bit depth and number of channels.

    Returns:
        uint8 array of shape (H, W, 3), RGB, contiguous.

    Raises:
        UnreadableImageError: naming the file. A file that is cut off is one, too, though most of it could be shown.
    """
    return decode_image(read_image_file(path), path)[0]


def read_image_file(path: str | os.PathLike) -> bytes:
    """The bytes of an image file, at least one.

    Raises:
        UnreadableImageError: the file cannot be opened or is empty.
    """
    try:
        # cv2.imread cannot open non-ASCII paths on every system.
        with open(path, "rb") as file:
            data = file.read()
    except OSError as e:
        kind = "image_missing" if isinstance(e, (FileNotFoundError, NotADirectoryError)) else "image_unreadable"
        raise UnreadableImageError(f"The image '{path}' cannot be opened: {e.strerror or e}.", kind) from e
    if not data:
        raise UnreadableImageError(f"The image '{path}' cannot be decoded: the file is empty.", "image_empty")
    return data


def decode_image(data: bytes, path: str | os.PathLike, num_rows: int | None = None) -> tuple[np.ndarray, int]:
    """:func:`read_image` of the bytes of a file.

    Args:
        path: for the error's message.
        num_rows: how many rows from the top are needed; None: all.

    Returns:
        These rows, (min(num_rows, H), W, 3); and H, the height of the whole image.
    """
    problem = f"The image '{path}' cannot be decoded: "
    found = _decode_plain_png(data, num_rows)
    if found is not None:
        return found
    # Asked first: some versions of OpenCV fill what is missing with gray and say nothing.
    if _is_cut_off(memoryview(data)):
        raise UnreadableImageError(problem + "the file is cut off.", "image_truncated")
    if data[:4] in _TIFF_STARTS:
        image = _decode_tiff_with_alpha(data)
        if image is not None:
            return image[:num_rows], image.shape[0]
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _IMREAD_FLAGS)
    except cv2.error as e:
        raise UnreadableImageError(f"{problem}{e.err}.") from e
    if image is None:
        if _identify(data) is None:
            raise UnreadableImageError(problem + "it is not an image.", "image_not_image")
        raise UnreadableImageError(problem + "it is damaged.")
    return image[:num_rows], image.shape[0]


def read_image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width in pixels as :func:`read_image` will give them, from the file's header alone.

    Raises:
        UnreadableImageError: naming the file.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
    except FileNotFoundError as e:
        raise UnreadableImageError(f"The image '{path}' cannot be opened: {e.strerror}.", "image_missing") from e
    except _PILLOW_ERRORS as e:
        kind = "image_unreadable"
        if isinstance(e, Image.UnidentifiedImageError):
            kind = "image_not_image" if os.path.getsize(path) else "image_empty"
        raise UnreadableImageError(f"The size of the image '{path}' cannot be read: {e}.", kind) from e
    return height, width


def compute_resized_sides(h: int, w: int, max_h: int, max_w: int) -> tuple[int, int]:
    """Height and width in pixels of an (h, w) image scaled to just fit into (max_h, max_w); at least 1 each."""
    ratio = min(max_h / h, max_w / w)
    return max(round(h * ratio), 1), max(round(w * ratio), 1)


def inspect_image(path: str | os.PathLike) -> ImageFacts:
    """Read a file once and decode all of it. Raises nothing for a bad one; threads may share the work."""
    try:
        data = read_image_file(path)
    except UnreadableImageError as e:
        return ImageFacts(0, 0, "", False, False, e.kind, str(e), "")
    header = _identify(data)
    (height, width), mode, exif_rotated = header or ((0, 0), "", False)
    try:
        image, _ = decode_image(data, path)
    except UnreadableImageError as e:
        return ImageFacts(height, width, mode, mode == "RGB", exif_rotated, e.kind, str(e), "")
    height, width = image.shape[:2]
    digest = hashlib.blake2b(f"{height} {width} ".encode(), digest_size=16)
    digest.update(image)
    return ImageFacts(height, width, mode, mode == "RGB", exif_rotated, None, "", digest.hexdigest())


def _identify(data) -> tuple[tuple[int, int], str, bool] | None:
    """Height and width, mode, and whether EXIF rotates it; None for what Pillow does not know."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            is_deep_png = image.format == "PNG" and data[24] == 16
            if mode in ("RGB", "RGBA") and (is_deep_png or ";16" in str(image.tile)):
                mode += ";16"
            return image.size[::-1], mode, _read_orientation(image) not in (0, 1)
    except _PILLOW_ERRORS:
        return None


def _decode_tiff_with_alpha(data: bytes) -> np.ndarray | None:
    """The colours as they are stored, which OpenCV multiplies by alpha; None for another kind of TIFF."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return np.ascontiguousarray(np.asarray(image)[..., :3]) if image.mode == "RGBA" else None
    except _PILLOW_ERRORS:
        return None


def _read_orientation(image: Image.Image) -> int:
    # Pillow decodes all of a PNG to look for EXIF behind the pixels.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & set(image.info):
        return 1
    try:
        return image.getexif().get(_EXIF_ORIENTATION, 1)
    except _PILLOW_ERRORS:
        return 1


def _is_cut_off(content: memoryview) -> bool:
    """Whether the end is missing, by the file's own structure."""
    if content[:2] == _JPEG_START:
        return _is_jpeg_cut_off(content)
    if content[:8] == _PNG_START:
        return _is_png_cut_off(content)
    if content[:4] == b"RIFF":
        return len(content) < 8 + int.from_bytes(content[4:8], "little")
    if content[:4] in _TIFF_STARTS and len(content) >= 8:
        # Its directory, often at the end, is what the header points to; without it Pillow knows nothing.
        directory = int.from_bytes(content[4:8], "little" if content[:2] == b"II" else "big")
        if directory >= len(content):
            return True
    try:
        # The other formats are rare enough to be decoded twice.
        with Image.open(io.BytesIO(content)) as image:
            image.load()
    except Image.UnidentifiedImageError:
        return False
    except _PILLOW_ERRORS as e:
        return any(word in str(e) for word in ("truncated", "not enough", "incomplete", "end of file", "too short"))
    return False


def _is_jpeg_cut_off(content: memoryview) -> bool:
    start = 2
    # Segments before the pixels may hold a whole thumbnail, with an end of its own.
    while start + 4 <= len(content) and content[start : start + 2] != _JPEG_SCAN:
        if content[start] != 0xFF:
            return False
        is_padding = content[start + 1] == 0xFF
        start += 1 if is_padding else 2 + int.from_bytes(content[start + 2 : start + 4], "big")
    # Other data may follow the end, but seldom much.
    last = bytes(content[max(start, len(content) - 4096) :])
    return _JPEG_END not in last and _JPEG_END not in bytes(content[start:])


def _is_png_cut_off(content: memoryview) -> bool:
    return not any(kind == b"IEND" for kind, _ in _walk_png(content))


def _decode_plain_png(data: bytes, num_rows: int | None) -> tuple[np.ndarray, int] | None:
    """An 8-bit RGB PNG, faster than OpenCV does it; None for all others, for damaged ones, and without pyspng."""
    # Bit depth 8, colour type 2, and after compression and filter method no interlacing.
    if pyspng is None or data[:8] != _PNG_START or data[24:26] != b"\x08\x02" or data[28] != 0:
        return None
    content = memoryview(data)
    kind = b""
    for kind, chunk in _walk_png(content):
        # pyspng looks at no checksums, and would give a transparent colour an alpha channel.
        if kind == b"tRNS" or zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
            return None
    height = int.from_bytes(data[20:24], "big")
    if kind != b"IEND" or num_rows == 0:
        return None
    try:
        return pyspng.load(_cut_png(content, num_rows) if num_rows and num_rows < height else data), height
    except (RuntimeError, ValueError):
        return None


def _cut_png(content: memoryview, num_rows: int) -> bytes:
    """The PNG with another height in its header (bytes 8 to 33), which ends the decoding there."""
    header = bytes(content[12:20]) + num_rows.to_bytes(4, "big") + bytes(content[24:29])
    return b"".join([content[:12], header, zlib.crc32(header).to_bytes(4, "big"), content[33:]])


def _walk_png(content: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The kind of each whole chunk, and the chunk: length, kind, data and checksum."""
    start = len(_PNG_START)
    while start + 12 <= len(content):
        end = start + 12 + int.from_bytes(content[start : start + 4], "big")
        if end > len(content):
            return
        kind = bytes(content[start + 4 : start + 8])
        yield kind, content[start:end]
        if kind == b"IEND":
            return
        start = end
