"""Tests of the overview and the examples."""

import numpy as np

from parking.challenge.conditions import get_sequence_key
from parking.data.checking.examples import choose_examples, cut_box, cut_examples
from parking.data.checking.overview import Overview, Side, keep_frequent


def test_a_crop_shows_the_box_in_its_middle():
    image = np.zeros((100, 100, 3), np.uint8)
    image[40:60, 30:70] = (200, 10, 20)
    # 1.25 x 40 = 50 pixels become 100: the box 80 x 40, in the middle.
    picture = cut_box(image, (30, 40, 40, 20), 100)
    assert picture.shape == (100, 100, 3)
    assert (picture[33:67, 13:87] == (200, 10, 20)).all()
    assert (picture[:28] == 0).all()
    assert (picture[30, 10:90] == 255).all() and (picture[69, 10:90] == 255).all()


def test_a_crop_beyond_the_image_is_gray_and_a_large_one_is_averaged():
    checkers = np.indices((400, 400)).sum(axis=0) % 2 * 255
    image = np.repeat(checkers[:, :, None], 3, axis=2).astype(np.uint8)
    # 500 pixels become 50; the image's 400 pixels become the middle 40 of them, with gray (114) around.
    picture = cut_box(image, (0, 0, 400, 400), 50)
    assert (picture[:4] == 114).all() and (picture[:, 46:] == 114).all()
    np.testing.assert_allclose(picture[8:42, 8:42], 127.5, atol=3)


def test_examples_are_of_different_sequences_and_large_enough(maker):
    names = ["20201102_x_000001_0000001.png", "20201102_x_000001_0000002.png", "20201102_x_000002_0000001.png"]
    files = [str(maker.train / name) for name in names]
    for path in files:
        maker.picture().save(path)
    boxes = np.array([[0, 0, 30, 30], [0, 0, 31, 30], [0, 0, 20, 20], [0, 0, 5, 5], [2, 2, 20, 40.0]])
    image_files = [files[0], files[1], files[2], files[2], files[2]]
    classes = np.array([0, 0, 0, 0, 2])
    examples = choose_examples(classes, boxes, image_files, sequence_of=get_sequence_key, num_classes=3, per_class=2)
    assert [example.class_index for example in examples] == [0, 0, 2]
    assert examples[0].file_name in files[:2]
    assert examples[1].box == (0, 0, 20, 20)
    (maker.train / names[2]).write_text("no picture")
    pictures = cut_examples(examples, {}, side=32, num_workers=2)
    assert {c: [picture.shape for picture in crops] for c, crops in pictures.items()} == {0: [(32, 32, 3)]}


def test_pictures_show_the_most_frequent_of_many_classes():
    classes = np.array([0, 2, 2, 3, 3, 3])
    overview = Overview(
        class_names=["a", "b", "c", "d"],
        sides=[Side("all", ["x.png"], np.array([1, 0, 2, 3]), np.array([6]), {})],
        splits=[],
        classes=classes,
        boxes=np.arange(24.0).reshape(6, 4),
        image_files=list("uvwxyz"),
        exif_orientations={},
    )
    assert keep_frequent(overview, 4) is overview
    kept = keep_frequent(overview, 2)
    assert (kept.class_names, kept.image_files, kept.classes.tolist()) == (["c", "d"], list("vwxyz"), [0, 0, 1, 1, 1])
    assert kept.sides[0].class_counts.tolist() == [2, 3]
    assert kept.boxes[:, 0].tolist() == [4, 8, 12, 16, 20]
