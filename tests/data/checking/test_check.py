"""Check every kind of finding on data that has it."""

import json
import unicodedata
from collections import Counter

import pytest
from PIL import Image

from parking.challenge.sides import summarize
from parking.challenge.sources import find_parking_sources
from parking.data.checking.check import check_sources
from parking.data.checking.findings import KINDS
from parking.data.checking.report import encode_report, format_report
from parking.data.checking.sources import make_coco_sources
from parking.utils.errors import UserError


def check(root):
    checked = check_sources(find_parking_sources(str(root)))
    return checked, summarize(checked, split="sequence")


def count(checked):
    return Counter(finding.kind for one in checked for finding in one.findings)


@pytest.fixture
def broken(maker):
    """Return the root of data with nearly every kind of finding, and the count of each."""
    clean = maker.add("clean.png")
    maker.add("missing.png", save=False)
    maker.add("empty.png", save=False)
    maker.images[-1].pop("width")  # the look-up of the size finds it empty, too, but it must be reported once
    (maker.train / "empty.png").touch()
    maker.add("text.png", save=False)
    (maker.train / "text.png").write_text("not a picture, but long enough to be one" * 20)
    for name in ("cut.png", "cut.jpg"):
        maker.add(name)
        data = (maker.train / name).read_bytes()
        (maker.train / name).write_bytes(data[: len(data) // 2])
    maker.add("lossless.jpg")
    # The header claims lossless coding, which no decoder reads.
    data = (maker.train / "lossless.jpg").read_bytes()
    (maker.train / "lossless.jpg").write_bytes(data.replace(b"\xff\xc0", b"\xff\xc3", 1))
    maker.add("damaged.png")
    data = bytearray((maker.train / "damaged.png").read_bytes())
    data[data.index(b"IDAT") + 20] ^= 1
    (maker.train / "damaged.png").write_bytes(data)
    maker.add("size.png", width=48, height=64)
    exif = Image.Exif()
    exif[0x0112] = 6
    maker.add("turned.jpg", save=False)
    maker.picture().save(maker.train / "turned.jpg", exif=exif)
    for mode, name in (("L", "gray.png"), ("RGBA", "alpha.png"), ("P", "palette.png"), ("CMYK", "ink.jpg")):
        maker.add(name, save=False)
        maker.picture().convert(mode).save(maker.train / name)
    maker.add("deep.png", save=False)
    maker.picture().convert("L").convert("I;16").save(maker.train / "deep.png")
    maker.add("copy.png", save=False)
    Image.open(maker.train / "clean.png").save(maker.train / "copy.png", compress_level=0)
    maker.add("clean.png", save=False)
    maker.add("other.png", image_id=clean, save=False, box=None)
    maker.add("Case.png", image_id=101)
    maker.add("case.png", image_id=102)
    maker.picture().save(maker.train / "unlisted.png")
    maker.add("no_boxes.png", image_id=103, box=None)
    (maker.train / ".hidden.png").touch()
    (maker.train / "notes.txt").touch()
    i = maker.add("boxes.png", image_id=104)
    maker.annotations.append({"id": 900, "image_id": i, "bbox": [1, 2, 3, 4]})
    maker.annotate(i, [1, 2, "3", 4])
    maker.annotate(i, [21, 22, 8, 9], id=901)
    maker.annotate(i, [23, 22, 8, 9], id=901)
    maker.annotate(999, [1, 2, 3, 4])
    maker.annotate(i, [1, 2, 3, 4], category_id=0)
    maker.annotate(i, [1, 2, 3, 4], category_id=15)
    maker.annotations.append({"id": 902, "image_id": i, "category_id": 1})
    maker.annotate(i, [1, float("nan"), 3, 4])
    maker.annotate(i, [1, 2, float("inf"), 4])
    maker.annotate(i, [1, 2, 0, 4])
    maker.annotate(i, [30, 30, -5, -5])
    maker.annotate(i, [64, 2, 10, 10])
    maker.annotate(i, [60, 2, 10, 10])
    maker.annotate(i, [40, 2, 1.5, 10])
    maker.annotate(i, [0, 0, 64, 48])
    maker.annotate(i, [5, 6, 20, 15])  # like the image's first one
    maker.annotate(i, [33, 6, 20, 15], iscrowd=1)
    maker.picture().save(maker.test / "a.png")
    Image.open(maker.train / "clean.png").save(maker.test / "b.png")
    expected = {
        "json_nan": 1,
        "image_id_twice": 1,
        "file_name_twice": 1,
        "name_ambiguous": 1,
        "image_missing": 1,
        "image_unlisted": 1,
        "image_without_boxes": 1,
        "image_empty": 1,
        "image_not_image": 1,
        "image_truncated": 2,
        "image_unreadable": 1,
        "image_unsupported": 2,  # lossless.jpg; deep.png, whose values use 8 of its 16 bits
        "size_differs": 1,
        "exif_ignored": 1,
        "not_8bit_rgb": 4,
        "same_picture": 2,  # copy.png, and b.png of the test images
        "annotation_structure": 2,
        "annotation_id_twice": 1,
        "annotation_without_image": 1,
        "category_unknown": 2,
        "bbox_missing": 1,
        "bbox_not_finite": 2,
        "bbox_empty": 2,
        "bbox_outside": 1,
        "bbox_partly_outside": 1,
        "bbox_tiny": 1,
        "bbox_whole_image": 1,
        "annotation_twice": 1,
        "crowd": 1,
    }
    return maker.write(), expected


def test_each_kind_is_found_as_often_as_it_is_there(broken):
    root, expected = broken
    checked, overview = check(root)
    assert count(checked) == expected
    (same,) = [finding for finding in checked[1].findings if finding.kind == "same_picture"]
    assert (same.where, same.detail) == ("b.png", "shows the same as 'clean.png' (train)")
    report = json.loads(encode_report(checked, overview))
    assert {kind: entry["count"] for kind, entry in report["kinds"].items()} == expected
    assert len(report["findings"]) == sum(expected.values())
    assert Counter(report["severities"]) == Counter(KINDS[kind].severity for kind in Counter(expected).elements())
    text = format_report(checked, overview)
    for kind in expected:
        assert KINDS[kind].title in text
    assert "missing.png" in text


def test_processes_find_the_same(broken):
    root, expected = broken
    done = []
    checked = check_sources(
        find_parking_sources(str(root)), num_workers=2, start=lambda n: done.append(-n), progress=done.append
    )
    assert count(checked) == expected
    assert sum(done) == 0


def test_clean_data(clean_root):
    checked, overview = check(clean_root)
    assert count(checked) == {}
    assert [(side.name, len(side.file_names)) for side in overview.sides] == [("training", 4), ("validation", 2)]
    assert [side.class_counts[0] for side in overview.sides] == [4, 2]
    assert "Nothing was found." in format_report(checked, overview)
    report = json.loads(encode_report(checked, overview))
    assert report["severities"] == {"error": 0, "warning": 0, "note": 0}
    assert report["sides"][0]["images_per_condition"]["region"] == {"Gyeonggi": 4}
    assert [split["split"] for split in report["splits"]] == ["sequence", "entry", "all"]
    assert "3000" in report["splits"][1]["note"]


def test_names_in_another_unicode_form_or_case_are_no_finding(maker):
    name = "20201102_경기도_-_-_맑음_주간_실외_right_000001_0000001.png"
    maker.add(name, save=False)
    maker.picture().save(maker.train / unicodedata.normalize("NFD", name).replace(".png", ".PNG"), format="PNG")
    checked, overview = check(maker.write())
    # All images are of one sequence, so that they cannot be divided.
    assert {finding.kind for finding in checked[0].findings} == {"class_without_boxes"}
    assert [side.name for side in overview.sides] == ["all images"]
    assert "all of one sequence" in overview.splits[0].note


def test_images_are_checked_where_the_json_cannot_be_read(broken):
    root, expected = broken
    (root / "train" / "label" / "Train.json").write_text('{"images": [')
    checked, overview = check(root)
    found = count(checked)
    assert found["json_unreadable"] == 1
    for kind in ("image_truncated", "image_not_image", "image_unreadable", "image_unsupported", "not_8bit_rgb"):
        assert found[kind] == expected[kind]
    assert found["image_unlisted"] == 0
    assert found["name_ambiguous"] == 1
    assert overview.sides == []
    encode_report(checked, overview)


def make_coco(folder, names, categories=("car",)):
    annotations = [{"id": k, "image_id": k, "category_id": 1, "bbox": [1, 2, 10, 12]} for k in range(len(names))]
    content = {
        "images": [{"id": k, "file_name": name} for k, name in enumerate(names)],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(categories, start=1)],
    }
    folder.write_text(json.dumps(content))
    return str(folder)


def test_coco_files_that_share_a_folder(maker, tmp_path):
    # Sequence 1 lies on both sides, 30 frames apart; a.png is in both lists, and b.png in neither.
    names = [f"20201102_x_000001_{frame:07d}.png" for frame in (1, 2, 32)]
    for name in [*names, "20201102_x_000002_0000003.png", "a.png", "b.png"]:
        maker.picture().save(maker.train / name)
    train = make_coco(tmp_path / "train.json", [*names[:2], "a.png"])
    val = make_coco(tmp_path / "val.json", [names[2], "20201102_x_000002_0000003.png", "a.png"])
    images = str(maker.train)
    checked = check_sources(make_coco_sources([(train, images), (val, images)]))
    overview = summarize(checked, split="sequence")
    # 2 and 32 are 30 frames apart, 1 and 32 are 31.
    assert count(checked) == {"neighbours_across_split": 2, "same_picture": 1, "image_unlisted": 1}
    assert [(side.name, len(side.file_names), side.class_counts.tolist()) for side in overview.sides] == [
        ("train", 3, [3]),
        ("val", 3, [3]),
    ]
    assert overview.class_names == ["car"]


def test_categories_of_coco(maker, tmp_path):
    for name in ("a.png", "b.png"):
        maker.picture().save(maker.train / name)
    images = str(maker.train)
    first = make_coco(tmp_path / "one.json", ["a.png"])
    other = make_coco(tmp_path / "two.json", ["b.png"], categories=("bus", "car"))
    checked = check_sources(make_coco_sources([(first, images), (other, images)]))
    overview = summarize(checked, split="sequence")
    # The box of the second json has category 1, which is its bus.
    assert count(checked) == {"json_structure": 1, "class_without_boxes": 1}
    assert overview.class_names == ["car", "bus"]
    assert [side.class_counts.tolist() for side in overview.sides] == [[1, 0], [0, 1]]
    assert overview.classes.tolist() == [0, 1]

    none = make_coco(tmp_path / "none.json", ["a.png", "b.png"], categories=())
    checked = check_sources(make_coco_sources([(none, images)]))
    assert count(checked) == {"json_structure": 1}
    assert summarize(checked, split="sequence").class_names == ["1"]
    broken = tmp_path / "broken.json"
    make_coco(broken, ["a.png", "b.png"])
    content = json.loads(broken.read_text())
    content["categories"] += [{"id": 1, "name": "again"}, {"id": "2", "name": "text"}, 7]
    broken.write_text(json.dumps(content))
    assert count(check_sources(make_coco_sources([(str(broken), images)]))) == {"json_structure": 3}


def test_missing_folders_are_explained(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        find_parking_sources(str(tmp_path / "nowhere"))
    (tmp_path / "train.zip").touch()
    with pytest.raises(UserError, match=r"prepare_data\.py"):
        find_parking_sources(str(tmp_path))
    with pytest.raises(UserError, match=r"no\.json"):
        make_coco_sources([("no.json", str(tmp_path))])
