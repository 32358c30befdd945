import gc
import json

import pytest

from parking.data.datasets.json_io import inspect_image_records, paused_gc, read_json, read_json_object
from parking.utils.errors import UserError


def write(tmp_path, data):
    path = tmp_path / "set.json"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def test_a_byte_order_mark_is_read_over_and_noted(tmp_path):
    json_file = write(tmp_path, "\ufeff" + '{"images": ["한"]}')
    content, findings = read_json(json_file)
    assert content == read_json_object(json_file) == {"images": ["한"]}
    assert [(f.kind, f.where) for f in findings] == [("json_bom", json_file)]


def test_duplicate_keys_are_found_at_any_depth(tmp_path):
    json_file = write(tmp_path, '{"images": [{"id": 1, "x": 2, "id": 3}], "a": 1, "b": 2, "a": 3}')
    content, findings = read_json(json_file)
    assert content["images"][0]["id"] == 3
    assert [f.kind for f in findings] == ["json_duplicate_key"] * 2
    assert "the key 'id' twice" in findings[0].detail
    assert "the key 'a' twice" in findings[1].detail
    with pytest.raises(UserError, match=r"set\.json' has an object with the key 'id' twice"):
        read_json_object(json_file)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ('{"a": "주차"}'.encode("cp949"), "is not UTF-8 (at byte 7); save it as UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "is not UTF-8 (at byte 0)"),
        (b'{"images": [{"id": 1', "is not valid JSON, or cut off"),
        (b"", "is not valid JSON, or cut off"),
        (b"[" * 100_000, "is not valid JSON, or cut off"),
        # Python reads no integers of so many digits.
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON, or cut off"),
    ],
)
def test_what_cannot_be_read_is_a_finding(tmp_path, data, detail):
    content, findings = read_json(write(tmp_path, data))
    assert content is None
    assert [f.kind for f in findings] == ["json_unreadable"]
    assert findings[0].detail.startswith(detail)


def test_missing_files_and_other_values(tmp_path):
    assert [f.kind for f in read_json(str(tmp_path / "gone.json"))[1]] == ["json_unreadable"]
    content, findings = read_json(write(tmp_path, "[1]"))
    assert content is None
    assert [f.kind for f in findings] == ["json_structure"]


def test_all_wrong_images_are_found():
    good = {"id": 1, "file_name": "a.png", "height": 3.0, "width": 4}
    bad = [
        {"id": 2},
        {"file_name": "a.png"},
        7,
        {**good, "id": [2]},
        {**good, "id": None},
        {**good, "id": 3, "file_name": 5},
        {**good, "id": 4, "file_name": "a\0.png"},
        {**good, "id": 5, "height": -3},
        {**good, "id": 6, "width": float("nan")},
    ]
    records, findings = inspect_image_records({"images": [*bad, good, {**good, "file_name": "b.png"}]})
    assert records == [{"file_name": "a.png", "image_id": 1, "height": 3, "width": 4}]
    assert [f.kind for f in findings] == ["json_structure"] * len(bad) + ["image_id_twice"]
    assert [f.where for f in findings[:3]] == ["images[0]", "images[1]", "images[2]"]


def test_the_collector_is_left_as_it_was():
    assert gc.isenabled()
    with pytest.raises(ValueError), paused_gc():
        assert not gc.isenabled()
        json.loads("{")
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_gc():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
