import json
import multiprocessing
import os
from functools import partial

import pytest
from PIL import Image

from parking.data.datasets import sizes
from parking.data.datasets.sizes import StoredSize as Size
from parking.data.datasets.sizes import read_headers, settle_images, settle_sizes
from parking.data.image_io import UnreadableImageError


@pytest.fixture
def data(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    for k in range(3):
        Image.new("L", (5 + k, 7)).save(root / f"사진 {k}.png")
    return root


def get_paths(data):
    return sorted(map(str, data.iterdir()))


@pytest.fixture
def opened(monkeypatch):
    """Return a list that gets the path of each header that is read."""
    result = []
    original = sizes.read_image_header
    monkeypatch.setattr(sizes, "read_image_header", lambda path: (result.append(path), original(path))[1])
    return result


def test_sizes_are_remembered_until_a_file_changes(data, tmp_path, opened):
    paths, cache = get_paths(data), str(tmp_path / "cache")
    assert read_headers(paths, root=str(data), cache_dir=cache) == [Size(7, 5), Size(7, 6), Size(7, 7)]
    assert sorted(opened) == paths
    opened.clear()
    assert read_headers(paths[::-1], root=str(data), cache_dir=cache) == [Size(7, 7), Size(7, 6), Size(7, 5)]
    assert opened == []
    Image.new("L", (50, 70)).save(paths[1])
    os.utime(paths[2], ns=(0, 1))
    assert read_headers(paths, root=str(data), cache_dir=cache) == [Size(7, 5), Size(70, 50), Size(7, 7)]
    assert sorted(opened) == paths[1:]


def test_errors_are_given_back_and_not_remembered(data, tmp_path):
    paths = [*get_paths(data)[:1], str(data / "text.png"), str(data / "gone.png")]
    (data / "text.png").write_text("no image")
    size, text, gone = read_headers(paths, root=str(data), cache_dir=str(tmp_path / "cache"))
    assert size == Size(7, 5)
    assert isinstance(text, UnreadableImageError) and isinstance(gone, UnreadableImageError)
    (cache_file,) = (tmp_path / "cache").rglob("*.json")
    assert list(json.loads(cache_file.read_text())) == paths[:1]


def test_damaged_caches_and_impossible_entries_are_ignored(data, tmp_path):
    paths, cache = get_paths(data), str(tmp_path / "cache")
    expected = read_headers(paths, root=str(data), cache_dir=cache)
    (cache_file,) = (tmp_path / "cache").rglob("*.json")
    known = json.loads(cache_file.read_text())
    known[paths[0]][2:], known[paths[1]][2:], known[paths[2]] = [0, 5], ["7", 6], None
    for content in ("", "[]", '{"a": 1}', "{", "\\xff", json.dumps(known)):
        cache_file.write_text(content)
        assert read_headers(paths, root=str(data), cache_dir=cache) == expected
        assert len(json.loads(cache_file.read_text())) == 3


def test_a_cache_that_cannot_be_written_is_done_without(data, tmp_path, caplog):
    (tmp_path / "file").touch()
    assert read_headers(get_paths(data), root=str(data), cache_dir=str(tmp_path / "file/cache"))[0] == Size(7, 5)
    assert "file/cache" in caplog.text


@pytest.mark.parametrize("below", ["", "cache"])
def test_nothing_is_written_below_the_data(data, below, caplog):
    before = get_paths(data)
    assert read_headers(before, root=str(data), cache_dir=str(data / below))[0] == Size(7, 5)
    assert get_paths(data) == before
    assert str(data / below) in caplog.text


def test_several_processes(data, tmp_path):
    paths, cache = get_paths(data), str(tmp_path / "cache")
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(partial(read_headers, root=str(data), cache_dir=cache), [paths[k:] for k in (0, 1, 2, 0)])
    assert read_headers(paths, root=str(data), cache_dir=cache) == [Size(7, 5), Size(7, 6), Size(7, 7)]
    assert len(list((tmp_path / "cache/sizes").iterdir())) == 1


STORED, UPRIGHT = (30, 40), (40, 30)


def settle(*stated, policy="auto", orientation=6, stored=STORED):
    """Settle pictures that EXIF turns, by the sizes that a json states; return orientations, sizes and findings."""
    records = [{"file_name": f"{i}.jpg"} for i in range(len(stated))]
    for record, size in zip(records, stated, strict=True):
        if size:
            record["height"], record["width"] = size
    findings = settle_sizes(records, [Size(*stored, orientation)] * len(records), policy)
    return (
        [record["exif_orientation"] for record in records],
        [(record["height"], record["width"]) for record in records],
        [finding.kind for finding in findings],
    )


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_the_stated_size_decides(orientation):
    orientations, sizes_found, kinds = settle(STORED, UPRIGHT, None, orientation=orientation)
    assert orientations == ["ignore", "apply", "apply"]
    assert sizes_found == [STORED, UPRIGHT, UPRIGHT]
    assert kinds == ["exif_ignored", "exif_applied", "exif_applied"]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_sizes_that_fit_either_way_are_named(orientation):
    orientations, _, kinds = settle(STORED, None, orientation=orientation)
    assert orientations == ["ignore", "apply"] and kinds == ["exif_ambiguous", "exif_applied"]


def test_what_the_rest_of_the_json_says():
    sound = [{"file_name": f"{i}.jpg", "height": 40, "width": width} for i, width in enumerate((30, 40))]
    headers = [Size(30, 40, 6), Size(40, 40, 8)]
    (finding,) = (f for f in settle_sizes(sound, headers, "auto") if f.kind == "exif_ambiguous")
    assert [record["exif_orientation"] for record in sound] == ["apply", "apply"]
    assert finding.where == "1.jpg" and "upright" in finding.detail
    mixed = [
        {"file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in enumerate([(40, 30), (30, 40), (9, 9)])
    ]
    settle_sizes(mixed, [Size(30, 40, 6), Size(30, 40, 6), Size(9, 9, 3)], "auto")
    assert [record["exif_orientation"] for record in mixed] == ["apply", "ignore", "ignore"]


@pytest.mark.parametrize(("policy", "size"), [("apply", UPRIGHT), ("ignore", STORED)])
def test_a_policy_decides_alone(policy, size):
    orientations, sizes_found, _ = settle(None, STORED, policy=policy)
    assert orientations == [policy, policy] and sizes_found == [size, STORED]


def test_images_of_an_inference(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    images = []
    for i, name in enumerate(("plain", "turned", "listed", "annotated", "other")):
        path = tmp_path / f"{name}.jpg"
        Image.new("RGB", (40, 30)).save(path, exif=Image.Exif() if name == "plain" else exif)
        images.append({"file_name": str(path), "relative_path": path.name, "image_id": i})
    images[2] |= {"height": 30, "width": 40}
    images.append({"file_name": str(tmp_path / "gone.jpg"), "relative_path": "gone.jpg", "image_id": 9})
    # The annotations of the images 0 and 4 state a size that fits neither way.
    additions, findings = settle_images(images, "auto", {0: (15, 20), 3: (30, 40), 4: (15, 20)})
    stored, upright = {"height": 30, "width": 40}, {"height": 40, "width": 30}
    assert additions == [
        stored,
        upright | {"exif_orientation": "apply"},
        stored | {"exif_orientation": "ignore"},
        stored | {"exif_orientation": "ignore"},
        upright | {"exif_orientation": "apply"},
        {},
    ]
    named = {(finding.kind, finding.where) for finding in findings}
    assert named == {
        ("size_differs", "plain.jpg"),
        ("size_differs", "other.jpg"),
        ("exif_applied", "turned.jpg"),
        ("exif_applied", "other.jpg"),
        ("exif_ignored", "listed.jpg"),
        ("exif_ignored", "annotated.jpg"),
    }
