"""Read frames from a video file, a folder, a camera or a stream; needs neither torch nor detectron2.

A thread reads ahead. With files and folders it waits until the user of :class:`FrameSource` has taken frames. Live
sources (cameras and streams) cannot wait: only their newest frame is kept, and frames that nobody took are counted.
"""

import logging
import math
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import cv2
import numpy as np

from parking.data.datasets.file_names import IMAGE_EXTENSIONS, VIDEO_EXTENSIONS, is_image_name
from parking.data.datasets.listing import list_files
from parking.data.decoding.orientation import AUTO
from parking.data.image_io import UnreadableImageError, read_image
from parking.utils.errors import UserError
from parking.utils.files import describe_missing
from parking.utils.text import printable

from .video_opening import check_utf8, open_camera, open_stream, open_video_file

#: Frame rate of a folder of frames if the user states none.
DEFAULT_FOLDER_FPS = 10.0

_LIVE_SCHEMES = frozenset({"http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
# Frame rate for a source that states none or an impossible one (OpenCV returns 0, NaN, or the 90000 ticks of a clock),
# and the lowest and highest rate that are possible.
_FALLBACK_FPS, _MIN_FPS, _MAX_FPS = 25.0, 0.01, 1000.0
# Number of frames that are read ahead and held in memory; each takes 6 MB at 1920x1080.
_NUM_READ_AHEAD = 4
# Number of unreadable frames that are reported one by one.
_MAX_NOTED = 10
# Longest file name, in characters, that is made from the address of a stream.
_MAX_STEM = 60

logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """One picture of a video, folder, camera or stream.

    Attributes:
        index: number of the frame in the source, from 0; dropped frames of a live source are counted, too.
        time: seconds since the beginning of the source; for a live source, since the first frame that was taken.
        image: (H, W, 3) uint8 RGB, upright: the rotation that a video file states has been applied.
        file_name: name of the image file, relative to its folder; None unless the source is a folder.
    """

    index: int
    time: float
    image: np.ndarray
    file_name: str | None = None


def is_live_input(input: str) -> bool:
    """Return whether ``input`` is a camera ("0", ... or /dev/video0) or a stream (a URL that names no video file)."""
    if _is_camera(input):
        return True
    scheme, rest = _split_url(input)
    return scheme in _LIVE_SCHEMES and not (scheme in ("http", "https") and _has_video_name(_cut_query(rest)))


def is_video_input(input: str) -> bool:
    """Return whether ``input`` looks like a camera, a URL or, by its ending, a video file; False for folders."""
    scheme, rest = _split_url(input)
    return is_live_input(input) or _has_video_name(_cut_query(rest) if scheme else input)


def open_source(input: str, *, fps: float | None = None, orientation: str = AUTO) -> "FrameSource":
    """Open the video, folder, camera or stream that ``input`` names, and start reading.

    Args:
        input: a video file or its http address; a folder of frames, sorted by name such that frame 2 comes before
            frame 10; a camera's number or device; or a stream's URL.
        fps: frames per second of a folder (default 10); other sources state their own, and this has no effect.
        orientation: INPUT.EXIF_ORIENTATION, for the frames of a folder.

    Returns:
        An iterator over :class:`Frame`, which the caller must close, for example by ``with``.

    Raises:
        UserError: ``input`` cannot be opened or has no readable frame, or ``fps`` is impossible.
    """
    if fps is not None and not _MIN_FPS <= fps <= _MAX_FPS:
        raise UserError(f"{fps} frames a second are not possible; give a number from {_MIN_FPS:g} to {_MAX_FPS:g}.")
    if _is_camera(input):
        reader = _open_camera(input)
    elif _split_url(input)[0]:
        reader = _open_url(input)
    elif os.path.isdir(input):
        reader = FolderReader(input, DEFAULT_FOLDER_FPS if fps is None else fps, orientation)
    else:
        reader = _open_file(input)
    return FrameSource(reader)


class FrameSource:
    """Iterates once over the frames of a reader, which a thread reads ahead; the thread closes the reader.

    The ``read`` method of a reader returns the next frame, or None after the last one; it raises UnreadableImageError
    for a frame that cannot be decoded.

    Attributes:
        name: name of the source in messages; it never contains a password.
        stem: name for the result files, without ending.
        path: path of a file or folder; None for other sources.
        fps: frames per second.
        num_frames: number of frames that the source states, which may be wrong; None if it states none.
        is_live: whether this is a camera or stream, whose frames come whether anybody takes them or not.
        size: height and width in pixels, the same for all frames.
        num_dropped: number of frames of a live source that nobody took, counted from the first that was taken.
        num_unreadable: number of frames that could not be decoded and were skipped.
        unreadable: a sentence for each of the first ten unreadable frames.
    """

    def __init__(self, reader: "CaptureReader | FolderReader"):
        """
        Args:
            reader: is closed by this object, also if this constructor raises an error.

        Raises:
            UserError: the reader has no readable frame.
        """
        self.name, self.stem, self.path = reader.name, reader.stem, reader.path
        self.fps, self.num_frames, self.is_live = reader.fps, reader.num_frames, reader.is_live
        self.num_dropped = self.num_unreadable = 0
        self.unreadable: list[str] = []
        self._reader = reader
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._origin: Frame | None = None
        try:
            first = self._read()
            if first is None:
                raise UserError(f"{self.name} holds no frame that can be read; check that it plays elsewhere.")
        except BaseException:
            reader.close()
            raise
        self.size = first.image.shape[:2]
        # Use a daemon thread, so that a source which nobody closes does not keep the process alive.
        self._thread = threading.Thread(target=self._run, args=(first,), name=f"frames of {self.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "FrameSource":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and the iteration; wait for a read in progress, which may take 10 s if a stream is silent."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended)
        self._thread.join()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """Return the next frame; raise the error that ended reading, such as UserError if frames differ in size."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ended or self._closed)
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return self._count_from_first(frame) if self.is_live else frame
            if self._error is not None and not self._closed:
                raise self._error
            raise StopIteration

    def _count_from_first(self, frame: Frame) -> Frame:
        # Count from the first frame that __next__ returned; frames from before, while the model loaded, do not count.
        self._origin = self._origin or frame
        return frame._replace(index=frame.index - self._origin.index, time=frame.time - self._origin.time)

    def _run(self, frame: Frame | None) -> None:
        try:
            while frame is not None and self._put(frame):
                frame = self._read()
                if frame is not None and frame.image.shape[:2] != self.size:
                    raise UserError(self._describe_other_size(frame))
        except BaseException as e:
            # Keep the error for `__next__`, which raises it in the thread that takes the frames.
            self._error = e
        finally:
            try:
                self._reader.close()
            finally:
                with self._changed:
                    self._ended = True
                    self._changed.notify_all()

    def _read(self) -> Frame | None:
        while not self._closed:
            try:
                return self._reader.read()
            except UnreadableImageError as e:
                self.num_unreadable += 1
                if len(self.unreadable) < _MAX_NOTED:
                    self.unreadable.append(str(e))
                    logger.warning("%s", e)
        return None

    def _put(self, frame: Frame) -> bool:
        """Add a frame to those that ``__next__`` will return; return False if the source was closed."""
        with self._changed:
            if self.is_live:
                if self._origin is not None:
                    self.num_dropped += len(self._frames)
                self._frames.clear()
            else:
                self._changed.wait_for(lambda: self._closed or len(self._frames) < _NUM_READ_AHEAD)
            if self._closed:
                return False
            self._frames.append(frame)
            self._changed.notify_all()
            return True

    def _describe_other_size(self, frame: Frame) -> str:
        which = frame.index if frame.file_name is None else f"'{printable(frame.file_name)}'"
        (height, width), (new_height, new_width) = self.size, frame.image.shape[:2]
        return (
            f"{self.name}: frame {which} has {new_width}x{new_height} pixels, earlier frames {width}x{height}; give "
            "frames of one size."
        )


class CaptureReader:
    """Reads frames from a ``cv2.VideoCapture`` or an object with the same methods."""

    def __init__(self, capture, *, name: str, stem: str, path: str | None = None, is_live: bool = False):
        self.name, self.stem, self.path, self.is_live = name, stem, path, is_live
        self._capture = capture
        self._num_grabbed = 0
        self.fps = self._read_fps()
        self._last_time = -1 / self.fps
        # For formats that state no length, the count is negative.
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = int(count) if not is_live and math.isfinite(count) and count >= 1 else None

    def read(self) -> Frame | None:
        # Call grab and retrieve, because False from `capture.read` may mean either a damaged frame or the end.
        if not self._capture.grab():
            self._report_end()
            return None
        index = self._num_grabbed
        self._num_grabbed += 1
        seconds = self._read_time()
        ok, image = self._capture.retrieve()
        if not ok:
            raise UnreadableImageError(f"{self.name}: frame {index} cannot be decoded.")
        return Frame(index, seconds, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))

    def close(self) -> None:
        self._capture.release()

    def _read_fps(self) -> float:
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        if math.isfinite(fps) and 0 < fps <= _MAX_FPS:
            return fps
        if not self.is_live:
            logger.warning("%s states no usable frame rate; %g frames per second are assumed", self.name, _FALLBACK_FPS)
        return _FALLBACK_FPS

    def _read_time(self) -> float:
        if self.is_live:
            return monotonic()
        seconds = max(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 0.0)
        if not (math.isfinite(seconds) and seconds > self._last_time):
            # The format has no time stamps or wrong ones; derive the time from the frame rate.
            seconds = self._last_time + 1 / self.fps
        self._last_time = seconds
        return seconds

    def _report_end(self) -> None:
        if self.is_live:
            logger.warning("%s has ended: no more frames come from it", self.name)
        # Do not warn if one frame and 1 % are missing: if the format states only a duration, num_frames is an estimate.
        elif self.num_frames is not None and self._num_grabbed < self.num_frames - 1 - self.num_frames // 100:
            logger.warning(
                "%s ended after %d of the %d frames that it states; it may be damaged or cut off",
                self.name,
                self._num_grabbed,
                self.num_frames,
            )


class FolderReader:
    """Reads the images of a folder, without its subfolders, as frames."""

    is_live = False

    def __init__(self, folder: str, fps: float, orientation: str = AUTO):
        """
        Raises:
            UserError: the folder cannot be read or holds no images.
        """
        self._orientation = orientation
        self.name, self.path, self.fps = f"The folder '{printable(folder)}'", folder, fps
        self.stem = Path(folder).resolve().name or "frames"
        try:
            names = [entry.name for entry in os.scandir(folder) if is_image_name(entry.name) and entry.is_file()]
            listing = list_files(folder, names)
        except OSError as e:
            raise UserError(f"{self.name} cannot be read: {e.strerror or e}.") from e
        names, passed_over = listing.names, listing.describe_passed_over()
        if names and passed_over:
            logger.warning("%s: not looked at: %s", self.name, passed_over)
        if not names:
            endings = ", ".join(sorted(IMAGE_EXTENSIONS))
            others = f", but {passed_over}" if passed_over else ""
            raise UserError(f"{self.name} holds no frames{others}; known extensions are {endings}.")
        self._names = sorted(names, key=_natural_key)
        self.num_frames = len(names)
        self._next = 0

    def read(self) -> Frame | None:
        if self._next == len(self._names):
            return None
        index, name = self._next, self._names[self._next]
        self._next += 1
        image = read_image(os.path.join(self.path, name), orientation=self._orientation)
        return Frame(index, index / self.fps, image, name)

    def close(self) -> None:
        pass


def _natural_key(name: str) -> tuple:
    # In each key, strings and numbers alternate, so that a string is never compared with a number.
    parts = re.split(r"(\d+)", Path(name).stem.lower())
    return [int(part) if part.isdecimal() else part for part in parts], name


def _is_camera(input: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}|/dev/(video[0-9]+|v4l/.+)", input) is not None and not os.path.isdir(input)


def _split_url(input: str) -> tuple[str, str]:
    """Return the scheme in lower case and what follows "://"; without "://", "" and the whole ``input``."""
    match = re.fullmatch(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", input, flags=re.DOTALL)
    return (match[1].lower(), match[2]) if match else ("", input)


def _cut_query(rest: str) -> str:
    return re.split(r"[?#]", rest, maxsplit=1)[0]


def _hide_secrets(rest: str) -> str:
    """Remove user, password and query, which may hold a key, from ``rest``, the part of a URL after "://"."""
    shown = _cut_query(rest)
    # An "@" after a "?" means that the password contains a "?", so show nothing of the address.
    return "..." if "@" in rest[len(shown) :] else shown.rpartition("@")[2]


def _has_video_name(path: str) -> bool:
    return os.path.splitext(path)[1].lower() in VIDEO_EXTENSIONS and not os.path.isdir(path)


def _open_camera(input: str) -> CaptureReader:
    name, stem = f"The camera {input}", "camera_" + re.sub(r"\W+", "_", input.removeprefix("/dev/"))
    capture = open_camera(input)
    if capture is None:
        raise UserError(f"{name} cannot be opened; check that it is connected and that no other program uses it.")
    return CaptureReader(capture, name=name, stem=stem, is_live=True)


def _open_url(input: str) -> CaptureReader:
    scheme, rest = _split_url(input)
    address = _hide_secrets(rest)
    name = f"The stream {scheme}://{address}"
    if scheme not in _LIVE_SCHEMES:
        raise UserError(f"{name} cannot be read; known are {', '.join(sorted(_LIVE_SCHEMES))}.")
    check_utf8(input)
    capture = open_stream(input)
    if capture is None:
        raise UserError(f"{name} cannot be opened; check the address, the login and the network.")
    stem = re.sub(r"[^\w.-]+", "_", address).strip("._")[:_MAX_STEM] or "stream"
    return CaptureReader(capture, name=name, stem=stem, is_live=is_live_input(input))


def _open_file(input: str) -> CaptureReader:
    name = f"'{printable(input)}'"
    if not os.path.isfile(input):
        what = describe_missing(input)
        raise UserError(f"{name} {what}; give a video file, a folder of frames, a camera's number or a URL.")
    if not _has_video_name(input):
        kind = "an image, and not a video" if is_image_name(input) else "not a video file"
        raise UserError(f"{name} is {kind}; known extensions are {', '.join(sorted(VIDEO_EXTENSIONS))}.")
    check_utf8(input)
    try:
        capture = open_video_file(input)
    except OSError as e:
        raise UserError(f"The video {name} cannot be opened: {e.strerror or e}.") from e
    if capture is None:
        raise UserError(
            f"The video {name} cannot be opened: it is damaged, empty, or not a video that is read here (by its "
            "content MP4, MOV, AVI, MKV, WebM, FLV, MPEG or WMV; playlists are not followed)."
        )
    return CaptureReader(capture, name=f"The video {name}", stem=Path(input).stem, path=input)
