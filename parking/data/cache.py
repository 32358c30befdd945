"""Decoded images at training size, kept on disk or in shared memory; needs neither torch nor detectron2.

A cache is a folder, below the user's cache folder or in shared memory (``/dev/shm``)::

    index/3f/3fa8...              one small file per path: size and times of the image file, and the hash of its content
    raw-1280x1280/9c/9c01...      one file per content: a header of 36 bytes, then the pixels (or a JPEG of them)
    used                          bytes taken so far, by any process
    lock                          locked while ``used`` is changed, and by the kernel, so that a killed process frees it

Files appear whole, by renaming, and are read with a checksum: a damaged one is made anew.
"""

import atexit
import fcntl
import hashlib
import logging
import math
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from parking.data.decoding.orientation import AUTO
from parking.data.image_io import compute_resized_sides, name_variant, read_image_file
from parking.utils.errors import UserError
from parking.utils.files import is_still_there, wait_for_lock

logger = logging.getLogger(__name__)

# On photographs: 45 dB PSNR on average, 43 at worst, and a twelfth of the raw pixels; colours are not subsampled.
JPEG_QUALITY = 90
# Estimated size of a JPEG as a part of the raw pixels; most photographs need less.
_JPEG_PART = 1 / 8

_MAGIC = b"PKC1"
# Change it when decoders reject or decode images differently than before: all entries are then made anew.
_DECODERS = b"3"
# Magic, height and width of the image file, height and width of the tile, CRC-32 and length of what follows.
_HEADER = struct.Struct("<4s4IIQ4x")
# Size, mtime and ctime in ns of the image file, and BLAKE2b of its content.
_INDEX_ENTRY = struct.Struct("<QQQ16s")
_GB = 10**9
_SHARED_MEMORY = Path("/dev/shm")
_MAX_SECONDS_TO_WRITE = 3600

Loaded = tuple[np.ndarray, tuple[int, int]]


def get_default_cache_dir() -> str:
    """``parking`` in the user's cache folder: ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return os.path.join(root, "parking")


def build_cache(
    dataset_dicts: Iterable[dict],
    *,
    cache: str,
    image_format: str,
    cache_dir: str,
    max_gb: float,
    size: tuple[int, int],
    exif_orientation: str = AUTO,
) -> "ImageCache | None":
    """The cache that a config asks for, after what it will take has been logged and checked.

    Args:
        dataset_dicts: what will be read through it.
        cache, image_format, cache_dir, max_gb: INPUT.CACHE, CACHE_FORMAT, CACHE_DIR and CACHE_GB.
        size: height and width in pixels of a training sample.
        exif_orientation: INPUT.EXIF_ORIENTATION.

    Raises:
        UserError: naming the folder that lacks the room.
    """
    if cache == "none":
        return None
    keys = ("file_name", "height", "width", "exif_orientation")
    records = [{key: d[key] for key in keys if key in d} for d in dataset_dicts]
    if cache == "disk":
        folder = Path(cache_dir or get_default_cache_dir()).expanduser() / "images"
        check_outside_image_folders(folder, (record["file_name"] for record in records))
    else:
        folder = SharedMemoryFolder().path
    result = ImageCache(folder, size=size, image_format=image_format, max_gb=max_gb)
    missing = [
        record for record in records if not result.holds(record["file_name"], name_variant(record, exif_orientation))
    ]
    needed, used = estimate_cache_bytes(missing, size, image_format), result.measure_used()
    logger.info(
        "The cache '%s' (%s, %s) holds %.1f GB; images that it lacks will take %.1f GB",
        *(folder, cache, image_format, used / _GB, needed / _GB),
    )
    check_room(folder, needed=needed, used=used, max_gb=max_gb, cache=cache)
    return result


def estimate_cache_bytes(dataset_dicts: Iterable[dict], size: tuple[int, int], image_format: str) -> int:
    """Bytes that a cache of a data set takes; for "jpeg" an eighth of the raw pixels, which few photographs exceed.

    Args:
        dataset_dicts: ``file_name``, ``height`` and ``width`` are read.
        size: height and width in pixels that the images are resized to fit into.
        image_format: "raw" or "jpeg".
    """
    sizes = {d["file_name"]: (d["height"], d["width"]) for d in dataset_dicts}
    raw = sum(_HEADER.size + 3 * math.prod(compute_resized_sides(h, w, *size)) for h, w in sizes.values())
    return raw if image_format == "raw" else int(raw * _JPEG_PART)


class ImageCache:
    """Keeps images by the content of their files, for all processes that open the same folder."""

    def __init__(self, folder: str | os.PathLike, *, size: tuple[int, int], image_format: str, max_gb: float):
        """
        Args:
            folder: made if needed; nothing outside of it is written to.
            size: height and width in pixels that the images are resized to fit into.
            image_format: "raw" or "jpeg".
            max_gb: what the folder may grow to, in 10^9 bytes, whatever sizes and formats it holds.
        """
        self._folder = Path(folder)
        self._images = self._folder / f"{image_format}-{size[0]}x{size[1]}"
        self._is_raw = image_format == "raw"
        self._max_gb = max_gb
        _write_to_disk(lambda: self._images.mkdir(parents=True, exist_ok=True), self._folder)

    def fetch(self, path: str, load: Callable[[bytes], Loaded], *, variant: str = "") -> Loaded:
        """The image of a file as ``load`` returns it, or returned it when the file had the same content.

        A changed file is noticed by its size or either of its times (of content, of the entry in the file system),
        which a program can set back only together with the clock.

        Args:
            path: of the image file.
            load: decodes the bytes of the file and resizes the image: uint8 (h, w, 3), and the file's height and width.
            variant: what else the result of ``load`` depends on.

        Raises:
            UserError: the cache is full, or cannot be written to; whatever ``load`` raises.
        """
        stamp = _stamp(path)
        entry = self._find_index_entry(path, variant)
        content = _read_index(entry, stamp) if stamp else None
        if content is not None:
            found = _read_entry(self._images / content[:2] / content, self._is_raw)
            if found is not None:
                return found
        data = read_image_file(path)
        digest = hashlib.blake2b(data, digest_size=16, person=_DECODERS)
        digest.update(variant.encode())
        target = self._images / _spread(digest)
        found = _read_entry(target, self._is_raw)
        if found is None:
            image, source_size = load(data)
            found = self._store(target, image, source_size), source_size
        # The stamp is from before reading: it does not fit a file that changed meanwhile.
        if stamp:
            self._write(entry, [_INDEX_ENTRY.pack(*stamp, digest.digest())])
        return found

    def measure_used(self) -> int:
        """Count the bytes in the folder anew, and remove what interrupted processes left."""
        with self._lock():
            used = sum(
                _measure_file(os.path.join(folder, name))
                for folder, _, names in os.walk(self._folder)
                for name in names
                if folder != str(self._folder)
            )
            (self._folder / "used").write_text(str(used))
        return used

    def holds(self, path: str, variant: str = "") -> bool:
        """Whether the image of a file, with the parameters of :meth:`fetch`, is in the cache already."""
        stamp = _stamp(path)
        content = _read_index(self._find_index_entry(path, variant), stamp) if stamp else None
        return content is not None and (self._images / content[:2] / content).exists()

    def _find_index_entry(self, path: str, variant: str) -> Path:
        name = hashlib.blake2b(os.fsencode(os.path.abspath(path)), digest_size=16, person=_DECODERS)
        name.update(b"\0" + variant.encode())
        return self._folder / "index" / _spread(name)

    def _store(self, target: Path, image: np.ndarray, source_size) -> np.ndarray:
        if self._is_raw:
            payload = memoryview(np.ascontiguousarray(image)).cast("B")
        else:
            payload = _encode(image)
            # Return what later calls will read, so that a sample does not depend on which call came first.
            image = _decode(payload, image.shape[:2])
        header = _HEADER.pack(_MAGIC, *source_size, *image.shape[:2], zlib.crc32(payload), len(payload))
        self._write(target, [header, payload])
        return image

    def _write(self, target: Path, parts: Sequence) -> None:
        if not target.exists():
            self._reserve(sum(len(part) for part in parts))

        def write():
            target.parent.mkdir(parents=True, exist_ok=True)
            # No fsync: after a power cut a checksum fails and the file is made anew.
            temporary = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            try:
                with open(temporary, "wb") as file:
                    file.writelines(parts)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

        _write_to_disk(write, self._folder)

    def _reserve(self, num_bytes: int) -> None:
        with self._lock():
            counter = self._folder / "used"
            text = counter.read_text() if counter.exists() else "0"
            # A damaged count is set right by `measure_used`, at the start of the next training.
            used = (int(text) if text.isdigit() else 0) + num_bytes
            if used > self._max_gb * _GB:
                raise UserError(
                    f"The cache in '{self._folder}' is full: INPUT.CACHE_GB {self._max_gb:g} GB are used; raise it, "
                    "choose INPUT.CACHE_FORMAT jpeg, or delete the folder if it holds images that are not needed."
                )
            counter.write_text(str(used))

    @contextmanager
    def _lock(self) -> Iterator[None]:
        with _write_to_disk(lambda: open(self._folder / "lock", "ab"), self._folder) as file:
            wait_for_lock(file, fcntl.LOCK_EX, path=file.name)
            yield


class SharedMemoryFolder:
    """A folder in the machine's shared memory that the last of the processes using it removes when it ends.

    All processes of a user share it, workers and other trainings too; one that is killed leaves it to the next one.
    """

    def __init__(self, root: Path = _SHARED_MEMORY):
        if not root.is_dir():
            raise UserError(f"INPUT.CACHE ram needs shared memory in '{root}', which this system lacks; choose disk.")
        self.path = root / f"parking-{os.getuid()}"
        self._pid = os.getpid()
        self._fd: int | None = None
        while self._fd is None:
            self._fd = _write_to_disk(self._join, self.path)
        # Not when the object is deleted: the next data loader of the training uses the folder again.
        atexit.register(self.close)

    def _join(self) -> int | None:
        """Make the folder if needed and open its locked file; None if the last user removed the folder meanwhile."""
        self.path.mkdir(mode=0o700, exist_ok=True)
        if not self.path.is_dir() or self.path.is_symlink() or self.path.lstat().st_uid != os.getuid():
            raise UserError(f"INPUT.CACHE ram cannot use '{self.path}', which belongs to another user; choose disk.")
        users = self.path / "users"
        try:
            fd = os.open(users, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return None
        wait_for_lock(fd, fcntl.LOCK_SH, path=users)
        if is_still_there(fd, users):
            return fd
        os.close(fd)
        return None

    def close(self) -> None:
        """Give the folder up; in a forked worker, which shares its parent's lock, this does nothing."""
        if self._fd is None or self._pid != os.getpid():
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(self.path, ignore_errors=True)
        except BlockingIOError:
            logger.debug("'%s' is still used by another process", self.path)
        os.close(self._fd)
        self._fd = None


def check_outside_image_folders(folder: str | os.PathLike, file_names: Iterable[str]) -> None:
    """Refuse a cache folder among the user's images.

    Raises:
        UserError: it is, or lies in, a folder that holds one of the files.
    """
    cache = Path(folder).resolve()
    for image_folder in sorted({os.path.dirname(name) for name in file_names}):
        if cache.is_relative_to(Path(image_folder).resolve()):
            raise UserError(
                f"INPUT.CACHE_DIR '{folder}' lies in the image folder '{image_folder}', where nothing is ever written; "
                "choose another folder."
            )


def check_room(folder: str | os.PathLike, *, needed: int, used: int, max_gb: float, cache: str) -> None:
    """Refuse a cache that will not fit, before anything is decoded.

    Args:
        needed: bytes from :func:`estimate_cache_bytes` of the images that are not in the cache yet.
        used: bytes in the folder.
        max_gb: INPUT.CACHE_GB.
        cache: INPUT.CACHE, for the message.

    Raises:
        UserError: it would exceed ``max_gb`` or what is free.
    """
    advice = "choose INPUT.CACHE_FORMAT jpeg (an eighth of raw) or INPUT.CACHE none"
    if needed + used > max_gb * _GB:
        present = f" beside {used / _GB:.1f} GB in '{folder}'" if used > 0.05 * _GB else ""
        raise UserError(
            f"The images take {needed / _GB:.1f} GB in the cache{present}, more than INPUT.CACHE_GB {max_gb:g}; raise "
            f"it, or {advice}."
        )
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"The images take {needed / _GB:.1f} GB in the cache, but '{folder}' has only {free / _GB:.1f} GB left; "
            + ("set INPUT.CACHE_DIR to a larger disk, " if cache == "disk" else "choose INPUT.CACHE disk, ")
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
    """An image and the size of its file; None if there is none or it is damaged."""
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


def _read_index(entry: Path, stamp: tuple[int, int, int]) -> str | None:
    """The hash of a file's content, as hex, if it has not been touched since."""
    try:
        data = entry.read_bytes()
    except OSError:
        return None
    if len(data) != _INDEX_ENTRY.size:
        return None
    *old_stamp, digest = _INDEX_ENTRY.unpack(data)
    return digest.hex() if tuple(old_stamp) == stamp else None


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns, info.st_ctime_ns


def _spread(digest) -> str:
    name = digest.hexdigest()
    return f"{name[:2]}/{name}"


def _measure_file(path: str) -> int:
    """Bytes of a file; 0 if it is gone, or if it is an old unfinished file, which this removes."""
    try:
        info = os.stat(path)
        if path.endswith(".tmp") and time.time() - info.st_mtime > _MAX_SECONDS_TO_WRITE:
            os.unlink(path)
            return 0
    except FileNotFoundError:
        return 0
    return info.st_size


def _write_to_disk(action: Callable, folder: Path):
    try:
        return action()
    except OSError as e:
        raise UserError(
            f"The cache in '{folder}' cannot be written: {e.strerror or e}; make room, or choose another "
            "INPUT.CACHE_DIR or INPUT.CACHE."
        ) from e
