"""Zips are made here byte by byte where zipfile would not write what other programs do."""

import fcntl
import json
import os
import re
import runpy
import shutil
import stat
import struct
import sys
import unicodedata
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parking.challenge import preparation
from parking.challenge.archive import read_archive
from parking.challenge.preparation import check_disk, compare, find_layout_problems, find_parts, unpack
from parking.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
KOREAN = "20201102_경기도_-_-_맑음_주간_실외_right_000079_0088055.png"
UTF8_FLAG = 0x800
FILES = {"images/" + KOREAN: b"picture" * 1000, "images/b.png": b"", "label/Train.json": b'{"images": []}'}


def write_zip(file, entries, *, encoding="utf-8", flags=UTF8_FLAG, method=zipfile.ZIP_DEFLATED, **fields):
    """``entries``: (name as text or bytes, content) pairs, or a dict. ``fields`` are set in the list of contents."""
    items = list(entries.items()) if isinstance(entries, dict) else list(entries)
    raw_names = [name if isinstance(name, bytes) else name.encode(encoding) for name, _ in items]
    assert all(len(raw) >= 4 for raw in raw_names)
    with zipfile.ZipFile(file, "w", method) as archive:
        for i, (_, content) in enumerate(items):
            # A place holder of the same length, replaced below.
            info = zipfile.ZipInfo(f"{i:04}".ljust(len(raw_names[i]), "x"))
            info.compress_type = method
            info.external_attr = fields.get("external_attr", 0)
            archive.writestr(info, content)
    data = bytearray(Path(file).read_bytes())
    # A local header has its flags at 6 and is 30 bytes long. An entry of the list has its flags at 8, method 10,
    # checksum 16, declared size 24, disk 34, and is 46 bytes long. The name follows both.
    for found in re.finditer(b"PK(\x03\x04|\x01\x02)", bytes(data)):
        header, is_central = found.start(), found[1] == b"\x01\x02"
        struct.pack_into("<H", data, header + (8 if is_central else 6), flags)
        for key, form, offset in (("crc", "<L", 16), ("size", "<L", 24), ("disk", "<H", 34), ("how", "<H", 10)):
            if is_central and key in fields:
                struct.pack_into(form, data, header + offset, fields[key])
        name = header + (46 if is_central else 30)
        raw = raw_names[int(data[name : name + 4])]
        data[name : name + len(raw)] = raw
    Path(file).write_bytes(data)


def read_tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def get_part(data_dir):
    (part,) = find_parts(data_dir)
    return part


def unpack_train(data_dir):
    unpack(get_part(data_dir))
    return read_tree(data_dir / "train")


@pytest.fixture
def train(tmp_path):
    """The training part, whose zip holds FILES."""
    write_zip(tmp_path / "train.zip", FILES)
    return get_part(tmp_path)


class TestNames:
    @pytest.mark.parametrize("leading", ["", "train/", "Train/", "./train/", "train\\"])
    @pytest.mark.parametrize(("encoding", "flags"), [("utf-8", UTF8_FLAG), ("utf-8", 0), ("cp949", 0)])
    def test_korean(self, tmp_path, encoding, flags, leading):
        separator = "\\" if "\\" in leading else "/"
        entries = {leading + name.replace("/", separator): content for name, content in FILES.items()}
        write_zip(tmp_path / "train.zip", entries, encoding=encoding, flags=flags)
        before = (tmp_path / "train.zip").read_bytes()
        assert unpack_train(tmp_path) == FILES
        assert names_in(tmp_path) == ["train", "train.zip"]
        assert (tmp_path / "train.zip").read_bytes() == before

    # The first two bytes are "ü" in UTF-8 and "체" in cp949; 경 (b0 e6) is not UTF-8.
    @pytest.mark.parametrize(("raw", "name"), [(b"\xc3\xbc", "체"), ("맑음".encode(), "맑음")])
    def test_all_names_together_tell_the_encoding(self, tmp_path, raw, name):
        names = [b"images/%s.png" % raw, "images/경.png".encode("cp949"), b"label/Train.json"]
        write_zip(tmp_path / "train.zip", [(name, b"1") for name in names], flags=0)
        assert set(unpack_train(tmp_path)) == {"images/경.png", f"images/{name}.png", "label/Train.json"}

    def test_folders_and_litter(self, tmp_path):
        litter = ["__MACOSX/train/images/._b.png", "__MACOSX/train/._Icon\r", "train/.DS_Store", "train/images/._b.png"]
        entries = {f"train/{name}": content for name, content in FILES.items()} | dict.fromkeys(litter, b"x")
        write_zip(tmp_path / "train.zip", {"././": b"", "train/images/": b"", "train\\label\\": b"", **entries})
        part = get_part(tmp_path)
        assert part.archive.num_skipped == 4
        assert part.archive.size == sum(map(len, FILES.values()))
        unpack(part)
        assert read_tree(tmp_path / "train") == FILES


class TestRefused:
    @pytest.mark.parametrize(
        "name",
        ["../evil", "images/../../evil", "..\\evil", "/tmp/evil", "\\\\host\\share\\evil", "C:\\evil", "c:evil",
         "images/e\0vil", "images/e\nvil", "././."],
    )  # fmt: skip
    @pytest.mark.parametrize("flags", [0, UTF8_FLAG])
    def test_leaving_the_folder(self, tmp_path, name, flags):
        (tmp_path / "data").mkdir()
        write_zip(tmp_path / "data" / "train.zip", {**FILES, name: b"evil"}, flags=flags)
        with pytest.raises(UserError, match=r"train\.zip': the name '"):
            find_parts(tmp_path / "data")
        assert names_in(tmp_path) == ["data"] and names_in(tmp_path / "data") == ["train.zip"]

    @pytest.mark.parametrize(
        ("first", "second", "named"),
        [("images/a.png", "images/a.png", ["images/a.png"]), ("images/a.png", "images\\a.png", ["images/a.png"]),
         ("images/a.png", "images/A.PNG", ["images/a.png", "images/A.PNG"]), ("images/a", "images/./a", ["images/a"]),
         ("images/경.png", unicodedata.normalize("NFD", "images/경.png"), ["images/경.png"]),
         ("images/a", "images/a/b", ["images/a"]), ("images/a/b", "images/a", ["images/a"]),
         ("images/a", "Images/b", ["images", "Images"])],
    )  # fmt: skip
    def test_two_names_for_one_file(self, tmp_path, first, second, named):
        write_zip(tmp_path / "train.zip", [(first, b"1"), (second, b"2")])
        with pytest.raises(UserError) as error:
            read_archive(tmp_path / "train.zip", leading_folder="train")
        for name in named:
            assert f"'{name}'" in unicodedata.normalize("NFC", str(error.value))

    @pytest.mark.parametrize(
        ("entries", "fields", "message"),
        [
            (FILES, {"external_attr": (stat.S_IFLNK | 0o777) << 16}, "link"),
            (FILES, {"external_attr": (stat.S_IFIFO | 0o666) << 16}, "special file"),
            (FILES, {"flags": 1}, "encrypted"),
            (FILES, {"how": 9}, "Deflate64"),
            (FILES, {"how": 12}, "bzip2"),
            (FILES, {"how": 77}, "method 77"),
            (FILES, {"disk": 1}, "several parts"),
            ({"pictures/a.png": b"1", "notes.txt": b"2"}, {}, r"images/.* notes\.txt, pictures;"),
            ([(b"images/\xff\xff.png", b"1")], {"flags": 0}, "cp949"),
            ({"images/경.png": b"1"}, {"encoding": "cp949", "flags": UTF8_FLAG}, "damaged"),
        ],
    )
    def test_members_that_are_refused(self, tmp_path, entries, fields, message):
        write_zip(tmp_path / "train.zip", entries, **fields)
        with pytest.raises(UserError, match=rf"train\.zip'.*{message}"):
            find_parts(tmp_path)

    @pytest.mark.parametrize("fields", [{"size": 0}, {"size": 10}, {"size": 10**6}, {"crc": 5}])
    def test_other_content_than_declared(self, tmp_path, fields):
        content = b"0" * 5000
        write_zip(tmp_path / "train.zip", {"images/a.png": content, "label/Train.json": content}, **fields)
        part, done = get_part(tmp_path), []
        with pytest.raises(UserError, match="damaged"):
            unpack(part, done.append)
        assert sum(done) <= fields.get("size", 5000)
        assert names_in(tmp_path) == [".train.unpacking", "train.zip"]
        assert read_tree(part.staging) == {}

    @pytest.fixture
    def elsewhere(self, tmp_path):
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        yield folder
        assert names_in(folder) == []

    def test_links_in_the_staging_folder(self, train, elsewhere):
        train.staging.symlink_to(elsewhere)
        with pytest.raises(UserError, match="link"):
            unpack(train)
        train.staging.unlink()
        train.staging.mkdir()
        (train.staging / "images").symlink_to(elsewhere)
        with pytest.raises(UserError, match="'images'"):
            unpack(train)

    def test_the_half_file_of_a_killed_run_is_removed(self, tmp_path):
        data, mine = tmp_path / "data", tmp_path / "mine"
        data.mkdir()
        mine.write_text("mine")
        write_zip(data / "train.zip", FILES)
        (data / ".train.unpacking.part").symlink_to(mine)
        (data / ".train.unpacking.mine").write_bytes(b"mine")
        assert unpack_train(data) == FILES
        assert mine.read_text() == "mine"
        assert names_in(data) == [".train.unpacking.mine", "train", "train.zip"]

    def test_a_small_file_takes_little_memory(self, tmp_path, measure_work):
        write_zip(tmp_path / "train.zip", {**FILES, "a/" * 30_000 + "b": b""})

        def refuse():
            with pytest.raises(UserError, match=r"train\.zip': the name .* has 30000 folders"):
                find_parts(tmp_path)

        assert measure_work(refuse)[1] < 10**7

    def test_twice_as_many_files_take_twice_the_work(self, tmp_path, measure_work):
        def measure(n):
            file = tmp_path / f"{n}.zip"
            with zipfile.ZipFile(file, "w") as archive:
                for i in range(n):
                    archive.writestr(f"{'folder/' * 50}{i}", b"")
            return measure_work(lambda: read_archive(file, leading_folder="train"))

        small, large = measure(300), measure(600)
        assert all(b <= 2.3 * a for a, b in zip(small, large, strict=True)), (small, large)

    def test_a_fifo_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "train.zip")
        with pytest.raises(UserError, match="FIFO"):
            find_parts(tmp_path)

    def test_zip64_and_comments(self, tmp_path):
        file = tmp_path / "train.zip"
        with zipfile.ZipFile(file, "w") as archive, archive.open("images/a.png", "w", force_zip64=True) as member:
            member.write(b"1" * 100)
        with zipfile.ZipFile(file, "a") as archive:
            archive.comment = b"c" * 60_000
        assert read_archive(file, leading_folder="train").size == 100

    def test_bombs(self, tmp_path):
        file = tmp_path / "train.zip"
        write_zip(file, [(f"images/{i:04}", b"0") for i in range(300)], size=2**32 - 2)
        with pytest.raises(UserError, match=r"train\.zip.* 1,288,"):
            read_archive(file, leading_folder="train")

    @pytest.mark.parametrize("content", [b"", b"no zip", None])
    def test_not_a_zip(self, train, tmp_path, content):
        whole = train.archive.file.read_bytes()
        train.archive.file.write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(UserError, match=r"train\.zip' is damaged"):
            find_parts(tmp_path)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
    def test_any_damage_is_an_error_or_harmless(self, tmp_path, changes):
        data_dir = tmp_path / "data"
        shutil.rmtree(data_dir, ignore_errors=True)
        data_dir.mkdir()
        write_zip(data_dir / "train.zip", {**FILES, "images/b.png": b"b" * 50})
        data = bytearray((data_dir / "train.zip").read_bytes())
        for position, value in changes:
            data[position % len(data)] = value
        (data_dir / "train.zip").write_bytes(data)
        try:
            part = get_part(data_dir)
            check_disk([part])
            unpack(part)
        except UserError:
            assert not (data_dir / "train").exists()
        else:
            # Names and folders may have changed; the contents have checksums.
            assert set(read_tree(data_dir / "train").values()) <= {*FILES.values(), b"b" * 50} - {b""}
        assert names_in(tmp_path) == ["data"]


class TestUnpacking:
    def test_resumes(self, tmp_path):
        names = [f"images/{i}.png" for i in range(10)]
        files = {name: name.encode() * 500 for name in names} | {"label/Train.json": b"{}"}
        write_zip(tmp_path / "train.zip", files)
        done = []

        def interrupt(num_bytes):
            done.append(num_bytes)
            if len(done) == 6:
                raise KeyboardInterrupt

        part = get_part(tmp_path)
        with pytest.raises(KeyboardInterrupt):
            unpack(part, interrupt)
        assert names_in(tmp_path) == [".train.unpacking", "train.zip"]
        assert sorted(read_tree(part.staging)) == names[:5]
        # What a power failure may leave: cut off, or of the right size with zeros.
        (part.staging / names[0]).write_bytes(b"")
        (part.staging / names[1]).write_bytes(bytes(len(files[names[1]])))
        kept = (part.staging / names[2]).stat().st_mtime_ns
        done = []
        assert unpack(get_part(tmp_path), done.append) == 3
        assert sum(done) == part.archive.size
        assert read_tree(tmp_path / "train") == files
        assert (tmp_path / "train" / names[2]).stat().st_mtime_ns == kept
        assert names_in(tmp_path) == ["train", "train.zip"]

    def test_another_zip_meanwhile(self, train):
        train.staging.mkdir()
        (train.staging / "stranger").touch()
        with pytest.raises(UserError, match=r"'stranger', .*train\.zip'"):
            check_disk([train])

    def test_a_link_in_a_circle_is_not_followed(self, train, tmp_path):
        unpack(train)
        (tmp_path / "train/images/up").symlink_to(tmp_path / "train")
        assert compare(get_part(tmp_path)) == ([], [], 0)

    def test_disk_full_before(self, tmp_path, monkeypatch):
        write_zip(tmp_path / "train.zip", {"images/a.png": bytes(10**7), "label/Train.json": b"{}"})
        parts = find_parts(tmp_path)
        free = [0]
        usage = namedtuple("usage", "free")
        monkeypatch.setattr(preparation.shutil, "disk_usage", lambda path: usage(free[0]))
        # 10^7 bytes of a picture, 2 of the json, 8192 more for each of the two, and a GB that stays free.
        free[0] = 10**7 + 2 + 2 * 8192 + 10**9
        check_disk(parts)
        free[0] -= 5 * 10**8
        with pytest.raises(UserError, match=r" 0\.5 GB .* 10\.0 MB .* 1\.0 GB.* 0\.5 GB"):
            check_disk(parts)
        assert names_in(tmp_path) == ["train.zip"]
        # What an interrupted run has unpacked is not needed again.
        (parts[0].staging / "images").mkdir(parents=True)
        (parts[0].staging / "images/a.png").write_bytes(bytes(10**7))
        free[0] = 2 + 8192 + 10**9
        check_disk(parts)

    def test_disk_full_on_the_way(self, train, tmp_path):
        def progress(_):
            raise OSError(28, "No space left on device")

        with pytest.raises(UserError, match=r"train\.zip.* disk is full"):
            unpack(train, progress)
        assert unpack_train(tmp_path) == FILES

    def test_two_processes(self, train):
        train.staging.mkdir()
        descriptor = os.open(train.staging, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            with pytest.raises(UserError, match=r"process .*\.train\.unpacking"):
                unpack(train)
        finally:
            os.close(descriptor)
        unpack(train)

    def test_a_folder_that_appeared_meanwhile_stays(self, train):
        train.folder.mkdir()
        (train.folder / "mine").write_text("mine")
        with pytest.raises(UserError, match=r"train\.zip"):
            unpack(train)
        assert read_tree(train.folder) == {"mine": b"mine"}


class TestLayout:
    def test_compare(self, train, tmp_path):
        unpack(train)
        images = tmp_path / "train" / "images"
        (images / KOREAN).rename(images / unicodedata.normalize("NFD", KOREAN))
        (images / ".DS_Store").touch()
        assert compare(train) == ([], [], 0), "a Mac writes names as NFD"
        (images / "b.png").write_bytes(b"1")
        (images / "c.png").touch()
        (tmp_path / "train/label/Train.json").unlink()
        assert compare(train) == (["label/Train.json"], ["images/b.png"], 1)
        images.rename(tmp_path / "on another disk")
        images.symlink_to(tmp_path / "on another disk")
        (images / "b.png").unlink()
        (images / "b.png").symlink_to("nowhere")
        assert compare(train) == (["images/b.png", "label/Train.json"], [], 1), "links are followed"

    @pytest.mark.parametrize("name", ["train", "test"])
    def test_a_file_in_place_of_the_folder(self, tmp_path, name):
        (tmp_path / name).touch()
        with pytest.raises(UserError, match=f"{name}' must be a folder"):
            find_parts(tmp_path)

    def test_find_layout_problems(self, tmp_path):
        (tmp_path / "train" / "images").mkdir(parents=True)
        assert [problem.split("'")[1] for problem in find_layout_problems(tmp_path)] == [
            str(tmp_path / name)
            for name in ("train/images", "test", "train/label/Train.json", "Test_Images_Information.json")
        ]


class TestTool:
    @pytest.fixture
    def data_dir(self, tmp_path):
        folder = tmp_path / "자료 1"
        folder.mkdir()
        write_zip(folder / "train.zip", FILES, encoding="cp949", flags=0)
        write_zip(folder / "test.zip", {"test/images/a.png": b"1"})
        (folder / "Test_Images_Information.json").write_text(json.dumps({"images": [{"id": 1, "file_name": "a.png"}]}))
        return folder

    @pytest.fixture
    def run(self, monkeypatch, capsys):
        """``run(data_dir)``: exit code, stdout and stderr of the tool."""

        def run(data_dir):
            monkeypatch.setattr(sys, "argv", ["prepare_data.py", "--data-dir", str(data_dir)])
            with pytest.raises(SystemExit) as exited:
                runpy.run_path(str(ROOT / "tools" / "prepare_data.py"), run_name="__main__")
            out, err = capsys.readouterr()
            assert "Traceback" not in err
            return exited.value.code, out, err

        return run

    def test_unpacks_verifies_and_reports(self, data_dir, run):
        code, out, err = run(data_dir)
        assert code == 0, err
        assert "train: 3 files unpacked" in out and "check_data.py" in out and "unpacking train.zip: 100%" in err
        tree = read_tree(data_dir)
        assert tree["train/images/" + KOREAN] == FILES["images/" + KOREAN]
        code, out, err = run(data_dir)
        assert (code, err) == (0, "") and "all 3 files are there" in out
        assert read_tree(data_dir) == tree
        (data_dir / "train/images" / KOREAN).unlink()
        code, out, err = run(data_dir)
        assert code == 1 and f"1 files of {data_dir}/train.zip are missing" in err and KOREAN in err
        assert not (data_dir / "train/images" / KOREAN).exists(), "never changed"

    def test_ctrl_c(self, data_dir, run, monkeypatch):
        replaced = []

        def replace(*args, **kwargs):
            os_replace(*args, **kwargs)
            replaced.append(args[1])
            if len(replaced) == 2:
                # As on Ctrl-C. A signal would be ignored where a shell has started the tests in the background.
                raise KeyboardInterrupt

        os_replace = os.replace
        monkeypatch.setattr(os, "replace", replace)
        code, _, err = run(data_dir)
        assert code == 130 and "goes on where it stopped" in err and "interrupted" in err
        assert not (data_dir / "train").exists() and not (data_dir / "test").exists()
        code, out, err = run(data_dir)
        assert code == 0 and "(2 of them by an earlier run)" in out, err
        assert read_tree(data_dir / "train") == FILES

    def test_a_wrong_folder(self, run, tmp_path):
        code, _, err = run(tmp_path / "nowhere")
        assert code == 1 and err.startswith("error: ") and "nowhere'" in err
