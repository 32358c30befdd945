"""Fixtures for tests of videos."""

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def make_video():
    """``make_video(path, num_frames=6, ...)`` writes a video and returns its path.

    Frame i is gray (100) but for a square of the given ``color`` and ``side``, whose upper left corner (x, y) is at
    ``start`` and moves right by ``step`` pixels a frame.
    """

    def make(
        path, num_frames=6, *, size=(48, 64), fps=25, codec="mp4v", side=16, start=(0, 10), step=6, color=(255, 0, 0)
    ):
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), fps, size[::-1])
        assert writer.isOpened()
        x, y = start
        for i in range(num_frames):
            frame = np.full((*size, 3), 100, np.uint8)
            frame[y : y + side, x + step * i : x + step * i + side] = color[::-1]
            writer.write(frame)
        writer.release()
        return str(path)

    return make
