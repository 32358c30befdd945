import json
import multiprocessing
import os
import re

import pytest

from parking.utils import marks
from parking.utils.errors import UserError
from parking.utils.marks import (
    MARK_NAME,
    MarkedFiles,
    OutputFolder,
    is_own_folder,
    make_own_folder,
    open_output,
    remove_own_folder,
)


def write(folder, name, content=b"ours", **kwargs):
    with OutputFolder(folder).open(name, **kwargs) as file:
        file.write(content)


def test_ours_is_replaced_and_removed(tmp_path):
    folder = OutputFolder(tmp_path / "out")
    for content in (b"one", b"two"):
        write(tmp_path / "out", "day/a.png", content)
        assert (tmp_path / "out" / "day" / "a.png").read_bytes() == content
    assert folder.is_ours("day/a.png") and folder.remove("day/a.png") and not folder.remove("day/a.png")
    assert not (tmp_path / "out" / "day" / "a.png").exists()


@pytest.mark.parametrize("kind", ["file", "edited", "replaced", "link", "dead link", "folder", "fifo"])
def test_what_is_not_ours_stays(tmp_path, kind):
    path, target = tmp_path / "a.json", tmp_path / "target"
    target.write_bytes(b"mine")
    if kind in ("edited", "replaced"):
        write(tmp_path, "a.json")
    if kind == "replaced":
        path.unlink()
    {
        "file": lambda: path.write_bytes(b"mine"),
        "edited": lambda: path.write_bytes(b"edit"),
        "replaced": lambda: path.write_bytes(b"mine"),
        "link": lambda: path.symlink_to(target),
        "dead link": lambda: path.symlink_to(tmp_path / "nowhere"),
        "folder": path.mkdir,
        "fifo": lambda: os.mkfifo(path),
    }[kind]()
    folder = OutputFolder(tmp_path)
    before = os.lstat(path)
    with pytest.raises(UserError, match=r"a\.json.*--output"):
        write(tmp_path, "a.json")
    with pytest.raises(UserError, match=r"a\.json.*--output"):
        folder.start("a.json")
    assert not folder.is_ours("a.json") and not folder.remove("a.json")
    assert os.lstat(path) == before and target.read_bytes() == b"mine" and not (tmp_path / "nowhere").exists()


def test_nothing_is_written_through_a_linked_folder(tmp_path):
    (tmp_path / "target").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "visualizations").symlink_to(tmp_path / "target")
    with pytest.raises(UserError, match=r"visualizations.*link"):
        write(tmp_path / "out", "visualizations/a.png")
    assert not list((tmp_path / "target").iterdir())
    # The folder of the results itself may be a link.
    (tmp_path / "out").rename(tmp_path / "real")
    (tmp_path / "out").symlink_to(tmp_path / "real")
    write(tmp_path / "out", "a.json")
    assert (tmp_path / "real" / "a.json").read_bytes() == b"ours"


def test_a_file_that_appears_while_ours_is_written_stays(tmp_path):
    with pytest.raises(UserError, match=r"a\.json"), OutputFolder(tmp_path).open("a.json") as file:
        file.write(b"ours")
        (tmp_path / "a.json").write_bytes(b"mine")
    assert (tmp_path / "a.json").read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir() if path.name != MARK_NAME] == ["a.json"]


def test_an_unfinished_file_is_ours_until_it_is_finished(tmp_path):
    folder = OutputFolder(tmp_path)
    path = folder.start("a.jsonl", source={"path": "/x"})
    path.write_bytes(b"half")
    assert OutputFolder(tmp_path).is_ours("a.jsonl"), "killed"
    folder.finish("a.jsonl")
    assert OutputFolder(tmp_path).source_of("a.jsonl") == {"path": "/x"} and folder.is_ours("a.jsonl")
    path.write_bytes(b"edit")
    assert not OutputFolder(tmp_path).is_ours("a.jsonl")


@pytest.mark.parametrize("content", [b"", b"{}", b"mine\n", b'{"parking": 1, "version": 2}\n', b"[" * 1000])
def test_a_foreign_mark_file(tmp_path, content):
    (tmp_path / MARK_NAME).write_bytes(content)
    (tmp_path / "a.json").write_bytes(b"mine")
    with pytest.raises(UserError):
        write(tmp_path, "a.json")
    assert (tmp_path / "a.json").read_bytes() == b"mine"


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_a_mark_that_is_not_a_file(tmp_path, kind):
    path, target = tmp_path / MARK_NAME, tmp_path / "target"
    target.write_bytes(b"mine")
    {"link": lambda: path.symlink_to(target), "fifo": lambda: os.mkfifo(path), "folder": path.mkdir}[kind]()
    with pytest.raises(UserError, match=MARK_NAME):
        write(tmp_path, "a.json")
    assert target.read_bytes() == b"mine"


def test_nonsense_in_a_mark_says_nothing(tmp_path):
    write(tmp_path, "a.json")
    lines = [b"7", b"[]", b"\xff", b'{"name": 7}', b'{"name": "b.json", "size": -1, "digest": 7}', b'{"name": "../b"}']
    with open(tmp_path / MARK_NAME, "ab") as file:
        file.write(b"\n".join(lines) + b'\n{"name": "b.json", "si')
    (tmp_path / "b.json").write_bytes(b"mine")
    assert OutputFolder(tmp_path).is_ours("a.json") and not OutputFolder(tmp_path).is_ours("b.json")
    write(tmp_path, "c.json")
    assert OutputFolder(tmp_path).is_ours("c.json"), "behind a line that a kill cut off"


def test_only_what_older_versions_wrote_is_adopted(tmp_path):
    (tmp_path / "a.json").write_bytes(b'[{"image_id":1}]')
    (tmp_path / "b.json").write_bytes(b"[7]")
    folder = OutputFolder(tmp_path)
    for name in ("b.json", "a.json"):
        folder.adopt_unmarked(name, start=b'[{"image_id":')
    assert folder.is_ours("a.json") and not folder.is_ours("b.json")
    (tmp_path / "c.json").write_bytes(b'[{"image_id":1}]')
    folder.adopt_unmarked("c.json", start=b'[{"image_id":')
    assert not folder.is_ours("c.json"), "there are marks"


def test_what_lists_inputs_knows_ours(tmp_path):
    with open_output(tmp_path / "a.png") as file:
        file.write(b"ours")
    (tmp_path / "b.png").write_bytes(b"mine")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    marked = MarkedFiles()
    names = ("a.png", "b.png", "link.png", "c.png")
    assert [tmp_path / name in marked for name in names] == [True, False, True, False]
    (tmp_path / "a.png").write_bytes(b"mine now")
    assert tmp_path / "a.png" not in MarkedFiles()


def test_a_mark_does_not_grow_with_every_run(tmp_path, monkeypatch):
    monkeypatch.setattr(marks, "_MAX_MORE_LINES", 10)
    OutputFolder(tmp_path).start("log.txt", source={"path": "/x"}).write_bytes(b"open")
    for run in range(100):
        for name in ("a.json", "b.json"):
            # b.json has two contents in turns, a.json a new one each time.
            write(tmp_path, name, b"%d" % (run if name == "a.json" else run % 2))
        assert all(map(OutputFolder(tmp_path).is_ours, ("a.json", "b.json", "log.txt")))
    assert len((tmp_path / MARK_NAME).read_bytes().splitlines()) < 30
    assert OutputFolder(tmp_path).source_of("log.txt") == {"path": "/x"}
    (tmp_path / "a.json").write_bytes(b"mine")
    assert not OutputFolder(tmp_path).is_ours("a.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == [MARK_NAME, "a.json", "b.json", "log.txt"]


def test_the_file_of_before_is_ours_until_it_is_replaced(tmp_path):
    for content in (b"one", b"two", b"one"):
        write(tmp_path, "a.json", content)
    with pytest.raises(OSError), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError()))
        write(tmp_path, "a.json", b"three")
    assert OutputFolder(tmp_path).is_ours("a.json") and (tmp_path / "a.json").read_bytes() == b"one"


@pytest.mark.parametrize("num_bytes", [0, 1, 40])
def test_a_mark_that_was_begun_on_a_full_disk(tmp_path, num_bytes):
    write(tmp_path, "a.json")
    os.truncate(tmp_path / MARK_NAME, num_bytes)
    assert not OutputFolder(tmp_path).is_ours("a.json") and not is_own_folder(tmp_path)
    write(tmp_path, "b.json")
    assert OutputFolder(tmp_path).is_ours("b.json")


def test_many_files_are_checked_by_their_sizes(tmp_path, monkeypatch):
    write(tmp_path, "a.png")
    folder = OutputFolder(tmp_path)
    monkeypatch.setattr(marks, "_measure", None)
    folder.check(["a.png", "b.png"], by_size=True)
    (tmp_path / "a.png").write_bytes(b"mine now")
    with pytest.raises(UserError, match=r"a\.png"):
        folder.check(["a.png"], by_size=True)


def test_inputs_beside_a_mark_that_cannot_be_read(tmp_path):
    (tmp_path / MARK_NAME).write_bytes(b"of a later version")
    with pytest.raises(UserError, match=MARK_NAME):
        _ = tmp_path / "a.png" in MarkedFiles()


def run_at_once(target, folder, num):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(num)
    processes = [context.Process(target=target, args=(folder, start)) for _ in range(num)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


def remove(folder, start):
    start.wait()
    for i in range(50):
        path = folder / str(i)
        assert not is_own_folder(path) or remove_own_folder(path, re.compile(r"model-\d|results\.jsonl"))


@pytest.mark.parametrize("num", [2, 5])
def test_processes_remove_a_folder_at_once(tmp_path, num):
    for i in range(50):
        for j in range(3):
            make_own_folder(tmp_path / str(i))
            make_own_folder(tmp_path / str(i) / f"model-{j}")
            (tmp_path / str(i) / f"model-{j}" / "results.jsonl").touch()
    (tmp_path / "0" / "model-7").mkdir()  # a kill came before its mark
    run_at_once(remove, tmp_path, num)
    assert not list(tmp_path.iterdir())


def write_many(folder, start):
    start.wait()
    for i in range(20):
        write(folder, f"{os.getpid()}-{i}.json", b"%d %d" % (os.getpid(), i))


def test_processes_mark_at_once(tmp_path):
    run_at_once(write_many, tmp_path, 3)
    folder, names = OutputFolder(tmp_path), [path.name for path in tmp_path.glob("*.json")]
    assert len(names) == 60 and all(map(folder.is_ours, names))
    for line in (tmp_path / MARK_NAME).read_text().splitlines():
        json.loads(line)


def make_many(folder, start):
    start.wait()
    for i in range(50):
        make_own_folder(folder / str(i))
        (folder / str(i) / "results.jsonl").touch()


@pytest.mark.parametrize("num", [2, 5])
def test_processes_make_a_folder_at_once(tmp_path, num):
    run_at_once(make_many, tmp_path, num)
    assert all(is_own_folder(tmp_path / str(i)) for i in range(50))


def test_one_character_of_a_large_file(tmp_path):
    write(tmp_path, "a.json", bytes(40 << 20))
    folder = OutputFolder(tmp_path)
    assert folder.is_ours("a.json")
    with open(tmp_path / "a.json", "r+b") as file:
        file.seek((20 << 20) + 12345)
        file.write(b"1")
    assert not folder.is_ours("a.json")
    with pytest.raises(UserError, match=r"a\.json.*changed"):
        write(tmp_path, "a.json")
