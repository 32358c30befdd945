"""Keep decoded images at training size on disk or in shared memory; needs neither torch nor detectron2.

A cache is a folder, below the user's cache folder or in shared memory (``/dev/shm``)::

    raw-1280x1280/9c/9c01...      one file per image file: a header of 36 bytes, then the pixels (or a JPEG of them)

A name is the hash of the image file's path, size and times, so an image file that has changed has another name. An
entry is written under a temporary name and then renamed, so it is never incomplete. Its checksum is verified when it is
read, and a damaged entry is made anew.
"""

import atexit
import fcntl
import hashlib
import logging
import os
import shutil
import struct
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
from yacs.config import CfgNode

from parking.data.image_io import compute_resized_sides, name_variant, read_image_file
from parking.utils.errors import UserError
from parking.utils.files import wait_for_lock

logger = logging.getLogger(__name__)

# With this quality and without subsampling of colours, photographs take a twelfth of their raw size, and their PSNR is
# 45 dB on average and 43 dB at worst.
JPEG_QUALITY = 90
# Estimated size of a JPEG as a part of the raw pixels; most photographs need less.
_JPEG_PART = 1 / 8

_MAGIC = b"PKC1"
# Change this number if the decoders begin to reject or decode images differently: all entries are then made anew.
_DECODERS = b"3"
# Magic, height and width of the image file, height and width of the cached image, CRC-32 and length of the image data.
_HEADER = struct.Struct("<4s4IIQ4x")
_GB = 10**9

Loaded = tuple[np.ndarray, tuple[int, int]]


def get_default_cache_dir() -> str:
    """Return the folder ``parking`` in the user's cache folder, ``$XDG_CACHE_HOME`` or else ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(root, "parking")


def build_cache(cfg: CfgNode, dataset_dicts: Iterable[dict]) -> "ImageCache | None":
    """Return the cache that ``INPUT.CACHE`` asks for, after logging and checking how much room the images will take.

    Raises:
        UserError: the images would take more than ``INPUT.CACHE_GB`` or than is free; names the folder.
    """
    if cfg.INPUT.CACHE == "none":
        return None
    if cfg.INPUT.CACHE == "disk":
        folder = Path(cfg.INPUT.CACHE_DIR or get_default_cache_dir()).expanduser() / "images"
    else:
        folder = SharedMemoryFolder().path
    size, image_format = tuple(cfg.INPUT.SIZE_TRAIN), cfg.INPUT.CACHE_FORMAT
    result = ImageCache(folder, size=size, image_format=image_format)
    missing = {
        d["file_name"]: (d["height"], d["width"])
        for d in dataset_dicts
        if not result.holds(d["file_name"], name_variant(d, cfg.INPUT.EXIF_ORIENTATION))
    }
    needed, used = estimate_cache_bytes(missing.values(), size, image_format), _measure(folder)
    logger.info(
        "The cache '%s' (%s, %s) holds %.1f GB; images that it lacks will take %.1f GB",
        *(folder, cfg.INPUT.CACHE, image_format, used / _GB, needed / _GB),
    )
    check_room(folder, needed, used, cfg)
    return result


def estimate_cache_bytes(sizes: Iterable[tuple[int, int]], size: tuple[int, int], image_format: str) -> int:
    """Estimate the bytes that images take in a cache; for "jpeg", an eighth of the raw pixels (few exceed it).

    Args:
        sizes: height and width of each image in pixels.
        size: height and width in pixels that the images are resized to fit into.
        image_format: "raw" or "jpeg".
    """
    resized = (compute_resized_sides(h, w, *size) for h, w in sizes)
    raw = sum(_HEADER.size + 3 * h * w for h, w in resized)
    return raw if image_format == "raw" else int(raw * _JPEG_PART)


class ImageCache:
    """Keeps decoded images until their files change, for all processes that use the same folder."""

    def __init__(self, folder: str | os.PathLike, *, size: tuple[int, int], image_format: str):
        """
        Args:
            folder: made if needed; nothing outside of it is written to.
            size: height and width in pixels that the images are resized to fit into.
            image_format: "raw" or "jpeg".
        """
        self._folder = Path(folder)
        self._images = self._folder / f"{image_format}-{size[0]}x{size[1]}"
        self._is_raw = image_format == "raw"
        with _explaining_write_errors(self._folder):
            self._images.mkdir(parents=True, exist_ok=True)

    def fetch(self, path: str, load: Callable[[bytes], Loaded], *, variant: str = "") -> Loaded:
        """Return the image of a file as ``load`` returns it, from the cache if the file's size and times are unchanged.

        Every change of the file is noticed: a program can set back the time of the last change (mtime), but not that
        of the last change of the inode (ctime), unless it sets the clock.

        Args:
            path: of the image file.
            load: decodes the bytes of the file and resizes the image: uint8 (h, w, 3), and the file's height and width.
            variant: what else the result of ``load`` depends on.

        Raises:
            UserError: the cache cannot be written to; whatever ``load`` raises.
        """
        # Name the entry after the file's size and times before reading the file: if the file changes meanwhile, the
        # next call finds no entry and reads the file again.
        entry = self._find_entry(path, variant)
        found = _read_entry(entry, self._is_raw) if entry else None
        if found is None:
            image, source_size = load(read_image_file(path))
            found = self._store(entry, image, source_size) if entry else image, source_size
        return found

    def holds(self, path: str, variant: str = "") -> bool:
        """Return whether the image of a file is in the cache already; see :meth:`fetch` for the arguments."""
        entry = self._find_entry(path, variant)
        return entry is not None and entry.exists()

    def _find_entry(self, path: str, variant: str) -> Path | None:
        """Return the path at which the image of a file is kept; None if the file does not exist."""
        try:
            info = os.stat(path)
        except OSError:
            return None
        digest = hashlib.blake2b(os.fsencode(os.path.abspath(path)), digest_size=16, person=_DECODERS)
        digest.update(f"\0{info.st_size} {info.st_mtime_ns} {info.st_ctime_ns} {variant}".encode())
        name = digest.hexdigest()
        return self._images / name[:2] / name

    def _store(self, entry: Path, image: np.ndarray, source_size) -> np.ndarray:
        if self._is_raw:
            payload = memoryview(np.ascontiguousarray(image)).cast("B")
        else:
            payload = _encode(image)
            # Return what later calls will read, so that a sample is the same in the first epoch and later.
            image = _decode(payload, image.shape[:2])
        header = _HEADER.pack(_MAGIC, *source_size, *image.shape[:2], zlib.crc32(payload), len(payload))
        with _explaining_write_errors(self._folder):
            entry.parent.mkdir(exist_ok=True)
            # An fsync is not needed: if a power cut damages an entry, its checksum fails and it is made anew.
            temporary = entry.with_name(f".{entry.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            try:
                with open(temporary, "wb") as file:
                    file.writelines([header, payload])
                os.replace(temporary, entry)
            finally:
                temporary.unlink(missing_ok=True)
        return image


class SharedMemoryFolder:
    """A folder in the machine's shared memory, which is removed when the last process that uses it ends.

    All processes of a user share the folder, including data workers and other trainings. If the last process is killed,
    the folder stays until processes that use it later have ended.
    """

    def __init__(self, root: Path = Path("/dev/shm")):
        if not root.is_dir():
            raise UserError(f"INPUT.CACHE ram needs shared memory in '{root}', which this system lacks; choose disk.")
        self.path = root / f"parking-{os.getuid()}"
        self._pid = os.getpid()
        with _explaining_write_errors(self.path):
            self._lock: int | None = self._join()
        # Deleting this object does not remove the folder, because the training's next data loader uses it again.
        atexit.register(self.close)

    def _join(self) -> int:
        # The locked file lies beside the folder and is never removed, so that all processes lock the same file.
        file = f"{self.path}.lock"
        lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        wait_for_lock(lock, fcntl.LOCK_SH, path=file)
        with suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        if not self.path.is_dir() or self.path.is_symlink() or self.path.lstat().st_uid != os.getuid():
            raise UserError(f"INPUT.CACHE ram cannot use '{self.path}', which belongs to another user; choose disk.")
        return lock

    def close(self) -> None:
        """Stop using the folder; in a forked worker, which shares its parent's lock, this does nothing."""
        if self._lock is None or self._pid != os.getpid():
            return
        # The lock fails if another process still uses the folder; that process will remove the folder.
        with suppress(BlockingIOError):
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = None


def check_room(folder: Path, needed: int, used: int, cfg: CfgNode) -> None:
    """Raise a UserError if ``needed`` bytes exceed the free space, or ``needed + used`` bytes exceed INPUT.CACHE_GB."""
    max_gb = cfg.INPUT.CACHE_GB
    advice = "choose INPUT.CACHE_FORMAT jpeg (an eighth of raw) or INPUT.CACHE none"
    if needed + used > max_gb * _GB:
        present = f" beside {used / _GB:.1f} GB in '{folder}'" if used > 0.05 * _GB else ""
        raise UserError(
            f"The images take {needed / _GB:.1f} GB in the cache{present}, more than INPUT.CACHE_GB {max_gb:g}; raise "
            f"it, delete the folder if it holds images that are not needed, or {advice}."
        )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The images take {needed / _GB:.1f} GB in the cache, but '{folder}' has only {free / _GB:.1f} GB left; "
            + ("set INPUT.CACHE_DIR to a larger disk, " if cfg.INPUT.CACHE == "disk" else "choose INPUT.CACHE disk, ")
            + f"or {advice}."
        )


def _encode(image: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def _decode(payload: bytes | memoryview, shape: tuple[int, int]) -> np.ndarray | None:
    image = cv2.imdecode(np.frombuffer(payload, np.uint8), cv2.IMREAD_COLOR_RGB)
    return image if image is not None and image.shape[:2] == shape else None


def _read_entry(file: Path, is_raw: bool) -> Loaded | None:
    """Return a cached image and (height, width) of its image file; None if the entry is missing or damaged."""
    try:
        data = np.fromfile(file, dtype=np.uint8)
    except OSError:
        return None
    if data.size < _HEADER.size:
        return None
    magic, source_h, source_w, h, w, checksum, length = _HEADER.unpack(data[: _HEADER.size].tobytes())
    payload = data[_HEADER.size :]
    expected = 3 * h * w if is_raw else payload.size
    if magic != _MAGIC or not payload.size == length == expected or zlib.crc32(payload) != checksum:
        return None
    image = payload.reshape(h, w, 3) if is_raw else _decode(payload, (h, w))
    return None if image is None else (image, (source_h, source_w))


def _measure(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    used = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # another process has renamed it
                used += os.stat(os.path.join(parent, name)).st_size
    return used


@contextmanager
def _explaining_write_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        raise UserError(
            f"The cache in '{folder}' cannot be written: {e.strerror or e}; make room, or choose another "
            "INPUT.CACHE_DIR or INPUT.CACHE."
        ) from e
