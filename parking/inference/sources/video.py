"""Frames of a video file, a folder of frames, a camera or a stream; needs neither torch nor detectron2.

A thread reads ahead. Files and folders wait for whoever takes the frames; live sources, which cannot wait, keep only
the newest frame and count those that nobody took.
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

#: Frames per second of a folder for which none are given.
DEFAULT_FOLDER_FPS = 10.0

_LIVE_SCHEMES = frozenset({"http", "https", "rtmp", "rtmps", "rtp", "rtsp", "rtsps", "srt", "tcp", "udp"})
# Frame rate used if a source states none or an impossible one (OpenCV gives 0, NaN, or a clock's 90000); limits of
# possible ones.
_FALLBACK_FPS, _MIN_FPS, _MAX_FPS = 25.0, 0.01, 1000.0
# Number of frames read ahead; each takes 6 MB at 1920x1080.
_NUM_READ_AHEAD = 4
_MAX_NOTED = 10
# Most characters of an address that go into a file name.
_MAX_STEM = 60

logger = logging.getLogger(__name__)


class Frame(NamedTuple):
    """One picture of a source.

    Attributes:
        index: its number in the source from 0; of live sources those that were dropped count as well.
        time: seconds since the source's beginning, of live sources since the first frame that was taken.
        image: (H, W, 3) uint8 RGB, as it is shown: a rotation that a video file asks for is applied.
        file_name: of a folder's frames, relative to the folder; else None.
    """

    index: int
    time: float
    image: np.ndarray
    file_name: str | None = None


def is_live_input(input: str) -> bool:
    """Whether ``input`` means a camera ("0", "1", ... or /dev/video0) or a stream (a URL other than a file's)."""
    if _is_camera(input):
        return True
    scheme, rest = _split_url(input)
    return scheme in _LIVE_SCHEMES and not (scheme in ("http", "https") and _has_video_name(_cut_query(rest)))


def is_video_input(input: str) -> bool:
    """Whether ``input`` means a video or a live source, by its form and ending alone; folders are not videos."""
    scheme, rest = _split_url(input)
    return is_live_input(input) or _has_video_name(_cut_query(rest) if scheme else input)


def open_source(input: str, *, fps: float | None = None, orientation: str = AUTO) -> "FrameSource":
    """Open what ``input`` means and start reading.

    Args:
        input: a video file or its http address; a folder of frames, which are sorted by their names with numbers by
            their value; a camera's number or device; or a stream's URL.
        fps: frames per second of a folder (by default 10); it has no effect on everything else, which states its own.
        orientation: INPUT.EXIF_ORIENTATION, for the frames of a folder.

    Returns:
        An iterator over :class:`Frame`, to be closed, as by ``with``.

    Raises:
        UserError: it cannot be opened, holds no frame that can be read, or ``fps`` is not possible.
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
    """Iterates once over the frames of a reader, which a thread reads ahead, and closes it.

    A reader's ``read`` gives the next frame, and None after the last one. It raises UnreadableImageError for a frame
    that cannot be decoded.

    Attributes:
        name: what messages call it; never with a password.
        stem: the name, without ending, for the files of its results.
        path: of a file or folder; else None.
        fps: frames per second.
        num_frames: as announced, which may be wrong; None: unknown.
        is_live: whether frames come whether they are taken or not.
        size: height and width in pixels, the same for all frames.
        num_dropped: frames of a live source that were not taken, counted from the first that was.
        num_unreadable: frames that could not be decoded and are missing.
        unreadable: a sentence for each of the first ten of them.
    """

    def __init__(self, reader: "CaptureReader | FolderReader"):
        """
        Args:
            reader: becomes this object's to close, also when this raises.

        Raises:
            UserError: it has no frame that can be read.
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
        # A daemon, so that a source that nobody closes does not keep the process alive.
        self._thread = threading.Thread(target=self._run, args=(first,), name=f"frames of {self.name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> "FrameSource":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and the iteration. Waits for a read in progress, on a silent stream for 10 s at most."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._ended)
        self._thread.join()

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        """Raises what reading raised: UserError if a frame has another size than earlier ones."""
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
        # Frames that came while a model was loaded are not part of the run.
        self._origin = self._origin or frame
        return frame._replace(index=frame.index - self._origin.index, time=frame.time - self._origin.time)

    def _run(self, frame: Frame | None) -> None:
        try:
            while frame is not None and self._put(frame):
                frame = self._read()
                if frame is not None and frame.image.shape[:2] != self.size:
                    raise UserError(self._describe_other_size(frame))
        except BaseException as e:
            # `__next__` raises it, in the thread that takes the frames.
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
        """Returns False if no more frames are wanted."""
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
            f"{self.name}: frame {which} has {new_width}x{new_height} pixels and those before {width}x{height}; give "
            "frames of one size."
        )


class CaptureReader:
    """Reads a ``cv2.VideoCapture``, or what behaves like one."""

    def __init__(self, capture, *, name: str, stem: str, path: str | None = None, is_live: bool = False):
        self.name, self.stem, self.path, self.is_live = name, stem, path, is_live
        self._capture = capture
        self._num_grabbed = 0
        self.fps = self._read_fps()
        self._last_time = -1 / self.fps
        # The count is negative for formats without a length.
        count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.num_frames = int(count) if not is_live and math.isfinite(count) and count >= 1 else None

    def read(self) -> Frame | None:
        # Not `capture.read`, which cannot tell a damaged frame from the end.
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
            # Some formats have no time stamps, or wrong ones.
            seconds = self._last_time + 1 / self.fps
        self._last_time = seconds
        return seconds

    def _report_end(self) -> None:
        if self.is_live:
            logger.warning("%s has ended: no more frames come from it", self.name)
        # For formats that announce only a duration, the count is a little off.
        elif self.num_frames is not None and self._num_grabbed < self.num_frames - 1 - self.num_frames // 100:
            logger.warning(
                "%s ended after %d of the %d frames that it announces; it may be damaged or cut off",
                self.name,
                self._num_grabbed,
                self.num_frames,
            )


class FolderReader:
    """Reads the images of a folder, without its subfolders, as frames."""

    is_live = False

    def __init__(self, folder: str, fps: float, orientation: str = AUTO):
        """Raises UserError: the folder cannot be read or holds no images."""
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
    # Texts and numbers alternate, so that a text is never compared with a number.
    parts = re.split(r"(\d+)", Path(name).stem.lower())
    return [int(part) if part.isdecimal() else part for part in parts], name


def _is_camera(input: str) -> bool:
    return re.fullmatch(r"[0-9]{1,3}|/dev/(video[0-9]+|v4l/.+)", input) is not None and not os.path.isdir(input)


def _split_url(input: str) -> tuple[str, str]:
    """The scheme in lower case, "" if it is not a URL, and what follows "://"."""
    match = re.fullmatch(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(.*)", input, flags=re.DOTALL)
    return (match[1].lower(), match[2]) if match else ("", input)


def _cut_query(rest: str) -> str:
    return re.split(r"[?#]", rest, maxsplit=1)[0]


def _hide_secrets(rest: str) -> str:
    """What follows "://" without user, password and query, which may hold a key."""
    shown = _cut_query(rest)
    # An "@" after a "?" means that the password has a "?" in it.
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
