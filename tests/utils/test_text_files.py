import gzip
import io
import zipfile

import pytest

from parking.utils.errors import UserError
from parking.utils.text_files import describe_content, read_text_file


def make_zip():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("result.json", "{}")
    return file.getvalue()


KINDS = [
    (make_zip(), "zip"),
    (gzip.compress(b"{}"), "gzip"),
    ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    ("\ufeff1".encode("utf-16-be"), "UTF-16"),
    (b"\n<!DOCTYPE html><html><body>Log in</body></html>", "web page"),
    (b"<HTML>", "web page"),
    (b"<?xml version='1.0'?><annotation/>", "XML"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "git lfs pull"),
    (b"\x89PNG\r\n\x1a\n", "picture"),
    (b"", "empty"),
]


# Numbers as names: zip and gzip hold the time, but all processes of pytest-xdist must give a test the same name.
@pytest.mark.parametrize(("content", "word"), KINDS, ids=range(len(KINDS)))
def test_what_a_file_is_instead_of_text(tmp_path, content, word):
    assert word in describe_content(content)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=word) as error:
        read_text_file(tmp_path / "a.json", max_bytes=1000)
    assert "a.json' is " in str(error.value)


@pytest.mark.parametrize("text", ["{}", "1", "[1]", "\ufeff{}", "주차", "PK", "BA: 1", "<"])
def test_text_is_text(tmp_path, text):
    assert describe_content(text.encode()) is None
    (tmp_path / "a").write_text(text)
    assert read_text_file(tmp_path / "a", max_bytes=1000) == (text.removeprefix("\ufeff"), text[0] == "\ufeff")


def test_a_file_that_was_not_copied_whole(tmp_path):
    (tmp_path / "a.json").write_bytes(b"[1, 2" + bytes(9))
    with pytest.raises(UserError, match=r"a\.json.*byte 5"):
        read_text_file(tmp_path / "a.json", max_bytes=1000)


def test_limits_and_what_cannot_be_opened(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 11)
    assert read_text_file(tmp_path / "a", max_bytes=11)[0] == "x" * 11
    for path, word in [(tmp_path / "a", "10"), (tmp_path / "b", "No such"), (tmp_path, "folder"), ("a\0b", "null")]:
        with pytest.raises(UserError, match=word):
            read_text_file(path, max_bytes=10)
