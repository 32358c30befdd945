import multiprocessing
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from parking.config import get_cfg
from parking.data import cache as cache_module
from parking.data.cache import (
    ImageCache,
    SharedMemoryFolder,
    build_cache,
    check_room,
    estimate_cache_bytes,
    get_default_cache_dir,
)
from parking.data.image_io import name_variant
from parking.utils.errors import UserError

SIZE = (24, 32)


def make_picture(seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(small, (32, 24), interpolation=cv2.INTER_CUBIC)


class Loader:
    """Takes any file for a picture that its first byte is the seed of, and counts."""

    def __init__(self):
        self.calls = 0

    def __call__(self, data):
        self.calls += 1
        return make_picture(int(data[0])), (48, 64)


def make_cache(folder, image_format="raw"):
    return ImageCache(folder, size=SIZE, image_format=image_format)


def make_cfg(**changes):
    cfg = get_cfg()
    cfg.INPUT.SIZE_TRAIN, cfg.INPUT.CACHE = list(SIZE), "disk"
    for key, value in changes.items():
        cfg.INPUT[key] = value
    return cfg


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "images" / "사진.png"
    path.parent.mkdir()
    path.write_bytes(b"\x01rest")
    return path


def find_entries(folder):
    return sorted(p for p in Path(folder).glob("*-24x32/*/*") if p.is_file())


def test_raw_pixels_are_kept_exactly(tmp_path, source):
    load = Loader()
    for _ in range(3):
        image, size = make_cache(tmp_path / "c").fetch(str(source), load)
        np.testing.assert_array_equal(image, make_picture(1))
        assert size == (48, 64)
    assert load.calls == 1
    # A header of 36 bytes: magic 4, four sides of 4, checksum 4, length 8, and 4 unused.
    assert [p.stat().st_size for p in find_entries(tmp_path / "c")] == [36 + 24 * 32 * 3]


def test_jpeg_gives_the_same_at_the_first_and_at_later_calls(tmp_path, source):
    load = Loader()
    first, size = make_cache(tmp_path / "c", "jpeg").fetch(str(source), load)
    again, _ = make_cache(tmp_path / "c", "jpeg").fetch(str(source), load)
    np.testing.assert_array_equal(first, again)
    assert (load.calls, size, first.shape) == (1, (48, 64), (24, 32, 3))
    error = np.mean((first.astype(float) - make_picture(1)) ** 2)
    # 255^2 / 10^3.5 = 20.6, that is 35 dB, on a picture of strong colours and 24 pixels.
    assert 0 < error < 20.6


def test_a_changed_file_is_noticed(tmp_path, source):
    load, cache = Loader(), make_cache(tmp_path / "c")
    cache.fetch(str(source), load)
    times = source.stat()
    source.write_bytes(b"\x02rest")
    # Of the same length and, after this, the same time of change: that of the folder's entry tells.
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    image, _ = cache.fetch(str(source), load)
    np.testing.assert_array_equal(image, make_picture(2))
    assert load.calls == 2


@pytest.mark.parametrize("image_format", ["raw", "jpeg"])
@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "longer", "other magic", "other shape"])
def test_a_damaged_entry_is_made_anew(tmp_path, source, damage, image_format):
    load, cache = Loader(), make_cache(tmp_path / "c", image_format)
    expected, _ = cache.fetch(str(source), load)
    (entry,) = find_entries(tmp_path / "c")
    good = entry.read_bytes()
    middle = len(good) // 2
    bad = {
        "cut": good[:middle],
        "empty": b"",
        "flipped": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
        "longer": good + b"x",
        "other magic": b"XXXX" + good[4:],
        # Heights 24 -> 32 in the header: as many bytes would be needed as there are not.
        "other shape": good[:12] + (32).to_bytes(4, "little") + good[16:],
    }
    entry.write_bytes(bad[damage])
    image, _ = cache.fetch(str(source), load)
    np.testing.assert_array_equal(image, expected)
    assert load.calls == 2
    assert entry.read_bytes() == good


def _fetch_all(folder, paths, queue):
    load, cache = Loader(), make_cache(folder)
    sums = [int(cache.fetch(path, load)[0].sum()) for path in paths]
    queue.put(sums)


def test_several_processes_at_once(tmp_path, source):
    paths = []
    for i in range(40):
        paths.append(str(source.with_name(f"{i}.png")))
        Path(paths[-1]).write_bytes(bytes([i]))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    # One of them is killed in between, possibly while it writes a file.
    victim = context.Process(target=_fetch_all, args=(tmp_path / "c", paths, context.Queue()))
    others = [context.Process(target=_fetch_all, args=(tmp_path / "c", order, queue)) for order in (paths, paths)]
    for process in (victim, *others):
        process.start()
    victim.kill()
    results = [queue.get(timeout=60) for _ in others]
    for process in (victim, *others):
        process.join()
    assert results == [[int(make_picture(i).sum()) for i in range(40)]] * 2
    assert len([p for p in find_entries(tmp_path / "c") if not p.name.startswith(".")]) == 40


def test_estimated_room():
    # 1080 x 1920 into 1280 x 1280: 720 x 1280; 100 x 50 is enlarged to 1280 x 640.
    sizes, raw = [(1080, 1920), (100, 50)], 3 * 720 * 1280 + 3 * 1280 * 640 + 2 * 36
    assert estimate_cache_bytes(sizes, (1280, 1280), "raw") == raw
    assert estimate_cache_bytes(sizes, (1280, 1280), "jpeg") == raw // 8


def test_a_cache_that_will_not_fit_is_refused(tmp_path, monkeypatch):
    gb = 10**9
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 5 * gb}))
    cfg = make_cfg(CACHE_GB=20.0)
    check_room(tmp_path, 5 * gb, 0, cfg)
    check_room(tmp_path, 5 * gb, 15 * gb, cfg)
    with pytest.raises(UserError, match=r"68\.0 GB .*INPUT\.CACHE_GB 20"):
        check_room(tmp_path, 68 * gb, 0, cfg)
    with pytest.raises(UserError, match=r"beside 12\.0 GB.*INPUT\.CACHE_GB 20"):
        check_room(tmp_path, 9 * gb, 12 * gb, cfg)
    with pytest.raises(UserError, match=r"5\.0 GB left.*INPUT\.CACHE_DIR"):
        check_room(tmp_path, 6 * gb, 0, cfg)


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert get_default_cache_dir() == str(tmp_path / "parking")
    assert build_cache(make_cfg(), []) is not None and (tmp_path / "parking" / "images" / "raw-24x32").is_dir()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert get_default_cache_dir() == str(tmp_path / "home" / ".cache" / "parking")


def test_a_folder_that_cannot_be_written_is_named(tmp_path, source):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/c' cannot be written"):
        make_cache(tmp_path / "file" / "c")


def test_shared_memory_goes_with_its_last_user(tmp_path):
    first, second = SharedMemoryFolder(tmp_path), SharedMemoryFolder(tmp_path)
    assert first.path == second.path
    (first.path / "x").write_bytes(b"1")
    first.close()
    assert (second.path / "x").exists()
    second.close()
    second.close()
    assert not second.path.exists()
    third = SharedMemoryFolder(tmp_path)
    assert third.path.stat().st_mode & 0o777 == 0o700
    third.close()


def test_shared_memory_of_someone_else_is_refused(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / f"parking-{os.getuid()}").symlink_to(target)
    with pytest.raises(UserError, match="belongs to another user"):
        SharedMemoryFolder(tmp_path)
    with pytest.raises(UserError, match="lacks; choose disk"):
        SharedMemoryFolder(tmp_path / "missing")


def test_only_the_same_images_are_held(tmp_path, source):
    cache = make_cache(tmp_path / "cache")
    cache.fetch(str(source), Loader())
    assert cache.holds(str(source)) and not cache.holds(str(source), "apply")
    assert not cache.holds(str(source.with_name("other.png")))
    source.write_bytes(b"\x03changed")
    assert not cache.holds(str(source))


def test_a_cache_full_of_other_data_is_refused_at_the_start(tmp_path):
    records = {}
    for data in "ab":
        (tmp_path / data).mkdir()
        names = [str(tmp_path / data / f"{i}.png") for i in range(4)]
        for i, name in enumerate(names):
            Path(name).write_bytes(bytes([i, ord(data)]))
        records[data] = [{"file_name": name, "height": 24, "width": 32} for name in names]
    needed = estimate_cache_bytes([SIZE] * 4, SIZE, "raw")
    cfg = make_cfg(CACHE_DIR=str(tmp_path / "cache"), CACHE_GB=1.5 * needed / 1e9)
    cache = build_cache(cfg, records["a"])
    for record in records["a"]:
        cache.fetch(record["file_name"], Loader(), variant=name_variant(record, "auto"))
    # Nothing is lacking, however often an image is listed.
    build_cache(cfg, records["a"] * 2)
    with pytest.raises(UserError, match=r"INPUT\.CACHE_GB"):
        build_cache(cfg, records["b"])
    build_cache(cfg, records["b"][:1] * 4)


def test_a_folder_whose_name_is_no_text(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xc7\xd1")
    os.mkdir(folder)
    Path(folder, "a.png").write_bytes(b"\x01")
    make_cache(tmp_path / "cache").fetch(os.path.join(folder, "a.png"), Loader())
