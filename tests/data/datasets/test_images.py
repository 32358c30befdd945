import json
import re
import unicodedata

import pytest

from parking.data.datasets.images import IMAGE_INFO_NAME, list_images
from parking.utils.errors import UserError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write_info(path, names_by_id, **extra):
    images = [{"id": i, "file_name": name, **extra} for i, name in names_by_id.items()]
    path.write_text(json.dumps({"images": images}), encoding="utf-8")


def get_names(records):
    return [(r["relative_path"], r["image_id"]) for r in records]


def test_folder_is_searched_deep_in_sorted_order(tmp_path):
    touch(tmp_path / "b.PNG", tmp_path / "a/z.jpg", tmp_path / "a/y.tiff", tmp_path / "주차장 1.한.jpeg")
    touch(tmp_path / "a/notes.txt", tmp_path / "a/._y.png", tmp_path / "labels.json")
    records, has_ids, note, passed_over = list_images(str(tmp_path))
    assert get_names(records) == [("a/y.tiff", 1), ("a/z.jpg", 2), ("b.PNG", 3), ("주차장 1.한.jpeg", 4)]
    assert records[0]["file_name"] == str(tmp_path / "a/y.tiff")
    assert set(records[0]) == {"file_name", "relative_path", "image_id"}
    assert not has_ids and not passed_over
    assert IMAGE_INFO_NAME in note


def test_file_and_glob(tmp_path):
    touch(tmp_path / "x/a.png", tmp_path / "y/b.png", tmp_path / "y/deep/c.png", tmp_path / "y/d.jpg")
    assert get_names(list_images(str(tmp_path / "y/b.png")).images) == [("b.png", 1)]
    assert get_names(list_images(str(tmp_path / "*/*.png")).images) == [("x/a.png", 1), ("y/b.png", 2)]
    assert len(list_images(str(tmp_path / "**/*.png")).images) == 3


def test_relative_input(tmp_path, monkeypatch):
    touch(tmp_path / "test/images/a.png")
    write_info(tmp_path / IMAGE_INFO_NAME, {7: "a.png"})
    monkeypatch.chdir(tmp_path / "test/images")
    for input in (".", "*.png", "a.png"):
        assert get_names(list_images(input).images) == [("a.png", 7)]


def test_names_with_brackets_are_not_patterns(tmp_path):
    touch(tmp_path / "set [1]/a [2].png")
    assert get_names(list_images(str(tmp_path / "set [1]")).images) == [("a [2].png", 1)]
    assert get_names(list_images(str(tmp_path / "set [1]/a [2].png")).images) == [("a [2].png", 1)]


@pytest.mark.parametrize("folder", [".", "test", "test/images"])
def test_ids_come_from_a_list_beside_or_above(tmp_path, folder):
    touch(tmp_path / "test/images/a.b.png", tmp_path / "test/images/a.c.png")
    write_info(tmp_path / folder / IMAGE_INFO_NAME, {9: "a.b.png", 4: "a.c.png"}, height=3, width=4)
    records, has_ids, note, _ = list_images(str(tmp_path / "test"))
    assert has_ids
    assert note == ""
    assert get_names(records) == [("a.b.png", 9), ("a.c.png", 4)]
    assert (records[0]["height"], records[0]["width"]) == (3, 4)


def test_an_explicit_list_wins(tmp_path):
    touch(tmp_path / "images/a.png")
    write_info(tmp_path / IMAGE_INFO_NAME, {1: "a.png"})
    write_info(tmp_path / "mine.json", {"x-1": "a.png"})
    assert get_names(list_images(str(tmp_path), str(tmp_path / "mine.json")).images) == [("a.png", "x-1")]


def test_a_list_of_other_images_is_ignored_unless_it_is_explicit(tmp_path):
    touch(tmp_path / "train/images/a.png")
    write_info(tmp_path / IMAGE_INFO_NAME, {5: "b.png"})
    records, has_ids, note, passed_over = list_images(str(tmp_path / "train"))
    assert get_names(records) == [("a.png", 1)]
    assert not has_ids and not passed_over
    assert str(tmp_path / IMAGE_INFO_NAME) in note
    with pytest.raises(UserError, match=rf"{IMAGE_INFO_NAME}.*a\.png"):
        list_images(str(tmp_path / "train"), str(tmp_path / IMAGE_INFO_NAME))


def test_a_folder_must_hold_the_list_and_nothing_else(tmp_path):
    touch(*(tmp_path / f"images/{name}.png" for name in "abcdef"))
    write_info(tmp_path / IMAGE_INFO_NAME, {1: "a.png"})
    with pytest.raises(UserError, match=r"b\.png, c\.png, d\.png and 2 more"):
        list_images(str(tmp_path))
    write_info(tmp_path / IMAGE_INFO_NAME, {i: f"{name}.png" for i, name in enumerate("abcdefg")})
    with pytest.raises(UserError, match=r"folder.*g\.png"):
        list_images(str(tmp_path))


def test_file_and_glob_may_be_a_part_of_the_list(tmp_path):
    touch(*(tmp_path / f"images/{name}.png" for name in "abc"))
    write_info(tmp_path / IMAGE_INFO_NAME, {i: f"{name}.png" for i, name in enumerate("abcd", start=1)})
    assert get_names(list_images(str(tmp_path / "images/c.png")).images) == [("c.png", 3)]
    assert get_names(list_images(str(tmp_path / "images/[bc].png")).images) == [("b.png", 2), ("c.png", 3)]


def test_two_files_of_one_listed_name_are_refused(tmp_path):
    touch(tmp_path / "images/x/a.png", tmp_path / "images/y/a.png")
    write_info(tmp_path / IMAGE_INFO_NAME, {1: "a.png"})
    with pytest.raises(UserError, match=rf"'x/a\.png' and 'y/a\.png'.*{IMAGE_INFO_NAME}"):
        list_images(str(tmp_path))


@pytest.mark.parametrize(
    ("names_by_id", "message"), [({}, ""), ({1: ""}, "''"), ({1: "a.png", 2: "a.png"}, r"'a\.png'.* twice")]
)
def test_a_bad_list_is_named(tmp_path, names_by_id, message):
    touch(tmp_path / "a.png")
    write_info(tmp_path / IMAGE_INFO_NAME, names_by_id)
    with pytest.raises(UserError, match=f"{IMAGE_INFO_NAME}.*{message}"):
        list_images(str(tmp_path))


def test_missing_and_empty_inputs_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    touch(tmp_path / "a.png")
    for input in ("nowhere", "empty", "*.jpg"):
        with pytest.raises(UserError, match=re.escape(str(tmp_path / input))):
            list_images(str(tmp_path / input))
    with pytest.raises(UserError, match=r"gone\.json"):
        list_images(str(tmp_path / "a.png"), str(tmp_path / "gone.json"))


def test_a_glob_does_not_climb_out_of_its_folder(tmp_path):
    touch(tmp_path / "a/x.png", tmp_path / "b/y.png")
    pattern = str(tmp_path / "a" / "*" / ".." / "..")
    with pytest.raises(UserError, match=r"b/y\.png.*'\.\.'"):
        list_images(f"{pattern}/b/y.png")
    assert get_names(list_images(str(tmp_path / "a" / ".." / "b" / "*.png")).images) == [("y.png", 1)]


def test_lists_and_files_in_other_forms_and_cases_match(tmp_path):
    name = "주차장 1.한.png"
    decomposed = unicodedata.normalize("NFD", name).replace("png", "PNG")
    touch(tmp_path / "사진 가.나/images" / decomposed, tmp_path / "사진 가.나/images/b.jpg")
    write_info(tmp_path / "사진 가.나" / IMAGE_INFO_NAME, {5: name, 6: "B.JPG"})
    records = list_images(str(tmp_path / "사진 가.나")).images
    assert get_names(records) == [("b.jpg", 6), (decomposed, 5)]
    assert records[1]["file_name"] == str(tmp_path / "사진 가.나/images" / decomposed)


def test_files_or_entries_that_differ_only_in_form_are_refused(tmp_path):
    touch(tmp_path / "files/a.png", tmp_path / "files/A.png")
    with pytest.raises(UserError, match=r"'A\.png' and 'a\.png'"):
        list_images(str(tmp_path / "files"))
    composed, decomposed = (unicodedata.normalize(form, "한.png") for form in ("NFC", "NFD"))
    touch(tmp_path / "images" / composed)
    write_info(tmp_path / IMAGE_INFO_NAME, {1: composed, 2: decomposed})
    with pytest.raises(UserError, match=f"'{decomposed}' and '{composed}'"):
        list_images(str(tmp_path))
