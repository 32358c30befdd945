import logging

import pytest

from parking.utils.logs import make_logs_printable


@pytest.fixture(autouse=True)
def factory():
    before = logging.getLogRecordFactory()
    make_logs_printable()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize("name", ["parking.data", "PIL.Image", "detectron2.data"])
def test_names_reach_no_handler_raw(caplog, name):
    try:
        raise ValueError("a\x1b]0;b\u202e")
    except ValueError:
        logging.getLogger(name).error("image %s\nnext line", "\x1b[2J\rx.png", exc_info=True)
    text = caplog.text
    assert "\\x1b[2J\\rx.png\nnext line" in text
    assert "ValueError: a\\x1b]0;b\\u202e" in text
    assert not set("\x1b\r\u202e") & set(text)


def test_colours_that_detectron2_itself_writes_are_left_out(caplog):
    logging.getLogger("detectron2.config").error("\x1b[38;5;28;01mSOLVER\x1b[39;00m: 1")
    assert caplog.messages == ["SOLVER: 1"]
