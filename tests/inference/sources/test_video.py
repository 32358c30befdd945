import logging
import os
import threading

import cv2
import numpy as np
import pytest
from PIL import Image

from parking.inference.sources import video
from parking.inference.sources.video import CaptureReader, FrameSource, is_live_input, is_video_input, open_source
from parking.utils.errors import UserError
from parking.visualization.drawing import save_image


class FakeCapture:
    """Gives frames whose pixels are their number. A live one gives none before :meth:`deliver`."""

    def __init__(self, num_frames, *, fps=25.0, count=-1.0, times=None, is_live=False, undecodable=(), error_at=None):
        self._values = {cv2.CAP_PROP_FPS: fps, cv2.CAP_PROP_FRAME_COUNT: count}
        self._num_frames, self._times = num_frames, times
        self._undecodable, self._error_at = undecodable, error_at
        self.is_live = is_live
        self.num_grabbed = 0
        self.released_by = None
        # The first is there when a source opens.
        self._allowed, self._asked = threading.Semaphore(1), threading.Semaphore(0)

    def get(self, prop):
        if prop == cv2.CAP_PROP_POS_MSEC:
            return self._times[self.num_grabbed - 1] * 1000 if self._times else 0.0
        return self._values[prop]

    def grab(self):
        if self.is_live:
            self._asked.release()
            assert self._allowed.acquire(timeout=20)
        if self.num_grabbed == self._error_at:
            raise RuntimeError("broken capture")
        if self.num_grabbed == self._num_frames:
            return False
        self.num_grabbed += 1
        return True

    def retrieve(self):
        index = self.num_grabbed - 1
        return (False, None) if index in self._undecodable else (True, np.full((4, 6, 3), index % 256, np.uint8))

    def release(self):
        self.released_by = threading.current_thread()

    def deliver(self, num_frames):
        """Returns when the source has these frames, and asks for the next."""
        for _ in range(num_frames):
            self._allowed.release()
            assert self._asked.acquire(timeout=20)

    def is_asked(self):
        """Waits for the source's first two reads: one when it opens, the other in its thread."""
        assert self._asked.acquire(timeout=20) and self._asked.acquire(timeout=20)

    def end(self):
        self._num_frames = self.num_grabbed
        self._allowed.release()


def open_fake(capture):
    return FrameSource(CaptureReader(capture, name="The fake", stem="fake", is_live=capture.is_live))


def open_fake_camera(capture, monkeypatch):
    # Frame i arrives after 10 + i / 10 seconds.
    monkeypatch.setattr(video, "monotonic", lambda: 10 + (capture.num_grabbed - 1) / 10)
    source = open_fake(capture)
    capture.is_asked()
    return source


@pytest.mark.parametrize(
    ("inputs", "is_video", "is_live"),
    [
        (["a/b.mp4", "a/b.MOV", "한 글.mkv", "https://host/a.mp4?x=1"], True, False),
        (["0", "12", "/dev/video0", "rtsp://user:pw@10.0.0.5:554/stream1", "RTMP://host/live"], True, True),
        (["udp://@:1234", "http://host/mjpg?x=1", "http://[::1/cam"], True, True),
        (["ftp://host/a", "a/b.jpg", "a/b", "a/*.png", "./0", "1234", "-1", ""], False, False),
    ],
)
def test_inputs_are_told_by_their_form(inputs, is_video, is_live):
    for input in inputs:
        assert (is_video_input(input), is_live_input(input)) == (is_video, is_live), input


@pytest.mark.parametrize("name", ["a.mp4", "한 글.mp4", "cam:1 %03d.mp4", "a.mkv"])
def test_frames_of_a_file(tmp_path, monkeypatch, caplog, make_video, name):
    make_video(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with open_source(name) as source:
        assert (source.fps, source.size, source.num_frames, source.is_live) == (25, (48, 64), 6, False)
        assert (source.stem, source.path) == (os.path.splitext(name)[0], name)
        frames = list(source)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4, 5]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16, 0.2])
    for frame in frames:
        assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8 and frame.file_name is None
        # RGB: were it BGR, nothing would be red.
        columns = np.flatnonzero((frame.image[18, :, 0] > 180) & (frame.image[18, :, 2] < 80))
        assert abs(columns.min() - 6 * frame.index) <= 2 and abs(columns.max() - (6 * frame.index + 15)) <= 2
    assert (source.num_dropped, source.num_unreadable) == (0, 0) and not caplog.records


def test_a_rotated_file_is_read_as_it_is_shown(tmp_path, make_video):
    path = make_video(tmp_path / "a.mp4")
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    # ISO/IEC 14496-12: the matrix of a track header (version 0) stands 40 bytes behind its name. A quarter turn
    # clockwise is (0, 1, 0, -1, 0, 0, 0, 0, 1), in 16.16 but for the last column's 2.30.
    start = data.index(b"tkhd") + 4 + 40
    matrix = np.array([0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30], dtype=">i4")
    data[start : start + 36] = matrix.tobytes()
    (tmp_path / "a.mp4").write_bytes(data)
    with open_source(path) as source:
        assert source.size == (64, 48)
        image = next(source).image
    # Rows 10 to 25 of 48 become columns 47 - 25 to 47 - 10, columns 0 to 15 become rows.
    assert image.shape == (64, 48, 3)
    assert image[8, 30, 0] > 180 and image[8, 30, 2] < 80 and abs(int(image[40, 30, 0]) - 100) < 20


def test_files_that_are_cut_off(tmp_path, caplog, make_video):
    for name in ("a.mkv", "a.mp4"):
        make_video(tmp_path / name, num_frames=200)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) // 2])
    path = str(tmp_path / "a.mkv")
    with open_source(path) as source:
        num_frames = len(list(source))
    assert 0 < num_frames < 200 and source.num_frames == 200
    assert f"ended after {num_frames} of the 200 frames" in caplog.text and path in caplog.text
    # The index of an mp4 is its end.
    with pytest.raises(UserError, match="cannot be opened"):
        open_source(str(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.mp4", b"no video\n" * 100, "damaged, empty"),
        ("a.mp4", b"", "damaged, empty"),
        ("a.txt", b"no video\n" * 100, "not a video file; known extensions are .3gp, .avi"),
        ("a.png", None, "an image, and not a video"),
        ("a.mov", None, "damaged, empty"),
    ],
)
def test_files_that_are_no_videos(tmp_path, name, content, message):
    path = tmp_path / name
    if content is None:
        save_image(np.zeros((20, 20, 3), np.uint8), tmp_path / "image.png")
        content = (tmp_path / "image.png").read_bytes()
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        open_source(str(path))
    assert str(path) in str(error.value)
    assert not any(thread.name.startswith("frames of") for thread in threading.enumerate())


def test_what_cannot_be_opened(tmp_path, make_video):
    (tmp_path / "frames").mkdir()
    not_utf8 = os.fsdecode(bytes(tmp_path) + b"/\xff.mp4")
    make_video(tmp_path / "a.mp4")
    os.rename(tmp_path / "a.mp4", not_utf8)
    for path, message in (
        (str(tmp_path / "no.mp4"), r"no\.mp4' does not exist"),
        (str(tmp_path / "frames"), "holds no frames"),
        ("999", "The camera 999 cannot be opened"),
        ("ftp://host/a.mp4", "cannot be read; known are http,"),
        (not_utf8, "not UTF-8"),
    ):
        with pytest.raises(UserError, match=message):
            open_source(path)


@pytest.mark.parametrize("password", ["geheim", "ge/heim", "ge?heim"])
def test_messages_hide_passwords(password):
    with pytest.raises(UserError) as error:
        open_source(f"rtsp://user:{password}@127.0.0.1:9/a?key=geheim")
    assert f"rtsp://{'...' if '?' in password else '127.0.0.1:9/a'} cannot" in str(error.value)
    assert "heim" not in str(error.value) and "user" not in str(error.value)


@pytest.fixture
def folder(tmp_path):
    """Frames 1, 2 and 10, which are as gray as their numbers, and things that are no frames."""
    for number in (1, 2, 10):
        save_image(np.full((8, 10, 3), number, np.uint8), tmp_path / f"frame_{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    save_image(np.zeros((5, 5, 3), np.uint8), tmp_path / "frame_3.png" / "frame_4.png")
    return tmp_path


def test_frames_of_a_folder(folder):
    with open_source(str(folder), fps=4) as source:
        frames = list(source)
        assert (source.fps, source.size, source.num_frames, source.stem) == (4, (8, 10), 3, folder.name)
    rows = [(frame.index, frame.time, frame.file_name, frame.image[0, 0, 0]) for frame in frames]
    assert rows == [(0, 0, "frame_1.png", 1), (1, 0.25, "frame_2.png", 2), (2, 0.5, "frame_10.png", 10)]


def test_natural_order_of_all_kinds_of_names(tmp_path):
    expected = [f"{stem}.png" for stem in ("2", "02b", "10", "a", "a01", "a1", "b0", "B1", "프레임2", "프레임10")]
    for name in expected:
        save_image(np.zeros((4, 4, 3), np.uint8), tmp_path / name)
    with open_source(str(tmp_path)) as source:
        assert [frame.file_name for frame in source] == expected


def test_unreadable_frames_are_counted_and_keep_their_numbers(caplog):
    with open_fake(FakeCapture(40, undecodable=range(3, 30))) as source:
        assert [frame.index for frame in source] == [0, 1, 2, *range(30, 40)]
    assert source.num_unreadable == 27
    # The first ten are named.
    assert source.unreadable == [f"The fake: frame {i} cannot be decoded." for i in range(3, 13)]
    assert all(sentence in caplog.text for sentence in source.unreadable)


def test_frames_of_several_sizes(folder):
    save_image(np.zeros((9, 10, 3), np.uint8), folder / "frame_5.png")
    with open_source(str(folder)) as source:
        assert [next(source).index, next(source).index] == [0, 1]
        with pytest.raises(UserError, match=r"'frame_5\.png' has 10x9 .*10x8"):
            next(source)


def test_frames_are_turned_as_their_exif_orientation_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png", exif=exif)
    for orientation, size in (("auto", (40, 20)), ("apply", (40, 20)), ("ignore", (20, 40))):
        with open_source(str(tmp_path), orientation=orientation) as source:
            assert source.size == size


def test_frame_rates_that_cannot_be(folder):
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="frames a second are not possible"):
            open_source(str(folder), fps=fps)


@pytest.mark.parametrize("fps", [0.0, float("nan"), 90000.0])
def test_a_file_that_states_no_frame_rate_and_wrong_times(fps, caplog):
    times = [0.0, 0.1, 0.1, float("nan"), 0.05, 0.5]
    for count, num_frames in ((6.0, 6), (0.0, None), (-9.2e18, None), (float("nan"), None)):
        with open_fake(FakeCapture(6, fps=fps, times=times, count=count)) as source:
            assert (source.fps, source.num_frames) == (25, num_frames)
            assert [frame.time for frame in source] == pytest.approx([0, 0.1, 0.14, 0.18, 0.22, 0.5])
    assert "25 frames per second are assumed" in caplog.text


def test_few_frames_are_read_ahead_and_none_is_lost():
    capture = FakeCapture(100)
    with open_fake(capture) as source:
        for i, frame in enumerate(source):
            assert frame.index == i
            # Four wait, and the thread has one more in its hands.
            assert capture.num_grabbed <= i + 1 + 5
    assert i == 99 and capture.released_by is source._thread


def test_closing_ends_a_thread_that_waits_for_room():
    source = open_fake(capture := FakeCapture(100))
    assert next(source).index == 0
    source.close()
    assert not source._thread.is_alive() and capture.released_by is source._thread
    assert list(source) == []
    source.close()


def test_an_error_of_the_thread_comes_after_the_frames_before_it():
    with open_fake(FakeCapture(10, error_at=3)) as source:
        assert [next(source).index for _ in range(3)] == [0, 1, 2]
        with pytest.raises(RuntimeError, match="broken capture"):
            next(source)


def test_nothing_stays_open_when_the_first_frame_is_missing():
    for capture in (FakeCapture(0), FakeCapture(3, undecodable=range(3)), FakeCapture(3, error_at=0)):
        with pytest.raises((UserError, RuntimeError)):
            open_fake(capture)
        assert capture.released_by is threading.current_thread()


def test_a_live_source_keeps_the_newest_frame_and_counts_the_others(caplog, monkeypatch):
    capture = FakeCapture(1000, is_live=True, fps=0.0)
    with open_fake_camera(capture, monkeypatch) as source:
        assert (source.is_live, source.num_frames, source.fps) == (True, None, 25)
        capture.deliver(20)  # while a model is loaded: they do not count
        first = next(source)
        assert (first.index, first.time, first.image[0, 0, 0], source.num_dropped) == (0, 0, 20, 0)
        capture.deliver(3)  # 1, 2, 3
        frame = next(source)
        assert (frame.index, frame.image[0, 0, 0], source.num_dropped) == (3, 23, 2)
        assert frame.time == pytest.approx(0.3)
        capture.deliver(1)
        assert (next(source).index, source.num_dropped) == (4, 2)
        capture.deliver(10)  # 5 to 14
        with caplog.at_level(logging.WARNING):
            capture.end()
            assert [frame.index for frame in source] == [14]
    assert source.num_dropped == 2 + 9
    # Every frame is either taken (0, 3, 4, 14) or counted.
    assert capture.num_grabbed == 20 + 4 + source.num_dropped
    assert "The fake has ended" in caplog.text and not source._thread.is_alive()


def test_a_folder_is_no_camera_and_no_video_whatever_its_name(tmp_path, monkeypatch):
    (tmp_path / "a.mp4").mkdir()
    assert not is_video_input(str(tmp_path / "a.mp4"))
    monkeypatch.chdir(tmp_path)
    save_image(np.zeros((8, 8, 3), np.uint8), tmp_path / "001" / "0.png")
    assert not is_video_input("001") and not is_live_input("001") and is_video_input("002")
    with open_source("001", fps=5) as source:
        assert source.num_frames == 1 and not source.is_live
