import errno
import gc
import json
import logging
import os
import resource
import sys
import threading
import weakref
from collections import namedtuple
from contextlib import contextmanager
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances

from parking.inference import video_pipeline as video
from parking.inference.sources.video import open_source
from parking.inference.video_pipeline import predict_video
from parking.utils.errors import UserError
from parking.utils.marks import MARK_NAME
from parking.visualization.colors import class_colors
from parking.visualization.drawing import save_image

GRAY = 100
CLASSES = {"car": 3, "truck": 9, "bus": 11}
COLORS = class_colors(list(CLASSES))


@pytest.fixture
def open_video(tmp_path, make_video):
    """``open_video(num_frames=6, name="in.mp4")``: a source whose frame i has a white square at (20 + 10 * i, 50)."""

    def open_it(num_frames=6, name="in.mp4"):
        look = {"size": (120, 160), "side": 40, "start": (20, 50), "step": 10, "color": (255, 255, 255)}
        return open_source(make_video(tmp_path / name, num_frames, **look))

    return open_it


def make_frames(folder, num_frames=1, *, size=(32, 48)):
    for i in range(1, num_frames + 1):
        save_image(np.full((*size, 3), GRAY, np.uint8), folder / f"{i}.png")
    return str(folder)


def to_instances(image, *boxes):
    """Boxes are (x1, y1, x2, y2, score, class)."""
    table = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    instances = Instances(image.shape[:2])
    instances.pred_boxes, instances.scores = Boxes(table[:, :4]), table[:, 4]
    instances.pred_classes = table[:, 5].long()
    return instances


class SquareFinder:
    """Finds the white square as a truck, and below any threshold a bus; fails at the ``fail_at``-th frame, from 0."""

    def __init__(self, fail_at=None, error=KeyboardInterrupt):
        self.batch_sizes = []
        self._fail_at, self._error = fail_at, error

    def __call__(self, images):
        if self._fail_at is not None and sum(self.batch_sizes) + len(images) > self._fail_at:
            raise self._error
        self.batch_sizes.append(len(images))
        return [self._find(image) for image in images]

    def _find(self, image):
        ys, xs = np.nonzero(image.min(axis=2) > 200)
        if not len(xs):
            return to_instances(image)
        box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, 0.75, 1)
        return to_instances(image, box, (5, 5, 15, 15, 0.2, 2))


class GivenFrames:
    """Like a FrameSource, usually a live one, but with the frames and numbers of dropped ones that it is given."""

    Frame = namedtuple("Frame", "index time image file_name")

    def __init__(self, times, *, size=(32, 48), fps=10, is_live=True):
        self.is_live, self.path, self.name, self.num_frames, self.fps = is_live, None, "The fake", None, fps
        self.num_dropped, self.num_unreadable, self.unreadable = 0, 0, []
        self._times, self._size = times, size

    def __iter__(self):
        for i, time in enumerate(self._times):
            # The second of every two is dropped.
            self.num_dropped = i
            yield self.Frame(2 * i, time, np.full((*self._size, 3), (40 + 40 * i) % 251, np.uint8), None)


def predict(detect, source, folder, stem="found", **kwargs):
    source.stem = stem
    settings = {"classes": CLASSES, "min_score": 0.25, **kwargs}
    return predict_video(partial(map, detect), source, output_dir=str(folder), **settings)


def read_video(path):
    """The frames, (N, H, W, 3) RGB as integers, and the rate."""
    capture = cv2.VideoCapture(str(path))
    assert capture.isOpened(), f"{path} cannot be played"
    frames = []
    while (frame := capture.read()[1]) is not None:
        frames.append(frame[..., ::-1].astype(int))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(frames)
    return np.array(frames), capture.get(cv2.CAP_PROP_FPS)


def read_lines(path):
    text = path.read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def files(folder):
    return sorted(set(os.listdir(folder)) - {MARK_NAME})


def is_color(pixels, color, tolerance=60):
    """The codec halves the colour's resolution."""
    return (abs(pixels - np.array(color)) < tolerance).all(axis=-1)


@contextmanager
def limited_file_size(size):
    """How many bytes a file may have; what goes beyond is not written, as on a full disk.

    Not longer than needed, and with nothing on stdout: pytest's may be a longer file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_file(tmp_path, batch_size, caplog, open_video):
    detect = SquareFinder()
    with open_video() as source, caplog.at_level(logging.INFO):
        report = predict(detect, source, tmp_path / "out", batch_size=batch_size)
    assert detect.batch_sizes == {1: [1] * 6, 4: [4, 2]}[batch_size]
    out = tmp_path / "out"
    assert report.files == {"detections": str(out / "found.jsonl"), "video": str(out / "found.mp4")}
    assert files(out) == ["found.jsonl", "found.mp4"]
    assert (report.num_frames, report.num_boxes) == (6, 6)
    assert not report.interrupted and "6 frames in" in caplog.text

    lines = read_lines(out / "found.jsonl")
    assert [(line["frame"], line["time"]) for line in lines] == [(i, 0.04 * i) for i in range(6)]
    for i, line in enumerate(lines):
        assert list(line) == ["frame", "time", "counts", "detections"] and line["counts"] == {"truck": 1}
        (found,) = line["detections"]
        assert (found["category_id"], found["class_name"], found["score"]) == (9, "truck", 0.75)
        np.testing.assert_allclose(found["bbox"], [20 + 10 * i, 50, 40, 40], atol=2)

    frames, fps = read_video(out / "found.mp4")
    assert frames.shape == (6, 120, 160, 3) and fps == 25
    for i, frame in enumerate(frames):
        # Between the tag above and the lower edge the two sides of the box, each 2 wide, and nothing else.
        x1, width = lines[i]["detections"][0]["bbox"][::2]
        drawn = np.flatnonzero(is_color(frame[75], COLORS[1]))
        sides = {x1, x1 + 1, x1 + width - 2, x1 + width - 1}
        assert {drawn.min(), drawn.max()} <= {s + d for s in sides for d in (-1, 0, 1)}
        assert (abs(frame[100:, :] - GRAY) < 12).all()


def test_counts_stand_in_the_corner_beside_the_names_to_display(tmp_path, open_video):
    def detect(images):
        cars = [(x, 80, x + 20, 110, 0.9, 0) for x in (20, 60, 100)]
        return [to_instances(images[0], *cars, (60, 50, 90, 70, 0.5, 2))]

    with open_video(1) as source:
        predict(detect, source, tmp_path, display_names=["car", "truck", "a long name"])
    (line,) = read_lines(tmp_path / "found.jsonl")
    assert line["counts"] == {"car": 3, "bus": 1} and len(line["detections"]) == 4
    (frame,), _ = read_video(tmp_path / "found.mp4")
    # Letters of 12 pixels and rows of 16: a swatch of each class, from column 6 on, and dark ground below the text.
    assert is_color(frame[11, 8:11], COLORS[0]).all() and is_color(frame[27, 8:11], COLORS[2]).all()
    assert (abs(frame[3:36, 1:4] - GRAY // 4) < 20).all()
    assert (abs(frame[1:3, 90:105] - GRAY // 4) < 20).all(), "as wide as the name to display"
    assert frame[3:36, 15:60].min(axis=2).max() > 180  # the text
    assert (abs(frame[45:, :15] - GRAY) < 12).all()


@pytest.mark.parametrize("size", [(61, 81), (1, 1)])
def test_odd_sizes_are_filled_up(tmp_path, size):
    with open_source(make_frames(tmp_path / "in", size=size)) as source:
        predict(SquareFinder(), source, tmp_path)
    frames, _ = read_video(tmp_path / "found.mp4")
    assert frames.shape == (1, size[0] + 1, size[1] + 1, 3) and (abs(frames - GRAY) < 12).all()


def test_a_folder_with_an_unreadable_frame(tmp_path):
    for number, gray in ((1, 50), (2, 90), (3, 130), (10, 170)):
        save_image(np.full((32, 48, 3), gray, np.uint8), tmp_path / "in" / f"{number}.png")
    for name in ("1.png", "3.png"):
        (tmp_path / "in" / name).write_bytes(b"no image")
    with open_source(str(tmp_path / "in"), fps=5) as source:
        report = predict(SquareFinder(), source, tmp_path)
    assert (report.num_frames, source.num_unreadable) == (2, 2)
    rows = [(line["frame"], line["time"], line["file_name"]) for line in read_lines(tmp_path / "found.jsonl")]
    assert rows == [(1, 0.2, "2.png"), (3, 0.6, "10.png")]
    frames, fps = read_video(tmp_path / "found.mp4")
    # The missing first one shows the second, the missing third, too.
    assert fps == 5
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [90, 90, 90, 170], atol=4)


def test_boxes_alone(tmp_path, open_video):
    """An earlier run's video goes, also where Ctrl-C comes before the first frame of another."""
    for fail_at, save_video in ((None, False), (0, True)):
        with open_video() as source:
            assert list(predict(SquareFinder(), source, tmp_path).files) == ["detections", "video"]
        with open_video() as source:
            report = predict(SquareFinder(fail_at), source, tmp_path, save_video=save_video)
        assert list(report.files) == ["detections"] and files(tmp_path) == ["found.jsonl", "in.mp4"]
        assert report.interrupted == save_video
        assert report.num_frames == len(read_lines(tmp_path / "found.jsonl")) == (0 if save_video else 6)


def test_the_input_is_not_overwritten(tmp_path, open_video):
    open_video(name="found.mp4").close()
    before = (tmp_path / "found.mp4").read_bytes()
    for save_video in (True, False):
        with open_source(str(tmp_path / "found.mp4")) as source, pytest.raises(UserError, match="overwrite"):
            predict(SquareFinder(), source, tmp_path, save_video=save_video)
    assert (tmp_path / "found.mp4").read_bytes() == before and files(tmp_path) == ["found.mp4"]


def assert_whole(folder, num_frames):
    assert [line["frame"] for line in read_lines(folder / "found.jsonl")] == list(range(num_frames))
    assert len(read_video(folder / "found.mp4")[0]) == num_frames


def test_ctrl_c_and_errors_leave_whole_files(tmp_path, open_video):
    with open_video(10) as source:
        report = predict(SquareFinder(fail_at=2), source, tmp_path)
    assert report.interrupted and report.num_frames == 2
    assert_whole(tmp_path, 2)
    assert files(tmp_path) == ["found.jsonl", "found.mp4", "in.mp4"]
    detect = SquareFinder(fail_at=3, error=RuntimeError("out of memory"))
    with open_video(10) as source, pytest.raises(RuntimeError, match="out of memory"):
        predict(detect, source, tmp_path / "model")
    assert_whole(tmp_path / "model", 3)
    make_frames(tmp_path / "in", 2)
    save_image(np.zeros((32, 40, 3), np.uint8), tmp_path / "in" / "3.png")
    with open_source(str(tmp_path / "in")) as source, pytest.raises(UserError, match=r"'3\.png' has 40x32 pixels"):
        predict(SquareFinder(), source, tmp_path / "source")
    assert_whole(tmp_path / "source", 2)


def test_ctrl_c_once_more_leaves_whole_files_in_the_end(tmp_path, monkeypatch, open_video):
    def interrupt(futures):
        raise KeyboardInterrupt

    monkeypatch.setattr(video, "wait", interrupt)
    with open_video(10) as source, pytest.raises(KeyboardInterrupt):
        predict(SquareFinder(fail_at=2), source, tmp_path)
    # The thread ends with its work when nothing refers to it any more, or when Python ends.
    gc.collect()
    for thread in threading.enumerate():
        if thread.name.startswith("results"):
            thread.join(timeout=60)
    assert_whole(tmp_path, 2)


def test_a_full_disk_is_noticed_while_the_video_can_still_be_closed(tmp_path, monkeypatch, open_video):
    free = iter([1 << 40] * 5)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(video.shutil, "disk_usage", lambda folder: usage(next(free, 0)))
    with open_video(40) as source, pytest.raises(OSError) as error:
        predict(SquareFinder(), source, tmp_path)
    assert error.value.errno == errno.ENOSPC and error.value.filename == str(tmp_path / "found.mp4")
    # Free space is asked for at the opening and before each further frame: the sixth time for the sixth frame, whose
    # line is written already. The fifth frame, which would be written now, is missing in the video.
    assert len(read_lines(tmp_path / "found.jsonl")) == 6
    assert len(read_video(tmp_path / "found.mp4")[0]) == 4


def test_a_video_that_could_not_be_written_does_not_appear(tmp_path, open_video):
    noise = np.random.default_rng(0)

    def detect(images):
        images[0][:] = noise.integers(0, 255, images[0].shape, np.uint8)
        return [to_instances(images[0])]

    with open_video(20) as source, limited_file_size(20_000), pytest.raises(OSError, match="not be written whole"):
        predict(detect, source, tmp_path)
    assert len(read_lines(tmp_path / "found.jsonl")) == 20 and files(tmp_path) == ["found.jsonl", "in.mp4"]


def test_no_line_is_left_half_written(tmp_path, open_video):
    with open_video(40) as source, limited_file_size(1000), pytest.raises(OSError) as error:
        predict(SquareFinder(), source, tmp_path, save_video=False)
    assert error.value.errno == errno.EFBIG
    lines = read_lines(tmp_path / "found.jsonl")
    assert 1 <= len(lines) < 20 and [line["frame"] for line in lines] == list(range(len(lines)))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems take such names in other ways")
def test_a_result_that_opencv_could_not_write(tmp_path, open_video):
    with open_video() as source, pytest.raises(UserError, match="not UTF-8"):
        predict(SquareFinder(), source, tmp_path, stem="\udcff")


def test_a_live_video_plays_in_real_time(tmp_path, caplog):
    source = GivenFrames([0.0, 0.4, 0.42, 1.0])
    detect = SquareFinder()
    with caplog.at_level(logging.INFO):
        report = predict(detect, source, tmp_path, batch_size=8)
    assert detect.batch_sizes == [1, 1, 1, 1]
    assert (report.num_frames, report.interrupted) == (4, False)
    assert "3 frames were dropped" in caplog.text
    rows = [(line["frame"], line["time"]) for line in read_lines(tmp_path / "found.jsonl")]
    assert rows == [(0, 0.0), (2, 0.4), (4, 0.42), (6, 1.0)]
    frames, fps = read_video(tmp_path / "found.mp4")
    # At 10 a second: 40 for 0.0 to 0.3; at 0.4 there are two, 80 and 120, of which the later one is shown until 0.9.
    assert fps == 10
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [40] * 4 + [120] * 6 + [160], atol=4)


@pytest.mark.parametrize(("fps", "expected"), [(60, 25), (8, 8)])
def test_the_rate_of_a_live_video(tmp_path, fps, expected):
    predict(SquareFinder(), GivenFrames([0, 1], fps=fps), tmp_path)
    frames, found = read_video(tmp_path / "found.mp4")
    assert found == expected and len(frames) == expected + 1


def test_large_live_pictures_are_reduced(tmp_path):
    def detect(images):
        return [to_instances(images[0], (400, 100, 1000, 300, 0.5, 1))]

    predict(detect, GivenFrames([0], size=(400, 3840)), tmp_path)
    assert read_video(tmp_path / "found.mp4")[0].shape == (1, 200, 1920, 3)
    assert read_lines(tmp_path / "found.jsonl")[0]["detections"][0]["bbox"] == [400, 100, 600, 200]


def test_many_frames_do_not_accumulate(tmp_path):
    alive, most = set(), 0

    def detect(images):
        nonlocal most
        for image in images:
            key = id(image)
            alive.add(key)
            weakref.finalize(image, alive.discard, key)
        most = max(most, len(alive))
        return [to_instances(image, (2, 2, 12, 12, 0.5, 0)) for image in images]

    report = predict(detect, GivenFrames(range(500), size=(16, 24), is_live=False), tmp_path, batch_size=8)
    assert report.num_frames == len((tmp_path / "found.jsonl").read_text().splitlines()) == 500
    # This batch, the previous one, which is being written, and the one before that, which the thread may still hold.
    assert most <= 8 + 8 + 8


def test_what_a_killed_run_left_is_removed(tmp_path, open_video):
    (tmp_path / "out").mkdir()
    others = {".other.parking-tmp.mp4", ".found.front.parking-tmp.mp4"}
    for name in (".found.parking-tmp.mp4", *others):
        (tmp_path / "out" / name).write_bytes(b"half")
    with open_video(3) as source:
        predict(SquareFinder(), source, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert others <= names and ".found.parking-tmp.mp4" not in names
    assert not [name for name in names if name.endswith(".lock")]


def test_one_run_at_a_time_writes_a_video(tmp_path, open_video):
    def detect(images):
        with open_source(str(tmp_path / "in.mp4")) as again, pytest.raises(UserError, match=r"another infer\.py"):
            predict(SquareFinder(), again, tmp_path)
        return SquareFinder()(images)

    with open_video(2) as source:
        assert predict(detect, source, tmp_path).num_frames == 2


def test_what_is_no_result_is_not_replaced(tmp_path, open_video):
    """Such as the video that a folder of frames was made from."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "found.mp4").write_bytes(b"mine")
    with open_video(3) as source, pytest.raises(UserError, match=r"found\.mp4.*not replaced"):
        predict(SquareFinder(), source, tmp_path / "out")
    assert (tmp_path / "out" / "found.mp4").read_bytes() == b"mine"


@pytest.mark.parametrize("fps", [999.99, 240.0384, 23.976, 0.01])
def test_rates_that_mpeg_4_can_hold(tmp_path, fps):
    with open_source(make_frames(tmp_path / "frames", 3), fps=fps) as source:
        predict(SquareFinder(), source, tmp_path / "out")
    frames, found = read_video(tmp_path / "out" / "found.mp4")
    assert len(frames) == 3 and found == pytest.approx(fps, rel=1e-3)
