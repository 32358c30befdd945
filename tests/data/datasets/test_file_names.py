import os
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parking.data.datasets.file_names import index_folder, is_image_name, name_key
from parking.utils.errors import UserError
from parking.utils.text import printable


def nfd(text):
    return unicodedata.normalize("NFD", text)


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


@pytest.mark.parametrize(
    ("on_disk", "listed"),
    [
        ("한글.png", nfd("한글.png")),
        (nfd("한글.png"), "한글.png"),
        ("a.PNG", "a.png"),
        ("a.jpg", "A.JPG"),
        ("a b  c.png", "a b  c.png"),
        ("a.b.c.png", "a.b.c.png"),
        (nfd("주차장 1/서울 가.나/한.PNG"), "주차장 1/서울 가.나/한.png"),
        ("x/a.png", "x\\a.png"),
        ("x/a.png", "./x/a.png"),
    ],
)
def test_a_file_is_found_by_another_form_of_its_name(tmp_path, on_disk, listed):
    touch(tmp_path / on_disk)
    assert index_folder(str(tmp_path)).find(listed) == f"{tmp_path}/{on_disk}"


def test_lookups_are_by_the_full_name(tmp_path):
    touch(tmp_path / "x/a.1.png")
    touch(tmp_path / "Straße.png")
    files = index_folder(str(tmp_path))
    for name in ("a.1.png", "x/a.png", "x/a.2.png", "x/a.1.jpg", "x", "", "Strasse.png"):
        assert files.find(name) is None


def test_exact_names_win(tmp_path):
    touch(tmp_path / "a.png")
    touch(tmp_path / "A.png")
    files = index_folder(str(tmp_path))
    assert [files.find(name) for name in ("a.png", "A.png")] == [f"{tmp_path}/a.png", f"{tmp_path}/A.png"]
    assert files.ambiguous == [("A.png", "a.png")]


def test_names_do_not_lead_out_of_the_folder(tmp_path):
    touch(tmp_path / "other/a.png")
    touch(tmp_path / "images/x/b.png")
    (tmp_path / "images/linked").symlink_to(tmp_path / "other")
    absolute, climbing = str(tmp_path / "other/a.png"), "../other/a.png"
    images = str(tmp_path / "images")
    files = index_folder(images)
    for name in (absolute, climbing, "x/../../other/a.png", f"{images}/../other/a.png", "/dev/zero", "..", "../gone"):
        assert (files.find(name), files.is_outside(name)) == (None, True), name
    inside = f"{images}/x/b.png"
    for name in ("x/b.png", "x/../x/b.png", "../images/x/b.png", inside, "X/B.PNG"):
        assert (files.find(name), files.is_outside(name)) == (inside, False), name
    # A link in the folder is followed, because the user put it there.
    assert files.find("linked/a.png") == f"{images}/linked/a.png"
    assert not files.is_outside("gone.png") and files.find("gone.png") is None

    allowing = index_folder(images, allow_outside=True)
    assert (allowing.find(absolute), allowing.is_outside(absolute)) == (absolute, False)
    assert (allowing.find(climbing), allowing.is_outside(climbing)) == (None, True)
    os.mkfifo(tmp_path / "fifo.png")
    assert [allowing.find(name) for name in ("/dev/zero", str(tmp_path / "fifo.png"))] == [None, None]


def test_links_are_followed_but_not_in_circles(tmp_path):
    touch(tmp_path / "far/a.png")
    (tmp_path / "root/x").mkdir(parents=True)
    (tmp_path / "root/linked").symlink_to(tmp_path / "far")
    (tmp_path / "root/x/up").symlink_to(tmp_path / "root")
    (tmp_path / "root/dangling.png").symlink_to(tmp_path / "gone")
    assert index_folder(str(tmp_path / "root")).names == ["linked/a.png"]


def test_folders_nested_too_deep_are_a_sentence(tmp_path):
    # Thousands of folders would exceed Python's recursion limit.
    touch(tmp_path / ("d/" * 64) / "a.png")
    assert len(index_folder(str(tmp_path)).names) == 1
    touch(tmp_path / ("d/" * 65) / "a.png")
    with pytest.raises(UserError, match=r"d/d/d.*64"):
        index_folder(str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        index_folder(str(tmp_path / "nowhere"))


def test_names_that_are_not_utf8(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), "주차.png".encode("cp949")), "wb"):
        pass
    (name,) = index_folder(str(tmp_path)).names
    assert printable(name).endswith(".png") and "\\udcc1" in printable(name) and printable(name).isprintable()
    assert is_image_name(name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.png", True), ("x/b.JPeG", True), ("._a.png", False), ("x/.a.png", False), ("a.txt", False), ("png", False)],
)
def test_image_names(name, expected):
    assert is_image_name(name) is expected


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_forms_of_a_name_have_one_key(name):
    key = name_key(name)
    assert name_key(unicodedata.normalize("NFC", name)) == key
    assert name_key(nfd(name)) == key
