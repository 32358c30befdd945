"""Find objects in a video or live source; write an annotated video and a file with a JSON line for each frame."""

import errno
import itertools
import json
import logging
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from detectron2.structures import Instances
from tqdm import tqdm

from parking.inference.sources.video import Frame, FrameSource
from parking.inference.sources.video_opening import check_utf8
from parking.utils.errors import UserError
from parking.utils.files import UNFINISHED_ENDING, locked
from parking.utils.marks import OutputFolder, describe_file
from parking.utils.text import printable
from parking.visualization.frame_painter import FramePainter

from .image_detections import ImageDetections

# Highest frame rate and longest side of the video that is written for a live source. Because of these limits, encoding
# keeps up with the source even when frames are repeated.
_MAX_LIVE_FPS = 25.0
_MAX_LIVE_SIDE = 1920
# Disk space that must stay free to finish a video: its index takes about 2 MB for each hour.
_MIN_FREE_BYTES = 16 << 20

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoReport:
    """The results of :func:`predict_video`.

    Attributes:
        files: paths by "detections" and, if a video was made, "video".
        num_frames: number of frames that were predicted and written.
        num_boxes: number of boxes that were written.
        interrupted: whether Ctrl-C ended the run.
    """

    files: dict[str, str]
    num_frames: int
    num_boxes: int
    interrupted: bool


def predict_video(
    detect: Callable[[Iterable[list[np.ndarray]]], Iterable[Sequence[Instances]]],
    source: FrameSource,
    *,
    output_dir: str,
    batch_size: int = 1,
    classes: Mapping[str, int],
    display_names: Sequence[str] | None = None,
    min_score: float,
    save_video: bool = True,
) -> VideoReport:
    """Find objects in the frames of ``source`` until it ends or Ctrl-C is pressed; write them, with a progress bar.

    ``<output_dir>/<source.stem>.jsonl`` gets a line for each frame as soon as it is predicted, a JSON object::

        {"frame": 12, "time": 0.48, "counts": {"sedan": 1}, "detections": [
            {"category_id": 1, "class_name": "sedan", "bbox": [x, y, width, height], "score": 0.91}]}

    "frame" and "time" are ``index`` and ``time`` (seconds) of :class:`~parking.inference.sources.video.Frame`, and
    frames of a folder also have a "file_name"; "bbox" is in pixels of the frame, rounded to 0.001. Boxes that score at
    least ``min_score`` are listed, counted and drawn; others are left out.

    ``<output_dir>/<source.stem>.mp4`` (MPEG-4) shows the boxes and the counts. It has one picture for each frame, at
    the source's rate; in place of a frame that could not be decoded, the previous picture is repeated. The video of a
    live source plays in real time: it has at most 25 pictures a second, repeats each until the next predicted one, and
    is reduced to 1920 pixels. If the width or height is odd, the last column or row appears twice.

    Files of an earlier run are replaced if this product wrote them for the same source, so two videos of the same name
    do not overwrite each other's results. If an error is raised, both files are complete up to that frame.

    Args:
        detect: takes batches of pictures of one size, each (H, W, 3) uint8 RGB, and yields the detections in each
            batch, as :meth:`.detector.ArrayDetector.detect_ahead` does.
        source: the frames; the caller closes it.
        output_dir: where the files go; made if needed.
        batch_size: number of frames in a batch for ``detect``; it is 1 for a live source.
        classes: category id by class name; the order of the classes determines their colours.
        display_names: names to draw instead, one for each class.
        min_score: 0..1.
        save_video: whether to make the video; if not, the video of an earlier run is removed.

    Raises:
        UserError: a result would overwrite the source itself, a file that this product did not write or the result of
            another source; the video cannot be made; or ``source`` raises it.
        OSError: a result cannot be written, for example because the disk is full.
    """
    folder, path = OutputFolder(output_dir), Path(output_dir, f"{source.stem}.jsonl")
    names = {"detections": path.name, "video": f"{source.stem}.mp4"}
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_name(f".{source.stem}.lock"), busy=f"another infer.py is writing '{path}'; wait for it."):
        origin = _describe_source(source)
        _check_outputs(folder, names.values(), source, origin)
        folder.check(names.values() if save_video else [path.name])
        folder.remove(names["video"])
        _unfinished(folder.root / names["video"]).unlink(missing_ok=True)  # left by a killed run
        video = None
        if save_video:
            painter = FramePainter(list(classes), display_names, max_side=_MAX_LIVE_SIDE if source.is_live else None)
            video = _AnnotatedVideo(folder, names["video"], painter, source, origin)
        start = time.perf_counter()
        interrupted = False
        writer = _ResultWriter(folder, path.name, origin, video, classes, min_score)
        try:
            _predict(detect, source, 1 if source.is_live else batch_size, writer)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            writer.close()
        _log_end(source, writer.num_frames, time.perf_counter() - start)
        files = {what: str(folder.root / file) for what, file in names.items() if folder.is_ours(file)}
        return VideoReport(files, writer.num_frames, writer.num_boxes, interrupted)


def _describe_source(source) -> dict[str, str]:
    """Return what identifies ``source`` in later runs: its path and, for a file, a digest; without a path, its name."""
    if source.path is None:
        return {"name": source.name}
    path = os.path.realpath(source.path)
    return {"path": path, **({"content": describe_file(path)} if os.path.isfile(path) else {})}


def _check_outputs(folder: OutputFolder, names: Collection[str], source, origin: Mapping[str, str]) -> None:
    """Raise a UserError if one of the files ``names`` is the source itself or the result of another source."""
    for name in names:
        path = folder.root / name
        if source.path is not None and path.exists() and os.path.samefile(source.path, path):
            raise UserError(f"The result '{path}' would overwrite the video itself; give another --output.")
        earlier = folder.source_of(name) if folder.is_ours(name) else None
        if earlier is not None and not any(earlier.get(key) == value for key, value in origin.items()):
            whose = printable(earlier.get("path") or earlier.get("name"))
            raise UserError(
                f"'{path}' is the result of another source of the same name, '{whose}', and would be "
                "replaced; give another --output."
            )


def _unfinished(video: Path) -> Path:
    """Return the path of an unfinished video; it ends with .mp4, because OpenCV chooses the format by the ending."""
    return video.with_name(f".{video.stem}{UNFINISHED_ENDING}.mp4")


def _predict(detect, source, batch_size, writer):
    with tqdm(total=source.num_frames, desc="predicting", unit="frame", dynamic_ncols=True) as bar:
        begun: deque[list[Frame]] = deque()

        def give_pictures() -> Iterator[list[np.ndarray]]:
            given = iter(source)
            while frames := list(itertools.islice(given, batch_size)):
                begun.append(frames)
                yield [frame.image for frame in frames]

        for found in detect(give_pictures()):
            frames = begun.popleft()
            writer.add(frames, found)
            bar.update(len(frames))
            if source.is_live:
                bar.set_postfix(dropped=source.num_dropped, refresh=False)


def _round_for_mpeg4(fps: float) -> float:
    """Round a frame rate such that OpenCV can write it as a fraction of whole numbers up to 65535, as MPEG-4 needs."""
    return round(fps, 3 if fps < 65 else 2 if fps < 655 else 1)


def _log_end(source, num_frames, seconds):
    rate = num_frames / seconds if seconds > 0 else 0.0
    logger.info("%d frames in %.1f s (%.1f frames/s)", num_frames, seconds, rate)
    if source.is_live:
        logger.info("%d frames were dropped to keep up with the source", source.num_dropped)


class _ResultWriter:
    """Draws and writes the results in a thread, in the order of the frames, while the model works on later frames."""

    def __init__(self, folder: OutputFolder, name: str, origin, video: "_AnnotatedVideo | None", classes, min_score):
        self.num_frames = self.num_boxes = 0
        self._lines = _LineFile(folder, name, origin)
        self._video = video
        self._settings = {"min_score": min_score, "thing_classes": [*classes], "category_ids": [*classes.values()]}
        # Python waits for the threads of an executor before it exits, so the files are complete even if Ctrl-C is
        # pressed again.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="results")
        self._latest: Future | None = None

    def add(self, frames: Sequence[Frame], found: Sequence[Instances]) -> None:
        """Wait for the previous batch, and raise an error if writing it has failed; then begin to write this batch."""
        if self._latest is not None:
            self._latest.result()
        self._latest = self._executor.submit(self._write, frames, found)

    def close(self) -> None:
        """Finish both files; raise the error if the last batch or the end of a file could not be written."""
        end = self._executor.submit(self._close_files)
        # Wait for the work first: if Ctrl-C interrupted shutdown(), Python would no longer wait for the thread.
        wait([end])
        self._executor.shutdown()
        for future in filter(None, (self._latest, end)):
            future.result()

    def _write(self, frames: Sequence[Frame], found: Sequence[Instances]) -> None:
        for frame, instances in zip(frames, found, strict=True):
            detections = ImageDetections.from_instances(instances, image_source=frame.image, **self._settings)
            self._lines.write(_to_record(frame, detections))
            if self._video is not None:
                self._video.add(frame, detections)
            self.num_frames += 1
            self.num_boxes += len(detections)

    def _close_files(self) -> None:
        try:
            self._lines.close()
        finally:
            if self._video is not None:
                self._video.close()


def _to_record(frame: Frame, found: ImageDetections) -> dict:
    counts = Counter(found.class_ids.tolist())
    results = zip(found.to_coco(frame.index), found.class_names, strict=True)
    return {
        "frame": frame.index,
        "time": round(frame.time, 3),
        **({} if frame.file_name is None else {"file_name": frame.file_name}),
        "counts": {found.thing_classes[i]: counts[i] for i in sorted(counts)},
        "detections": [
            {"category_id": r["category_id"], "class_name": class_name, "bbox": r["bbox"], "score": r["score"]}
            for r, class_name in results
        ],
    }


class _LineFile:
    """A file of JSON lines, written without buffering; if a line can be written only in part, the part is removed."""

    def __init__(self, folder: OutputFolder, name: str, origin: Mapping[str, str]):
        self._folder, self._name = folder, name
        path = folder.start(name, source=origin)
        path.unlink(missing_ok=True)
        # Mode "x" fails if a file or link has just appeared at this path.
        self._file = open(path, "xb", buffering=0)  # noqa: SIM115
        self._size = 0

    def write(self, record: Mapping) -> None:
        line = json.dumps(record, separators=(",", ":"), allow_nan=False).encode() + b"\n"
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError:
            self._file.truncate(self._size)
            raise
        self._size += len(line)

    def close(self) -> None:
        self._file.close()
        self._folder.finish(self._name)


class _AnnotatedVideo:
    """Writes an mp4 file, which gets its final name only when it is closed: before that no player can read it.

    Each frame has a position, counted from 0 in pictures of the video. At positions without a frame, the previous
    picture is repeated.
    """

    def __init__(self, folder: OutputFolder, name: str, painter: FramePainter, source: FrameSource, origin: Mapping):
        self._folder, self._name, self._origin, self._painter = folder, name, origin, painter
        self._path = path = folder.root / name
        self._unfinished = _unfinished(path)
        # If the source is live, the position of a frame follows from the frame's time; else it is the frame's index.
        self._by_time = source.is_live
        self._fps = _round_for_mpeg4(min(source.fps, _MAX_LIVE_FPS) if source.is_live else source.fps)
        self._writer: cv2.VideoWriter | None = None
        # The latest picture, in BGR; it is written once the position of the next picture is known.
        self._held: np.ndarray | None = None
        self._num_written = self._end = 0

    def add(self, frame: Frame, found: ImageDetections) -> None:
        position = round(frame.time * self._fps) if self._by_time else frame.index
        picture = self._painter.draw(frame.image, found.boxes, found.class_ids, found.scores)
        height, width = picture.shape[:2]
        # Make both sides even, as MPEG-4 needs; otherwise OpenCV would cut off the last row or column.
        picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._writer is None:
            self._open(picture.shape[1], picture.shape[0])
        else:
            self._write_held(position)
        self._held = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        self._end = position + 1

    def close(self) -> None:
        if self._writer is None:
            return
        try:
            self._write_held(self._end)
        finally:
            self._writer.release()
            self._finish()

    def _open(self, width: int, height: int) -> None:
        fourcc = cv2.VideoWriter_fourcc(*"mp4v")
        check_utf8(str(self._path))
        self._check_room()
        writer = cv2.VideoWriter(str(self._unfinished), cv2.CAP_FFMPEG, fourcc, self._fps, (width, height))
        if not writer.isOpened():
            self._unfinished.unlink(missing_ok=True)
            raise UserError(
                f"The video '{self._path}' of {width}x{height} pixels and {self._fps} frames a second cannot be made: "
                "MPEG-4 allows sides up to 8191; give --no-video, or smaller frames."
            )
        self._writer = writer

    def _write_held(self, end: int) -> None:
        self._check_room()
        while self._num_written < end:
            self._writer.write(self._held)
            self._num_written += 1

    def _check_room(self) -> None:
        # Stop before the disk is full: OpenCV does not report failed writes, and a video without its end is unreadable.
        if shutil.disk_usage(self._path.parent).free < _MIN_FREE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def _finish(self) -> None:
        capture = cv2.VideoCapture(str(self._unfinished), cv2.CAP_FFMPEG)
        num_frames = capture.get(cv2.CAP_PROP_FRAME_COUNT)
        capture.release()
        if num_frames != self._num_written:
            self._unfinished.unlink(missing_ok=True)
            raise OSError(errno.EIO, "the video could not be written whole", str(self._path))
        self._folder.replace(self._unfinished, self._name, source=self._origin)
