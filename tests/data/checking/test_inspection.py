import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parking.data.checking.findings import KINDS, STOP
from parking.data.checking.inspection import inspect_content
from parking.data.datasets.file_names import FileIndex
from parking.data.decoding.headers import Header
from parking.data.image_io import UnreadableImageError

CATEGORIES = {1: "car", 2: "van"}
# Most of the small sets here have findings of these kinds, which have tests of their own.
ABOUT_CLASSES = ("class_without_boxes", "nothing_to_learn", "mostly_crowds")
BOX = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}
INF = float("inf")


def make_image(image_id=1, name="a.png", **size):
    return {"id": image_id, "file_name": name, **(size or {"width": 100, "height": 80})}


def read_nothing(paths):
    return [UnreadableImageError("no file")] * len(paths)


def inspect(images, annotations, *, files=("a.png",), policy="repair", read_headers=read_nothing):
    content = {"images": images, "annotations": annotations}
    found = inspect_content(content, CATEGORIES, FileIndex("root", files), read_headers=read_headers, policy=policy)
    return found._replace(findings=[finding for finding in found.findings if finding.kind not in ABOUT_CLASSES])


def get_kinds(inspection):
    return [finding.kind for finding in inspection.findings]


def test_a_sound_set_has_no_findings():
    inspection = inspect(
        [make_image(), make_image("x", "b.png", width=50, height=60)],
        [{**BOX, "id": 4, "image_id": "x", "iscrowd": 0, "area": 7}, BOX, {**BOX, "id": 6, "category_id": 2}],
        files=["b.png", "a.png"],
    )
    assert inspection.findings == []
    columns = inspection.columns
    assert (columns.names, columns.image_ids) == (["a.png", "b.png"], [1, "x"])
    assert columns.file_names == ["root/a.png", "root/b.png"]
    assert (columns.heights, columns.widths) == ([80, 60], [100, 50])
    assert columns.starts.tolist() == [0, 2, 3]
    assert columns.classes.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(columns.areas, [np.nan, np.nan, 7])
    np.testing.assert_array_equal(columns.boxes, [[10, 20, 30, 40]] * 3)
    assert columns.class_counts(3).tolist() == [[1, 1, 0], [1, 0, 0]]
    assert columns.image_rows().tolist() == [0, 0, 1]
    selected = columns.select([1])
    assert (selected.image_ids, selected.starts.tolist(), selected.areas.tolist()) == (["x"], [0, 1], [7])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"image_id": 9}, "annotation_without_image"),
        ({"image_id": [1]}, "annotation_without_image"),
        ({"category_id": 3}, "category_unknown"),
        ({"category_id": None}, "category_unknown"),
        ({"bbox": None}, "bbox_missing"),
        ({"bbox": [1, 2, 3]}, "annotation_structure"),
        ({"bbox": ["1", "2", "3", "4"]}, "annotation_structure"),
        ({"bbox": [True, 2, 3, 4]}, "annotation_structure"),
        ({"bbox": {"x": 1}}, "annotation_structure"),
        ({"iscrowd": 2}, "annotation_structure"),
        ({"iscrowd": []}, "annotation_structure"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "bbox_not_finite"),
        ({"bbox": [1, 2, INF, 4]}, "bbox_not_finite"),
        ({"bbox": [1, 2, 10**400, 4]}, "bbox_not_finite"),
        ({"bbox": [float("nan"), 2, 10**400, 4]}, "bbox_not_finite"),
        ({"bbox": [1, 2, 0, 4]}, "bbox_empty"),
        ({"bbox": [1, 2, 3, -4]}, "bbox_empty"),
        ({"bbox": [100, 2, 3, 4]}, "bbox_outside"),
        ({"bbox": [1, -9, 3, 9]}, "bbox_outside"),
        ({"bbox": [99, 2, 3, 4]}, "bbox_partly_outside"),
        ({"bbox": [1, 2, 1.5, 40]}, "bbox_tiny"),
        ({"bbox": [1, 1, 98, 78]}, "bbox_whole_image"),
        ({"iscrowd": 1}, "crowd"),
    ],
)
def test_one_wrong_annotation_among_others(changes, kind):
    others = [{**BOX, "id": i, "bbox": [i, i, 10, 10]} for i in (1, 2)]
    for policy in ("strict", "repair"):
        inspection = inspect([make_image()], [others[0], {**BOX, **changes}, others[1]], policy=policy)
        assert kind in get_kinds(inspection)
        assert {finding.where for finding in inspection.findings} == {"annotation 5"}
        kept = KINDS[kind].action(policy) in ("keep", "mend")
        assert len(inspection.columns.boxes) == 2 + kept
    assert get_kinds(inspection)[0] == kind or kind == "bbox_partly_outside"


@pytest.mark.parametrize(("missing", "kind"), [("bbox", "bbox_missing"), ("image_id", "annotation_structure")])
def test_a_missing_key(missing, kind):
    annotation = {key: value for key, value in BOX.items() if key not in (missing, "id")}
    inspection = inspect([make_image()], [BOX, annotation, 7])
    assert [(f.kind, f.where) for f in inspection.findings] == [
        (kind, "annotations[1]"),
        ("annotation_structure", "annotations[2]"),
    ]


def test_boxes_are_clipped_to_the_image():
    boxes = [[-5, -6, 20, 30], [90, 70, 20, 30], [-1, -1, 102, 20], [50, 40, 50.0005, 40]]
    annotations = [{**BOX, "id": i, "bbox": box} for i, box in enumerate(boxes)]
    inspection = inspect([make_image()], annotations)
    assert get_kinds(inspection) == ["bbox_partly_outside"] * 3
    expected = [[0, 0, 15, 24], [90, 70, 10, 10], [0, 0, 100, 19], [50, 40, 50.0005, 40]]
    np.testing.assert_allclose(inspection.columns.boxes, expected, rtol=0, atol=1e-12)


def test_repeated_annotations():
    annotations = [
        BOX,
        {**BOX, "id": 6},
        {**BOX, "id": 7, "category_id": 2},
        {**BOX, "id": 8, "bbox": [10, 20, 30, 41]},
    ]
    for policy, number in (("strict", 4), ("repair", 3)):
        inspection = inspect([make_image()], annotations, policy=policy)
        assert [(f.kind, f.where) for f in inspection.findings] == [("annotation_twice", "annotation 6")]
        assert len(inspection.columns.boxes) == number


# The large ids all have the same hash, so that a set of them would compare each with each.
@pytest.mark.parametrize("ids", [[5, 5], [*(k * (2**61 - 1) for k in range(8, 12)), 8 * (2**61 - 1)]])
def test_repeated_annotation_ids(ids):
    inspection = inspect([make_image()], [{**BOX, "id": i, "bbox": [x, 2, 30, 40]} for x, i in enumerate(ids)])
    assert get_kinds(inspection) == ["annotation_id_twice"]
    assert f"annotations[{len(ids) - 1}]" in inspection.findings[0].detail


def test_images_and_files():
    images = [make_image(), make_image(2), make_image(3, "gone.png"), make_image(4, "b.png")]
    annotations = [BOX, {**BOX, "image_id": 2}, {**BOX, "image_id": 3, "id": 6}]
    inspection = inspect(images, annotations, files=["a.png", "b.png", "c.png", "notes.txt", "._a.png"])
    assert {(f.kind, f.where) for f in inspection.findings} == {
        ("annotation_id_twice", "annotation 5"),
        ("file_name_twice", "a.png"),
        ("image_missing", "gone.png"),
        ("image_unlisted", "c.png"),
        ("image_without_boxes", "b.png"),
    }
    assert (inspection.columns.image_ids, inspection.columns.listed_ids) == ([1, 4], [1, 2, 3, 4])
    assert inspection.num_lost_boxes == 2


def test_names_that_differ_only_in_form():
    composed, decomposed = (unicodedata.normalize(form, "한.png") for form in ("NFC", "NFD"))
    for listed, files in (
        (["a.png", composed, decomposed], ["a.png", composed]),
        (["a.png", composed], ["a.png", composed, decomposed]),
        (["a.png", "A.png"], ["a.png", "A.png"]),
    ):
        inspection = inspect([make_image(i, name) for i, name in enumerate(listed)], [], files=files)
        (finding,) = [f for f in inspection.findings if f.kind == "name_ambiguous"]
        assert {finding.where, finding.detail.split("'")[1]} == set(listed[-2:]) if len(listed) > 2 else set(files[-2:])


def test_headers_are_asked_for_at_once():
    asked = []

    def read_headers(paths):
        asked.append(list(paths))
        return [
            Header("PNG", 80, 100, "RGB"),
            Header("PNG", 7, 5, "RGB"),
            UnreadableImageError("The image 'root/c.png' is empty."),
        ]

    images = [make_image(1, "a.png"), make_image(2, "b.png", width=3), make_image(3, "c.png", width=None, height=4)]
    inspection = inspect(images, [], files=["a.png", "b.png", "c.png"], read_headers=read_headers)
    assert asked == [["root/a.png", "root/b.png", "root/c.png"]]
    assert (inspection.columns.heights, inspection.columns.widths) == ([80, 7], [100, 5])
    assert get_kinds(inspection)[0] == "image_unreadable"


def test_a_json_without_lists():
    for content in (
        {},
        {"images": [], "annotations": []},
        {"images": [make_image()]},
        {"images": 3, "annotations": {}},
    ):
        inspection = inspect_content(content, CATEGORIES, FileIndex("root", ["a.png"]), read_headers=read_nothing)
        assert "json_structure" in get_kinds(inspection)
    assert KINDS["json_structure"].action("repair") == STOP


def draw_boxes(generator, number, size=(1920, 1080), largest=(0.4, 0.4)):
    """Draw (number, 4) boxes inside an image of ``size``."""
    sides = generator.uniform(0.01, largest, (number, 2)) * size
    corners = generator.uniform(0, 1, (number, 2)) * (size - sides)
    return np.concatenate([corners, sides], axis=1)


def find_whole(boxes, size=(1920, 1080)):
    images = [make_image(width=size[0], height=size[1])]
    annotations = [{**BOX, "id": i, "bbox": box} for i, box in enumerate(np.asarray(boxes).tolist())]
    inspection = inspect(images, annotations)
    kinds = [kind for kind in get_kinds(inspection) if kind.startswith("boxes_look")]
    assert not kinds or len(inspection.columns.boxes) == 0
    return kinds


def test_corners_taken_for_sizes_are_found():
    boxes = draw_boxes(np.random.default_rng(0), 200)
    boxes[:, 2:] += boxes[:, :2]
    assert find_whole(boxes) == ["boxes_look_xyxy"]
    assert find_whole(boxes[:20]) == ["boxes_look_xyxy"]
    assert find_whole(boxes[:19]) == []
    # A few boxes with another mistake hide nothing.
    boxes[:15, 2:] = boxes[:15, :2] - 1
    assert find_whole(boxes) == ["boxes_look_xyxy"]


def test_boxes_of_upright_pictures_beside_stored_sizes_are_found():
    def find(orientation, boxes, width=1080, height=1920):
        images = [make_image(width=width, height=height)]
        annotations = [{**BOX, "id": i, "bbox": box} for i, box in enumerate(np.asarray(boxes).tolist())]
        stored = Header("JPEG", 1920, 1080, "RGB", orientation)
        return get_kinds(inspect(images, annotations, read_headers=lambda paths: [stored] * len(paths)))

    upright = draw_boxes(np.random.default_rng(0), 5)
    # Two of the five reach beyond 1080 pixels by more than a tenth.
    upright[:, 0] = [1200, 1300, 10, 20, 30]
    upright[:, 1] = upright[:, 1] / 2
    assert "boxes_look_upright" in find(6, upright)
    # There is no finding if nothing turns the picture, the json states the upright size, or the boxes fit.
    assert "boxes_look_upright" not in find(1, upright)
    assert "boxes_look_upright" not in find(6, upright, 1920, 1080)
    assert "boxes_look_upright" not in find(6, upright[:4])
    assert "boxes_look_upright" not in find(6, draw_boxes(np.random.default_rng(0), 5, (1080, 1920)))
    # There is none if the boxes fit into neither picture.
    assert "boxes_look_upright" not in find(6, [[1200, 1500, 9, 9]] * 5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1), st.floats(0.02, 1), st.floats(0, 0.09))
def test_boxes_within_the_image_are_never_taken_for_corners(seed, width, height, beyond):
    generator = np.random.default_rng(seed)
    boxes = draw_boxes(generator, 40, largest=(width, height))
    # Boxes drawn carelessly reach up to 9 % of the image's side beyond its border.
    boxes[:, :2] += generator.uniform(-beyond, beyond, (40, 2)) * (1920, 1080)
    assert find_whole(boxes) == []


@pytest.mark.parametrize("box", [[2, 2, 1920, 1080], [0.5, 0.5, 1.5, 1.5]])
def test_boxes_a_little_beyond_the_image_or_small_in_its_corner_are_sound(box):
    assert find_whole([box] * 40) == []


def test_normalised_boxes_are_found():
    boxes = draw_boxes(np.random.default_rng(0), 100) / (1920, 1080, 1920, 1080)
    assert find_whole(boxes) == ["boxes_look_normalised"]
    boxes[:9] *= 1000
    assert find_whole(boxes) == ["boxes_look_normalised"]
    assert find_whole(boxes[:25]) == []
    # Normalised corners are found, too.
    boxes[:, 2:] += boxes[:, :2]
    assert find_whole(boxes[9:]) == ["boxes_look_normalised"]


# The box is 30 x 40.
@pytest.mark.parametrize(
    "area", [float("nan"), INF, -INF, "1200", True, [], 10**400, -(10**400), 1e308, 0, 0.0, -1200, 1e11, 1280, 1, 0.7]
)
@pytest.mark.parametrize("policy", ["strict", "repair"])
def test_an_impossible_area_is_a_finding_and_costs_nothing(area, policy):
    inspection = inspect([make_image()], [{**BOX, "area": area}], policy=policy)
    assert get_kinds(inspection) == ["area_impossible"]
    assert inspection.findings[0].where == "annotation 5" and "[10, 20, 30, 40]" in inspection.findings[0].detail
    np.testing.assert_array_equal(inspection.columns.areas, [np.nan])


# 31 x 41 is 1271: the box may have been rounded.
@pytest.mark.parametrize("area", [None, 1200, 1271, 600.5, 2])
def test_the_area_of_a_mask_stays(area):
    inspection = inspect([make_image()], [{**BOX, "area": area}], policy="strict")
    assert inspection.findings == []
    np.testing.assert_array_equal(inspection.columns.areas, [np.nan if area is None else area])


@pytest.mark.parametrize(("number", "is_finding"), [(1, False), (2, False), (3, True), (5, True), (8, True)])
def test_areas_that_are_all_the_same(number, is_finding):
    rows = [{**BOX, "id": i, "bbox": [10, 20, 30 + i, 40], "area": 100} for i in range(number)]
    assert get_kinds(inspect([make_image()], rows)) == ["area_impossible"] * number * is_finding
    # Equal boxes may have equal masks.
    rows = [{**row, "bbox": [i, i, 30, 40]} for i, row in enumerate(rows)]
    assert get_kinds(inspect([make_image()], rows)) == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"rotation": 30}, "bbox_rotated"),
        ({"rotation": "30"}, "bbox_rotated"),
        ({"attributes": {"occluded": False, "rotation": 359.5}}, "bbox_rotated"),
        ({"attributes": {"rotation": 0.0}}, None),
        ({"attributes": {"rotation": 360.0}}, None),
        ({"attributes": ["rotation"]}, None),
        ({"rotation": None}, None),
        ({"ignore": 1}, "annotation_ignored"),
        ({"ignore": True}, "annotation_ignored"),
        ({"attributes": {"ignore": True}}, "annotation_ignored"),
        ({"ignore": 0}, None),
        ({"ignore": 1, "iscrowd": 1}, "crowd"),
    ],
)
def test_rotation_and_ignore_are_findings(changes, kind):
    inspection = inspect([make_image()], [{**BOX, **changes}], policy="strict")
    assert get_kinds(inspection) == ([kind] if kind else [])
    assert inspection.columns.boxes.tolist() == [[10, 20, 30, 40]]


def find_about_classes(*annotations):
    content = {"images": [make_image()], "annotations": list(annotations)}
    found = inspect_content(content, CATEGORIES, FileIndex("root", ["a.png"]), read_headers=read_nothing).findings
    return [(finding.kind, finding.where) for finding in found if finding.kind in ABOUT_CLASSES]


def test_what_teaches_nothing_is_a_finding():
    crowd, other = {**BOX, "iscrowd": 1}, {**BOX, "category_id": 2}
    assert find_about_classes(BOX, other) == []
    assert find_about_classes(BOX) == [("class_without_boxes", "category 2")]
    assert find_about_classes() == [("nothing_to_learn", "the json")]
    for number in (1, 2, 3, 5, 8):
        crowds = [{**crowd, "bbox": [i, 20, 30, 40]} for i in range(number)]
        assert find_about_classes(*crowds) == [("nothing_to_learn", "the json")]
        is_half = number >= 2
        expected = [("mostly_crowds", "the json")] * is_half
        assert find_about_classes(BOX, other, *crowds) == expected
    assert find_about_classes(BOX, {**other, "iscrowd": 1}) == [
        ("mostly_crowds", "the json"),
        ("class_without_boxes", "category 2"),
    ]


@pytest.mark.parametrize("image_id", [2**63, 2**64 - 1, -(2**63), "7", "", 0])
def test_ids_of_any_kind_are_exact(image_id):
    neighbour = image_id + 1 if isinstance(image_id, int) and image_id < 2**64 - 1 else 7
    images = [make_image(image_id), make_image(neighbour, "b.png")]
    rows = [{**BOX, "id": 2**70, "image_id": image_id}, {**BOX, "id": "x", "image_id": neighbour, "bbox": [0, 0, 9, 9]}]
    inspection = inspect(images, rows, files=["a.png", "b.png"])
    assert inspection.findings == [] and inspection.columns.image_ids == [image_id, neighbour]
    assert inspection.columns.boxes.tolist() == [[10, 20, 30, 40], [0, 0, 9, 9]]


def test_ids_of_annotations_that_are_not_exact():
    images = [make_image(2**53), make_image(1, "b.png")]

    def kinds(**changes):
        found = inspect(images, [{**BOX, **changes}], files=["a.png", "b.png"]).findings
        return [finding.kind for finding in found if finding.kind != "image_without_boxes"]

    assert kinds(image_id=1.0) == kinds(category_id=1.0) == []
    assert kinds(image_id=True) == ["annotation_without_image"]
    assert kinds(image_id=2.0**53 + 2) == ["annotation_without_image"]
    assert kinds(category_id=True) == kinds(category_id=1.5) == kinds(category_id=2**70) == ["category_unknown"]


def test_a_name_that_does_not_print_is_shown_anyway():
    images = [make_image(1, "a\udcff.png"), make_image(1, "b\udcff.png")]
    for finding in inspect(images, [], files=["a\udcff.png"]).findings:
        " ".join(finding).encode()


def test_names_that_lead_out_of_the_folder():
    images = [make_image(1, "../a.png"), make_image(2, "/etc/passwd"), make_image(3, "x/../../a.png"), make_image(4)]
    inspection = inspect(images, [])
    assert get_kinds(inspection)[:3] == ["image_outside"] * 3
    assert "ALLOW_OUTSIDE" in inspection.findings[0].detail
    assert inspection.columns.image_ids == [4]


def test_findings_about_many_categories_stay_short():
    categories = {i: str(i) for i in range(10_000)}
    files = FileIndex("root", ["a.png"])
    content = {"images": [make_image()], "annotations": [{**BOX, "category_id": -1}]}
    finding, *_ = inspect_content(content, categories, files, read_headers=read_nothing).findings
    assert finding.kind == "category_unknown" and len(finding.detail) < 300
