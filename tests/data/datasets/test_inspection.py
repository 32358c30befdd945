import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parking.data.datasets.file_names import FileIndex
from parking.data.datasets.findings import KINDS, STOP
from parking.data.datasets.inspection import inspect_content
from parking.data.datasets.sizes import StoredSize
from parking.data.image_io import UnreadableImageError

CLASS_IDS = {1: 0, 2: 1}
BOX = {"id": 5, "image_id": 1, "category_id": 1, "bbox": [10, 20, 30, 40]}
INF = float("inf")


def make_image(image_id=1, name="a.png", **size):
    return {"id": image_id, "file_name": name, **(size or {"width": 100, "height": 80})}


def read_nothing(paths):
    return [UnreadableImageError("no file")] * len(paths)


def inspect(images, annotations, *, files=("a.png",), policy="repair", read_headers=read_nothing):
    content = {"images": images, "annotations": annotations}
    return inspect_content(content, CLASS_IDS, FileIndex("root", files), read_headers=read_headers, policy=policy)


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
        ({"category_id": 0}, "category_unknown"),
        ({"category_id": 3}, "category_unknown"),
        ({"category_id": None}, "category_unknown"),
        ({"bbox": None}, "bbox_missing"),
        ({"bbox": [1, 2, 3]}, "annotation_structure"),
        ({"bbox": ["1", "2", "3", "4"]}, "annotation_structure"),
        ({"bbox": [True, 2, 3, 4]}, "annotation_structure"),
        ({"bbox": {"x": 1}}, "annotation_structure"),
        ({"iscrowd": "1"}, "annotation_structure"),
        ({"iscrowd": 2}, "annotation_structure"),
        ({"iscrowd": []}, "annotation_structure"),
        ({"bbox": [float("nan"), 2, 3, 4]}, "bbox_not_finite"),
        ({"bbox": [1, 2, INF, 4]}, "bbox_not_finite"),
        ({"bbox": [-INF, 2, INF, 4]}, "bbox_not_finite"),
        ({"bbox": [1, 2, 10**400, 4]}, "bbox_not_finite"),
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


def test_everything_is_found_not_only_the_first():
    wrong = [{**BOX, "id": i, "bbox": [1, 2, -3, 4]} for i in range(7)]
    inspection = inspect([make_image()], [*wrong, {**BOX, "id": 8, "category_id": 9}, {**BOX, "id": 9}])
    assert sorted(get_kinds(inspection)) == ["bbox_empty"] * 7 + ["category_unknown"]


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


def test_repeated_annotation_ids():
    inspection = inspect([make_image()], [BOX, {**BOX, "bbox": [1, 2, 30, 40]}])
    assert get_kinds(inspection) == ["annotation_id_twice"]
    assert "annotations[1]" in inspection.findings[0].detail


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
    assert inspection.columns.image_ids == [1, 4]
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
        return [StoredSize(80, 100), StoredSize(7, 5), UnreadableImageError("The image 'root/c.png' is empty.")]

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
        inspection = inspect_content(content, CLASS_IDS, FileIndex("root", ["a.png"]), read_headers=read_nothing)
        assert "json_structure" in get_kinds(inspection)
        assert KINDS["json_structure"].action("repair") == STOP


def draw_boxes(generator, number, size=(1920, 1080), largest=(0.4, 0.4)):
    """(number, 4) boxes within an image of ``size``."""
    sides = generator.uniform(0.01, largest, (number, 2)) * size
    corners = generator.uniform(0, 1, (number, 2)) * (size - sides)
    return np.concatenate([corners, sides], axis=1)


def find_whole(boxes, size=(1920, 1080)):
    images = [make_image(width=size[0], height=size[1])]
    annotations = [{**BOX, "id": i, "bbox": box} for i, box in enumerate(np.asarray(boxes).tolist())]
    return [kind for kind in get_kinds(inspect(images, annotations)) if kind.startswith("boxes_look")]


def test_corners_taken_for_sizes_are_found():
    boxes = draw_boxes(np.random.default_rng(0), 200)
    boxes[:, 2:] += boxes[:, :2]
    assert find_whole(boxes) == ["boxes_look_xyxy"]
    assert find_whole(boxes[:20]) == ["boxes_look_xyxy"]
    assert find_whole(boxes[:19]) == []
    # A few that are wrong otherwise hide nothing.
    boxes[:15, 2:] = boxes[:15, :2] - 1
    assert find_whole(boxes) == ["boxes_look_xyxy"]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1), st.floats(0.02, 1), st.floats(0, 0.09))
def test_boxes_within_the_image_are_never_taken_for_corners(seed, width, height, beyond):
    generator = np.random.default_rng(seed)
    boxes = draw_boxes(generator, 40, largest=(width, height))
    # Drawn carelessly: up to 9 % of the image's side beyond its border.
    boxes[:, :2] += generator.uniform(-beyond, beyond, (40, 2)) * (1920, 1080)
    assert find_whole(boxes) == []


def test_boxes_of_the_whole_image_and_a_little_more_are_not_corners():
    assert find_whole([[2, 2, 1920, 1080]] * 30) == []


def test_normalised_boxes_are_found():
    boxes = draw_boxes(np.random.default_rng(0), 100) / (1920, 1080, 1920, 1080)
    assert find_whole(boxes) == ["boxes_look_normalised"]
    boxes[:9] *= 1000
    assert find_whole(boxes) == ["boxes_look_normalised"]
    assert find_whole(boxes[:25]) == []
    # As x0, y0, x1, y1, they are found, too.
    boxes[:, 2:] += boxes[:, :2]
    assert find_whole(boxes[9:]) == ["boxes_look_normalised"]


def test_small_boxes_in_a_corner_are_not_normalised():
    assert find_whole([[0.5, 0.5, 1.5, 1.5]] * 40) == []


def test_boxes_of_another_format_are_not_used_at_all():
    boxes = [[0.1, 0.1, 0.2, 0.2]] * 40 + [[0, 0, 0, 0.5]]
    inspection = inspect([make_image()], [{**BOX, "id": i, "bbox": box} for i, box in enumerate(boxes)])
    assert "boxes_look_normalised" in get_kinds(inspection)
    assert len(inspection.columns.boxes) == 0, "they are no x, y, width, height, and some have no size"


@pytest.mark.parametrize("area", [float("nan"), INF, "12", True, 10**400])
def test_an_area_that_is_no_number_costs_nothing(area):
    inspection = inspect([make_image()], [{**BOX, "area": area}], policy="strict")
    assert inspection.findings == []
    np.testing.assert_array_equal(inspection.columns.areas, [np.nan])


def test_different_names_are_not_taken_for_one():
    images = [make_image(1, "Straße.png"), make_image(2, "Strasse.png")]
    inspection = inspect(images, [], files=["Straße.png", "Strasse.png"])
    assert "name_ambiguous" not in get_kinds(inspection)
    assert inspection.columns.file_names == ["root/Straße.png", "root/Strasse.png"]


def test_a_name_that_does_not_print_is_shown_anyway():
    images = [make_image(1, "a\udcff.png"), make_image(1, "b\udcff.png")]
    for finding in inspect(images, [], files=["a\udcff.png"]).findings:
        " ".join(finding).encode()


def test_all_listed_ids_are_kept():
    inspection = inspect([make_image(7, "b.png"), make_image(3)], [])
    assert (inspection.columns.image_ids, inspection.columns.listed_ids) == ([3], [7, 3])


def test_annotation_ids_above_64_bits_are_told_apart_in_linear_time():
    # All have the same hash, by which Python would compare each with each.
    big = [k * (2**61 - 1) for k in range(8, 12)]
    boxes = [{**BOX, "id": i, "bbox": [x, 2, 30, 40]} for x, i in enumerate([*big, big[0]])]
    inspection = inspect([make_image()], boxes)
    assert get_kinds(inspection) == ["annotation_id_twice"]


def test_names_that_lead_out_of_the_folder():
    images = [make_image(1, "../a.png"), make_image(2, "/etc/passwd"), make_image(3, "x/../../a.png"), make_image(4)]
    inspection = inspect(images, [])
    assert get_kinds(inspection)[:3] == ["image_outside"] * 3
    assert "ALLOW_OUTSIDE" in inspection.findings[0].detail
    assert inspection.columns.image_ids == [4]


def test_findings_about_many_categories_stay_short():
    class_ids = {i: i for i in range(10_000)}
    files = FileIndex("root", ["a.png"])
    content = {"images": [make_image()], "annotations": [{**BOX, "category_id": -1}]}
    (finding, _) = inspect_content(content, class_ids, files, read_headers=read_nothing).findings
    assert finding.kind == "category_unknown" and len(finding.detail) < 300
