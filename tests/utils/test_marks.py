import json
import multiprocessing
import os

import pytest

from parking.utils.errors import UserError
from parking.utils.marks import MARK_NAME, MarkedFiles, OutputFolder, is_own_folder, make_own_folder, open_output


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
    # The folder itself may be one.
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


def write_many(folder, number):
    for i in range(20):
        write(folder, f"{number}-{i}.json", bytes([number, i]))


def test_processes_mark_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=write_many, args=(tmp_path, i)) for i in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    folder = OutputFolder(tmp_path)
    assert all(folder.is_ours(f"{i}-{j}.json") for i in range(3) for j in range(20))
    for line in (tmp_path / MARK_NAME).read_text().splitlines():
        json.loads(line)


def test_what_lists_inputs_knows_ours(tmp_path):
    with open_output(tmp_path / "a.png") as file:
        file.write(b"ours")
    (tmp_path / "b.png").write_bytes(b"mine")
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    marked = MarkedFiles()
    assert [name for name in ("a.png", "b.png", "link.png", "c.png") if tmp_path / name in marked] == [
        "a.png",
        "link.png",
    ]
    (tmp_path / "a.png").write_bytes(b"mine now")
    assert tmp_path / "a.png" not in MarkedFiles()


def make_many(folder, start):
    start.wait()
    for i in range(50):
        make_own_folder(folder / str(i))
        (folder / str(i) / "results.jsonl").touch()


@pytest.mark.parametrize("num", [2, 5])
def test_processes_make_a_folder_at_once(tmp_path, num):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(num)
    processes = [context.Process(target=make_many, args=(tmp_path, start)) for _ in range(num)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert all(is_own_folder(tmp_path / str(i)) for i in range(50))
