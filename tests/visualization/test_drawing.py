import sys
import unicodedata

import cv2
import numpy as np
import pytest

from parking.challenge.classes import CLASS_COLORS, CLASS_NAMES, CLASS_NAMES_KO
from parking.utils.errors import UserError
from parking.visualization import drawing, fonts
from parking.visualization.colors import class_colors, text_color
from parking.visualization.contact_sheet import contact_sheet
from parking.visualization.data_charts import plot_class_counts
from parking.visualization.drawing import BoxDrawer, save_image
from parking.visualization.tag_placement import place_tags

RED = class_colors(["the first class"])[0]


def draw_boxes(image, boxes, labels):
    return BoxDrawer([str(i) for i in range(len(labels))], labels).draw(image, boxes, range(len(labels)))


def gray(height=240, width=320):
    return np.full((height, width, 3), 128, np.uint8)


def is_color(image, color):
    return (image == color).all(axis=2)


def extent(mask):
    """[x1, y1, x2, y2] of the True pixels, the last exclusive."""
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_frame_lies_on_the_edge_of_the_box():
    image = gray()
    drawn = draw_boxes(image, [[50.4, 60, 99.6, 120]], [""])
    changed = (drawn != image).any(axis=2)
    changed[:60] = False  # the tag stands above
    assert extent(changed) == [50, 60, 100, 120] and is_color(drawn, RED)[changed].all()
    # sqrt(240 * 320) / 320 = 0.87, but no line is thinner than 2.
    assert changed.sum() == 50 * 60 - 46 * 56
    assert not changed[62:118, 52:98].any()
    assert (image == 128).all()


def test_boxes_of_another_size_are_scaled():
    drawn = BoxDrawer(["car"]).draw(gray(100, 200), [[200, 100, 600, 400]], [0], size=(500, 800))
    # 200 / 800 = 1/4 of the width and 100 / 500 = 1/5 of the height.
    assert extent(is_color(drawn, RED)[20:]) == [50, 0, 150, 60]


def test_lines_and_letters_grow_with_the_image():
    areas = []
    for height, width in ((240, 320), (1080, 1920), (2160, 3840)):
        box = [[width // 4, height // 4, width // 2, height // 2]]
        frame = is_color(draw_boxes(gray(height, width), box, [""]), RED)
        areas.append(frame[height // 3].sum())
    # Two lines of max(2, round(sqrt(240 * 320) / 320)) = 2, round(1440 / 320 = 4.5) = 4 and 2880 / 320 = 9 pixels
    assert areas == [4, 8, 18]


def test_tag_stands_on_the_box_and_has_text():
    drawn = draw_boxes(gray(), [[100, 100, 200, 200]], ["adult 0.87"])
    tag = is_color(drawn, RED)[:100]
    x1, y1, _, y2 = extent(tag)
    assert (x1, y2) == (100, 100) and 10 <= y2 - y1 <= 20
    # White contrasts 4.1 : 1 with this red, black 5.1 : 1: the text is black.
    letters = (drawn[y1:100, 100:150].astype(int).sum(axis=2) < 60).sum()
    assert letters > 20


def test_tags_stay_inside_the_image():
    for box in [[0, 0, 40, 40], [280, 0, 320, 20], [300, 220, 320, 240], [0, 0, 320, 240], [5, 2, 7, 4]]:
        tags = place_tags(np.array([box]), np.array([[70, 14]]), (240, 320))
        assert (tags[:, :2] >= 0).all() and (tags[:, 2:] <= [320, 240]).all()
        np.testing.assert_array_equal(tags[:, 2:] - tags[:, :2], [[70, 14]])
    # One that is larger than the image begins at its corner.
    assert place_tags(np.array([[0, 0, 9, 9]]), np.array([[70, 14]]), (10, 10)).tolist() == [[0, 0, 70, 14]]


def test_tags_avoid_each_other():
    boxes = np.array([[100, 100, 200, 200]] * 6)
    tags = place_tags(boxes, np.full((6, 2), [60, 14]), (400, 400))
    np.testing.assert_array_equal(tags[0], [100, 86, 160, 100])  # the first has the best place: above, at the left
    canvas = np.zeros((400, 400), int)
    for x1, y1, x2, y2 in tags:
        canvas[y1:y2, x1:x2] += 1
        assert x1 >= 100 - 60 and x2 <= 200 + 60 and y1 >= 100 - 14 and y2 <= 200 + 14  # still touches its box
    assert canvas.max() == 1


def test_what_lies_outside_is_not_drawn():
    image = gray()
    outside = [[-50, 0, -10, 50], [330, 0, 400, 50], [0, 250, 50, 300], [60, 60, 50, 70], [0, 0, np.nan, 9]]
    for boxes in (outside, []):
        drawn = draw_boxes(image, boxes, ["name"] * len(boxes))
        np.testing.assert_array_equal(drawn, image)
        drawn[:] = 0
    assert (image == 128).all()
    partly = draw_boxes(image, [[-100, 100, 50, 1000]], [""])
    assert extent(is_color(partly, RED)[100:]) == [0, 0, 50, 140]


def test_small_box_is_not_filled():
    # 4K lines are 9 wide; a quarter of 20 is 5.
    drawn = draw_boxes(gray(2160, 3840), [[100, 100, 120, 120]], [""])
    assert not is_color(drawn, RED)[105:115, 105:115].any() and is_color(drawn, RED)[100:105, 100:120].all()


def test_wrong_arguments():
    with pytest.raises(ValueError, match="uint8"):
        draw_boxes(gray().astype(np.float32), [], [])
    with pytest.raises(ValueError, match="2 class names and 1 "):
        BoxDrawer(["car", "cart"], ["one"])


def test_best_score_is_drawn_on_top(monkeypatch):
    calls = []
    monkeypatch.setattr(
        drawing, "_draw_boxes", lambda image, boxes, labels, colors, font_path: calls.append((boxes, labels, colors))
    )
    drawer = BoxDrawer(["car", "cart"])
    drawer.draw(gray(), [[0, 0, 1, 1], [0, 0, 2, 2]], [0, 1], [0.124, 0.876])
    drawer.draw(gray(), [[0, 0, 1, 1]], [1])
    boxes, labels, colors = calls[0]
    assert boxes[:, 2].tolist() == [2, 1] and labels == ["cart 0.88", "car 0.12"] and colors == drawer.colors[::-1]
    assert calls[1][1] == ["cart"]


def test_colors():
    assert class_colors(CLASS_NAMES) == list(CLASS_COLORS)
    many = class_colors([str(i) for i in range(80)])
    assert many[:3] == class_colors(["a", "b", "c"]) and len(set(many)) == 80
    # Hue 0 with saturation 0.85 and value 0.95: 255 * 0.95 = 242, 255 * 0.95 * 0.15 = 36
    assert many[0] == (242, 36, 36)
    assert text_color((255, 255, 0)) == (0, 0, 0) and text_color((0, 0, 160)) == (255, 255, 255)


@pytest.fixture
def only_default_font(monkeypatch):
    monkeypatch.setattr(fonts, "FONT_PACKAGES", ())
    monkeypatch.setattr(fonts, "_system_fonts", lambda: [])


def test_missing_korean_font_is_explained(only_default_font, caplog):
    with pytest.raises(UserError, match=r"'세'.*koreanize-matplotlib"):
        fonts.find_font("세단")
    assert fonts.find_font("sedan 0.5") == fonts.default_font()
    # Names and titles that cannot be drawn stop nothing.
    BoxDrawer(CLASS_NAMES, CLASS_NAMES_KO).draw(gray(), [[100, 100, 200, 200]], [3])
    assert "'세'" in caplog.text and "codes" in caplog.text
    assert contact_sheet([gray()], ["경기도.png"]).shape[2] == 3


@pytest.mark.parametrize(
    ("names", "drawn"),
    [
        (["car", "\U0001f697"], ["car", r"\U0001f697"]),
        (["\U0001f468\u200d\U0001f469 a", "é"], [r"\U0001f468\u200d\U0001f469 a", "é"]),
        (["", " "], ["class 0", "class 1"]),
    ],
)
def test_names_that_no_font_has_are_drawn_as_codes(names, drawn, only_default_font, monkeypatch):
    calls = []
    monkeypatch.setattr(drawing, "_draw_boxes", lambda image, boxes, labels, colors, font_path: calls.append(labels))
    BoxDrawer(names).draw(gray(), [[0, 0, 9, 9]] * 2, [0, 1])
    assert calls == [drawn]
    plot_class_counts(names, {"all": [1, 2]})


def test_font_is_found_in_a_package_by_its_glyphs(monkeypatch, tmp_path):
    package = tmp_path / "some_fonts" / "files"
    package.mkdir(parents=True)
    (package / "NanumGothicBroken.ttf").write_bytes(b"no font")
    (package / "zz.ttf").write_bytes(fonts.default_font().read_bytes())
    (tmp_path / "some_fonts" / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(fonts, "FONT_PACKAGES", ("not_installed_here", "some_fonts"))
    monkeypatch.setattr(fonts, "default_font", lambda: tmp_path / "missing.ttf")
    assert fonts.find_font("sedan") == package / "zz.ttf"


def test_saved_image_reads_back(tmp_path):
    image = gray()
    image[:, :100] = RED
    path = tmp_path / "그림" / unicodedata.normalize("NFD", "결과.png")
    save_image(image, path)
    back = cv2.cvtColor(cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(back, image)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"a\.png"):
        save_image(image, tmp_path / "file" / "a.png")


def test_contact_sheet_layout():
    images = [np.full((50, 100, 3), v, np.uint8) for v in (10, 20, 30)]
    sheet = contact_sheet(images, ["", "", ""], columns=2, tile_width=100)
    # Gaps of max(4, 100 // 60) = 4 around tiles of 100 x 50: 4 + 2 * 104 wide, 4 + 2 * 54 and the titles high
    title = (sheet.shape[0] - 112) // 2
    assert sheet.shape == (112 + 2 * title, 212, 3)
    first, second = sheet[4 + title :][:50], sheet[58 + 2 * title :][:50]
    assert (first[:, 4:104] == 10).all() and (first[:, 108:208] == 20).all()
    assert (second[:, 4:104] == 30).all() and (second[:, 108:] == 255).all()


def test_contact_sheet_scales_and_titles():
    sheet = contact_sheet([gray(200, 50), gray(30, 60)], ["a" * 500, "b"], columns=5, tile_width=60)
    pictures = is_color(sheet, (128, 128, 128))
    x1, y1, x2, y2 = extent(pictures)
    # 50 x 200 becomes 15 x 60 in a tile of 60; the next tile starts a gap of 4 later.
    assert (x1, x2 - x1, y2 - y1) == (4, 60 + 4 + 60, 60)
    assert pictures.sum() == 15 * 60 + 60 * 30
    assert (sheet[:y1] < 100).any()  # the title


def test_the_tags_of_very_many_boxes_take_time_in_proportion(monkeypatch):
    compared = []
    monkeypatch.setattr(
        "parking.visualization.tag_placement._intersection",
        lambda a, b: compared.append(len(b)) or np.zeros((len(a), len(b))),
    )
    tags = place_tags(np.tile([[50, 60, 100, 120]], (3000, 1)), np.tile([[20, 10]], (3000, 1)), (400, 400))
    assert compared == list(range(400)) and tags[-1].tolist() == [50, 50, 70, 60]
