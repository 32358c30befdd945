import os

import pytest

from parking.data.checking.check import check_sources
from parking.data.checking.sources import make_coco_sources
from parking.data.datasets.images import list_images
from parking.data.datasets.listing import list_files
from parking.inference.sources.video import open_source
from parking.utils.errors import UserError
from parking.utils.marks import OutputFolder


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def write_own(folder, *names):
    for name in names:
        with OutputFolder(folder).open(name) as file:
            file.write(b"drawn")


def test_what_is_passed_over_is_counted_by_reason(tmp_path):
    touch(*(tmp_path / "images" / name for name in ("a.jpg", "b.heic", "c/d.HEIC", "e.dng", "f.mp4", "g.mkv", "h.txt")))
    touch(tmp_path / "preview.png", tmp_path / "more/images/x.jpg", tmp_path / "Train.json", tmp_path / ".thumb.png")
    (tmp_path / "images" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "images" / "pipe.jpg")
    os.mkfifo(tmp_path / "images" / "pipe.log")
    write_own(tmp_path / "images" / "out", "visualizations/a.jpg.png", "visualizations/overview.png", "drive.mp4")
    images = list_images(str(tmp_path))
    assert [image["relative_path"] for image in images.images] == ["a.jpg"]
    for part in ("3 results", "2 videos", "1 link", "1 pipe", "2 pictures beside", "3 pictures of", "1 .dng, 2 .heic"):
        assert part in images.passed_over, part
    assert "\n" not in images.passed_over
    images = list_images(str(tmp_path / "images" / "*.*"))
    assert len(images.images) == 1
    for part in ("2 videos", "1 link", "1 pipe", "1 .dng, 1 .heic"):
        assert part in images.passed_over, part


def test_nothing_is_told_where_there_is_nothing(tmp_path):
    touch(tmp_path / "images/a.jpg", tmp_path / "images/readme.txt", tmp_path / "Train.json")
    assert list_images(str(tmp_path)).passed_over == ""


def test_a_folder_without_images_says_what_it_has(tmp_path):
    touch(tmp_path / "a.heic", tmp_path / "b.HEIF")
    with pytest.raises(UserError, match=r"2 pictures .*1 \.heic, 1 \.heif"):
        list_images(str(tmp_path))


def test_what_this_product_wrote_is_no_input(tmp_path):
    touch(tmp_path / "a.png", tmp_path / "out" / "mine.png")
    write_own(tmp_path / "out", "0.png", "1.png")
    assert list_files(str(tmp_path), ["a.png", "out/0.png", "out/1.png"]).names == ["a.png"]
    # A file of ours that was moved is an image, and so is what somebody put in its place, also behind a link.
    (tmp_path / "link.png").symlink_to(tmp_path / "out" / "0.png")
    (tmp_path / "out" / "0.png").rename(tmp_path / "out" / "moved.png")
    touch(tmp_path / "out" / "0.png")
    names = [image["relative_path"] for image in list_images(str(tmp_path)).images]
    assert names == ["a.png", "link.png", "out/0.png", "out/mine.png", "out/moved.png"]


def test_every_list_of_pictures_leaves_them_out(tmp_path):
    write_own(tmp_path, "drawn.png")
    for read in (open_source, list_images):
        with pytest.raises(UserError, match="1 result"):
            read(str(tmp_path))
    json = tmp_path / "t.json"
    json.write_text('{"images": [], "annotations": [], "categories": []}')
    checked = check_sources(make_coco_sources([(str(json), str(tmp_path))]), num_workers=1)
    assert not checked[0].facts


def test_a_single_input_that_is_not_read_says_what_it_is(tmp_path):
    touch(tmp_path / "a.heic", tmp_path / "a.txt")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.jpg")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name, match in {
        "a.heic": "not read",
        "a.txt": "not an image",
        "gone.png": "leads nowhere",
        "pipe.jpg": "not a regular file",
        "zero.jpg": "not a regular file",
        "none.jpg": "does not exist",
    }.items():
        with pytest.raises(UserError, match=rf"{name}.*{match}"):
            list_images(str(tmp_path / name))
    with pytest.raises(UserError, match=r"pipe\.mp4.*not a regular file"):
        open_source(str(tmp_path / "pipe.mp4"))
