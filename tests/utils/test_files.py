import errno
import fcntl
import multiprocessing
import os
import socket
import stat
from contextlib import ExitStack

import pytest

from parking.utils import files
from parking.utils.errors import UserError
from parking.utils.files import (
    check_writable,
    locked,
    open_atomic,
    open_regular,
    read_regular,
    remove_stale_lock,
)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("previous", [None, b"previous, and longer"])
def test_a_file_appears_when_it_is_whole(tmp_path, previous):
    path = tmp_path / "file.bin" if previous else tmp_path / "a" / "b" / "file.bin"
    if previous:
        path.write_bytes(previous)
    with open_atomic(path) as file:
        file.write(b"new")
        file.flush()
        assert (path.read_bytes() if path.exists() else None) == previous
    assert path.read_bytes() == b"new"
    assert names_in(path.parent) == ["file.bin"]


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
    # Modes are those of open(): with tempfile's 0600, nobody else could read the file on a shared disk.
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


def hold(path, opened, release):
    with locked(path, busy="taken"):
        opened.set()
        release.wait()


def test_a_lock_keeps_other_processes_out_and_leaves_nothing(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    opened, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, opened, release))
    process.start()
    opened.wait()
    with pytest.raises(UserError, match=r"^taken$"), locked(path, busy="taken"):
        pass
    release.set()
    process.join()
    with pytest.raises(ZeroDivisionError), locked(path, busy="taken"):
        assert path.exists()
        _ = 1 / 0
    assert not path.exists()


def test_a_lock_that_was_removed_meanwhile_is_taken_anew(tmp_path, monkeypatch):
    path, checks = tmp_path / "lock", []
    original = files.is_still_there

    def is_still_there(file, path):
        if not checks:
            path.unlink()  # as the one that had it does
        checks.append(original(file, path))
        return checks[-1]

    monkeypatch.setattr(files, "is_still_there", is_still_there)
    with locked(path, busy="taken"):
        assert checks == [False, True] and path.exists()


def test_a_lock_is_waited_for(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with ExitStack() as other:
        other.enter_context(locked(path, busy="taken"))
        monkeypatch.setattr(files.time, "sleep", lambda seconds: other.close())
        with locked(path, busy="taken", max_seconds=600):
            assert path.exists()
    assert not path.exists()


def test_a_lock_that_cannot_be_made_is_not_waited_for(tmp_path, monkeypatch):
    (tmp_path / "lock").mkdir()
    monkeypatch.setattr(files.time, "sleep", lambda seconds: pytest.fail("waits"))
    with pytest.raises(UserError, match="lock"), locked(tmp_path / "lock", busy="taken", max_seconds=600):
        pass


def test_a_lock_where_the_file_system_has_none(tmp_path, monkeypatch):
    def fail(*args):
        raise OSError("not supported")

    monkeypatch.setattr(files.fcntl, "flock", fail)
    with locked(tmp_path / "lock", busy="taken"):
        pass


def test_only_a_lock_that_nobody_holds_is_removed(tmp_path):
    path = tmp_path / "lock"
    path.touch()
    remove_stale_lock(path)
    assert not path.exists()
    with locked(path, busy="taken"):
        remove_stale_lock(path)
        assert path.exists()


def test_a_lock_that_another_one_has_by_now_is_left_to_it(tmp_path):
    path = tmp_path / "lock"
    with locked(path, busy="taken"):
        path.unlink()
        path.touch()
    assert path.exists()


@pytest.mark.parametrize("make", ["FIFO", "folder", "device", "socket"])
def test_only_regular_files_are_opened(tmp_path, make):
    path = "/dev/zero" if make == "device" else str(tmp_path / "x")
    makers = {"FIFO": os.mkfifo, "folder": os.mkdir, "socket": lambda path: socket.socket(socket.AF_UNIX).bind(path)}
    makers.get(make, os.stat)(path)
    with pytest.raises(OSError, match=make if make != "socket" else None):
        open_regular(path)


def test_a_link_to_a_regular_file_is_read_and_a_large_one_is_not(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "link", max_bytes=5) == b"12345"
    os.truncate(tmp_path / "a", 5 * 10**12)  # sparse
    with pytest.raises(UserError, match="5,000,000,000,000"):
        read_regular(tmp_path / "link", max_bytes=10**9)


def test_a_file_that_does_not_state_its_size():
    if not os.path.exists("/proc/self/status"):
        pytest.skip("needs Linux's /proc")
    assert os.stat("/proc/self/status").st_size == 0
    assert read_regular("/proc/self/status", max_bytes=10**9).startswith(b"Name:")
    with pytest.raises(UserError, match=r"/proc/self/status.* 9 bytes"):
        read_regular("/proc/self/status", max_bytes=9)


def test_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"12345")
    before = os.stat(path)
    path.write_bytes(b"1234567")
    monkeypatch.setattr(os, "fstat", lambda descriptor: before)
    assert read_regular(path, max_bytes=7) == b"1234567"
    with pytest.raises(UserError, match=r"a.* 6 bytes"):
        read_regular(path, max_bytes=6)


def test_a_lock_that_cannot_be_removed_does_not_hide_what_went_wrong(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", path)

    with pytest.raises(OSError, match="predictions"), locked(tmp_path / "lock", busy=""):
        monkeypatch.setattr(os, "unlink", refuse)
        raise OSError("predictions")


def test_a_lock_is_not_waited_for_without_an_end(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    with open(path, "ab") as first, open(path, "ab") as second:
        files.wait_for_lock(first, fcntl.LOCK_EX, path=path)
        monkeypatch.setattr(files, "_MAX_LOCK_SECONDS", 0)
        with pytest.raises(UserError, match="lock"):
            files.wait_for_lock(second, fcntl.LOCK_SH, path=path)
        monkeypatch.setattr(files, "_MAX_LOCK_SECONDS", 600)
        monkeypatch.setattr(files.time, "sleep", lambda seconds: fcntl.flock(first, fcntl.LOCK_UN))
        files.wait_for_lock(second, fcntl.LOCK_SH, path=path)
