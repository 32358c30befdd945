"""Open videos such that FFmpeg reads only what the user named; needs neither torch nor detectron2.

FFmpeg recognises formats by content, and some formats make it open other files: playlists (HLS, DASH), lists (concat)
and session descriptions. So FFmpeg may open a file only as one of the containers below, which refer to no other file,
and a stream only by a network protocol.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import cv2

from parking.utils.errors import UserError
from parking.utils.files import open_regular
from parking.utils.text import printable

# Environment variable that OpenCV reads whenever it opens a video: options for FFmpeg as "key;value|key;value".
_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_LOG_LEVEL, _QUIET = "OPENCV_FFMPEG_LOGLEVEL", "-8"
# The options that OpenCV uses if this variable is not set.
_DEFAULT_OPTIONS = "rtsp_flags;prefer_tcp"
_NETWORK_PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,srtp,rtmp,rtmps,rtmpt,rtmpe,srt,crypto"
_NETWORK_TIMEOUT_MS = 10_000

# FFmpeg's names of the containers that a file may have.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm,flv,asf,mpeg,mpegvideo,mpegts"


def check_utf8(name: str) -> None:
    """Raise a UserError if a file name is not UTF-8, because OpenCV 5.0 crashes at such a name."""
    try:
        name.encode()
    except UnicodeEncodeError as e:
        raise UserError(f"The name '{printable(name)}' is not UTF-8, which OpenCV needs; rename it.") from e


def open_video_file(path: str) -> cv2.VideoCapture | None:
    """Open a video file; return None if it cannot be opened as one of the known containers.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    open_regular(path).close()
    # Give an absolute path, because FFmpeg would take the part of a relative path before a colon for a protocol.
    with _ffmpeg_options(f"format_whitelist;{_FORMATS}|protocol_whitelist;file"):
        return _open(os.path.abspath(path), cv2.CAP_FFMPEG)


def open_stream(url: str) -> cv2.VideoCapture | None:
    """Open a URL with FFmpeg, which may use only network protocols; return None if that fails."""
    keys = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
    timeouts = [value for key in keys for value in (key, _NETWORK_TIMEOUT_MS)]
    with _ffmpeg_options(f"protocol_whitelist;{_NETWORK_PROTOCOLS}"):
        return _open(url, cv2.CAP_FFMPEG, timeouts)


def open_camera(camera: str) -> cv2.VideoCapture | None:
    """Open a camera by its number or the path of its device; return None if that fails."""
    if camera.isdecimal():
        return _open(int(camera), cv2.CAP_ANY)
    try:
        is_device = stat.S_ISCHR(os.stat(camera).st_mode)
    except (OSError, ValueError):
        is_device = False
    return _open(camera, cv2.CAP_V4L2) if is_device else None


@contextmanager
def _ffmpeg_options(options: str) -> Iterator[None]:
    """In the block, append ``options`` to the user's FFmpeg options, or to OpenCV's defaults if the user sets none."""
    before = os.environ.get(_OPTIONS)
    os.environ[_OPTIONS] = f"{_DEFAULT_OPTIONS if before is None else before}|{options}"
    # Silence FFmpeg, whose lines on stderr would only repeat our error message.
    os.environ.setdefault(_LOG_LEVEL, _QUIET)
    try:
        yield
    finally:
        if before is None:
            del os.environ[_OPTIONS]
        else:
            os.environ[_OPTIONS] = before


def _open(source: int | str, api: int, params: list[int] | None = None) -> cv2.VideoCapture | None:
    # Silence OpenCV's warnings about a source that it cannot open; the caller reports it.
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(source, api, params or [])
    finally:
        cv2.utils.logging.setLogLevel(level)
    return capture if capture.isOpened() else None
