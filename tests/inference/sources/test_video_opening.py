import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from parking.inference.sources.video import open_source
from parking.inference.sources.video_opening import open_camera, open_stream, open_video_file
from parking.utils.errors import UserError

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
CODECS = {
    "mp4": "mp4v", "mov": "mp4v", "m4v": "mp4v", "3gp": "mp4v", "avi": "MJPG", "mkv": "mp4v", "webm": "VP80",
    "flv": "FLV1", "mpg": "MPG1", "mpeg": "MPG2", "ts": "MPG2", "mts": "MPG2", "m2ts": "MPG2", "wmv": "WMV2",
}  # fmt: skip


def can_read(capture):
    return capture is not None and capture.read()[0]


@pytest.mark.parametrize("ending", CODECS)
def test_every_container_is_opened(tmp_path, make_video, ending):
    path = tmp_path / f"a.{ending}"
    make_video(path, codec=CODECS[ending])
    data = path.read_bytes()
    assert can_read(open_video_file(str(path)))
    if ending.endswith("ts"):
        # A stream that was cut out of a longer one begins in the middle of a packet.
        path.write_bytes(data[100:])
        assert can_read(open_video_file(str(path)))
    assert OPTIONS not in os.environ


def test_files_that_lead_to_others_are_not_opened(tmp_path, make_video):
    """Files under a video's name that would make FFmpeg open another."""
    other = make_video(tmp_path / "other.ts", codec="MPG2")
    make_video(tmp_path / "other.mp4")
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
    dash = '<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet><Representation><BaseURL>'
    contents = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{other}\n#EXT-X-ENDLIST\n",
        "concat": "ffconcat version 1.0\nfile other.mp4\n",
        "sdp": sdp,
        "dash": f"<?xml version='1.0'?>{dash}{other}</BaseURL></Representation></AdaptationSet></Period></MPD>",
        # The first bytes are those of a container, but FFmpeg recognises another format by the text.
        "box": "\0\0\0\x08free" + sdp,
        "sync": ("G" + " " * 187) * 8 + "ffconcat version 1.0\nfile other.mp4\n",
    }
    for name, content in contents.items():
        for ending in ("mp4", "ts", "avi"):
            path = tmp_path / f"{name}.{ending}"
            path.write_bytes(content.encode())
            with pytest.raises(UserError, match=rf"{name}\.{ending}"):
                open_source(str(path))


def test_the_users_own_options_stay(tmp_path, monkeypatch, make_video):
    path = make_video(tmp_path / "a.mp4")
    concat = tmp_path / "b.mp4"
    concat.write_text("ffconcat version 1.0\nfile a.mp4\n")
    for options in ("rtsp_transport;udp", "format_whitelist;concat|protocol_whitelist;file,concat"):
        monkeypatch.setenv(OPTIONS, options)
        assert can_read(open_video_file(path))
        assert open_video_file(str(concat)) is None
        assert os.environ[OPTIONS] == options


def test_only_regular_files_and_devices(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(OSError, match="FIFO"):
        open_video_file(str(tmp_path / "a.mp4"))
    with pytest.raises(UserError, match=r"a\.mp4"):
        open_source(str(tmp_path / "a.mp4"))
    concat = tmp_path / "list"
    concat.write_text("ffconcat version 1.0\n")
    for camera in (f"/dev/v4l/../..{concat}", "/dev/v4l/../null/x", "/dev/video999"):
        assert open_camera(camera) is None
    for address in ("concat:a.mp4|b.mp4", "subfile,,start,0,end,9,,:a.mp4", "data:video/mp4;base64,AAAA"):
        with pytest.raises(UserError):
            open_source(address)
    for address in ("file:///etc/passwd", "crypto+file:///a.mp4", "pipe://0", "concat://a"):
        with pytest.raises(UserError, match="known are"):
            open_source(address)


def test_streams_come_over_the_network_only(tmp_path, make_video):
    segment = make_video(tmp_path / "a.ts", codec="MPG2")
    head = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:0.2,\n"
    for name, address in [("near", "a.ts"), ("far", f"file://{segment}"), ("path", segment)]:
        (tmp_path / f"{name}.m3u8").write_text(f"{head}{address}\n#EXT-X-ENDLIST\n")
    make_video(tmp_path / "a.mp4")
    (tmp_path / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{segment}'\n")

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            root = f"http://127.0.0.1:{server.server_port}"
            readable = {
                name: can_read(open_stream(f"{root}/{name}"))
                for name in ("a.mp4", "a.ts", "near.m3u8", "far.m3u8", "concat.mp4")
            }
        finally:
            server.shutdown()
            thread.join()
    assert readable == {"a.mp4": True, "a.ts": True, "near.m3u8": True, "far.m3u8": False, "concat.mp4": False}
