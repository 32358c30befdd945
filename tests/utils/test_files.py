import os
import stat

import pytest

from parking.utils.errors import UserError
from parking.utils.files import check_writable, open_atomic


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "a" / "b" / "file.bin"
    with open_atomic(path) as file:
        file.write(b"new")
        assert not path.exists(), "not before it is whole"
    assert path.read_bytes() == b"new"
    assert names_in(path.parent) == ["file.bin"]


def test_the_previous_file_stays_until_the_end(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"previous, and longer")
    with open_atomic(str(path)) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"previous, and longer"
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("previous", [None, b"previous"])
def test_an_error_leaves_what_was_there(tmp_path, error, previous):
    path = tmp_path / "file.bin"
    if previous is not None:
        path.write_bytes(previous)
    with pytest.raises(error), open_atomic(path) as file:
        file.write(b"half")
        raise error
    assert names_in(tmp_path) == ([] if previous is None else ["file.bin"])
    assert previous is None or path.read_bytes() == previous


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_permissions_follow_the_umask(tmp_path, umask, mode):
    # As with open(), unlike tempfile's 0600, which nobody else could read on a shared disk.
    path = tmp_path / "file.bin"
    before = os.umask(umask)
    try:
        with open_atomic(path) as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_folder_that_cannot_be_written_to_is_told_before(tmp_path):
    check_writable(tmp_path / "a/b", name="--output")
    assert list((tmp_path / "a/b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output .*file cannot be written to"):
        check_writable(tmp_path / "file", name="--output")
