import pytest
from PIL import Image

from parking.data.datasets.sizes import read_headers, settle_images, settle_sizes
from parking.data.decoding.headers import Header
from parking.data.image_io import UnreadableImageError


def make_header(height, width, orientation=1):
    return Header("JPEG", height, width, "RGB", orientation)


def test_headers_and_errors_come_in_order(tmp_path):
    for k in range(3):
        Image.new("L", (5 + k, 7)).save(tmp_path / f"사진 {k}.png")
    (tmp_path / "text.png").write_text("no image")
    names = ["사진 2.png", "text.png", "gone.png", "사진 0.png", "사진 1.png"]
    first, text, gone, *rest = read_headers([str(tmp_path / name) for name in names])
    assert [header.stored_size for header in (first, *rest)] == [(7, 7), (7, 5), (7, 6)]
    assert isinstance(text, UnreadableImageError) and isinstance(gone, UnreadableImageError)


STORED, UPRIGHT = (30, 40), (40, 30)


def settle(*stated, policy="auto", orientation=6, stored=STORED):
    """Settle pictures that EXIF turns, by the sizes that a json states; return orientations, sizes and findings."""
    records = [{"file_name": f"{i}.jpg"} for i in range(len(stated))]
    for record, size in zip(records, stated, strict=True):
        if size:
            record["height"], record["width"] = size
    findings = settle_sizes(records, [make_header(*stored, orientation)] * len(records), policy)
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
    headers = [make_header(30, 40, 6), make_header(40, 40, 8)]
    (finding,) = (f for f in settle_sizes(sound, headers, "auto") if f.kind == "exif_ambiguous")
    assert [record["exif_orientation"] for record in sound] == ["apply", "apply"]
    assert finding.where == "1.jpg" and "upright" in finding.detail
    mixed = [
        {"file_name": f"{i}.jpg", "height": h, "width": w} for i, (h, w) in enumerate([(40, 30), (30, 40), (9, 9)])
    ]
    settle_sizes(mixed, [make_header(30, 40, 6), make_header(30, 40, 6), make_header(9, 9, 3)], "auto")
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
