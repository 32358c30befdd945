import gc
import json
import os

import pytest

from parking.data.datasets.json_io import (
    find_twice,
    inspect_image_records,
    paused_gc,
    read_json,
    read_json_list,
    read_json_object,
    shorten,
)
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
    assert "'id'" in findings[0].detail and "'a'" in findings[1].detail
    with pytest.raises(UserError, match=r"set\.json.*'id'"):
        read_json_object(json_file)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        ('{"a": "주차"}'.encode("cp949"), "UTF-8 (at byte 7)"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b'{"images": [{"id": 1', "cut off"),
        (b"", "empty"),
        (b"[" * 100_000, "nested too deep"),
        # Python refuses to read an integer of this many digits.
        (b'{"a": ' + b"9" * 5000 + b"}", "number"),
        (b'{"a": 1}\n{"a": 2}', "JSON Lines?), the second at 2:1"),
        (b'{"a": 1}' + bytes(100), "NUL at byte 8"),
    ],
)
def test_what_cannot_be_read_is_a_finding(tmp_path, data, detail):
    content, findings = read_json(write(tmp_path, data))
    assert content is None
    assert [f.kind for f in findings] == ["json_unreadable"]
    assert detail in findings[0].detail


def test_missing_files_and_other_values(tmp_path):
    assert [f.kind for f in read_json(str(tmp_path / "gone.json"))[1]] == ["json_unreadable"]
    content, findings = read_json(write(tmp_path, "[1]"))
    assert content is None
    assert [f.kind for f in findings] == ["json_structure"]
    assert "list" in findings[0].detail
    with pytest.raises(UserError, match=r"set\.json.*an object"):
        read_json_list(write(tmp_path, "{}"))


def test_a_fifo_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UserError, match="FIFO"):
        read_json_object(tmp_path / "fifo")


# Texts that grow in proportion to ``n``; reading them may take no more than in proportion, too.
HOSTILE = {
    "one object with each key twice": lambda n: "{" + ", ".join(f'"k{i}": 1' for i in [*range(n), *range(n)]) + "}",
    "objects with a key twice in each other": lambda n: '{"a": 1, "a": 2, "b": ' * (n // 10) + "1" + "}" * (n // 10),
    "long keys above many infinities": lambda n: '{"' + "k" * 10 * n + '": [' + ", ".join(["Infinity"] * n) + "]}",
    "one image name many times": lambda n: json.dumps({"images": [{"id": i, "file_name": "a.png"} for i in range(n)]}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_twice_as_much_takes_twice_the_work(tmp_path, measure_work, kind):
    def work(n):
        path = write(tmp_path, HOSTILE[kind](n))

        def run():
            content, _ = read_json(path)
            inspect_image_records(content)

        return measure_work(run)

    small, large = work(2000), work(4000)
    assert all(b <= 2.3 * a for a, b in zip(small, large, strict=True)), (small, large)


def test_numbers_that_are_not_finite_are_counted(tmp_path):
    content, findings = read_json(write(tmp_path, '{"a": [1.0, NaN], "b": {"c": -Infinity, "d": "NaN"}}'))
    assert content["b"]["c"] == float("-inf")
    assert [(f.kind, "2 times" in f.detail) for f in findings] == [("json_nan", True)]


def test_the_first_value_that_occurred_before_is_found():
    assert find_twice([1, 2, 3, 2, 1]) == 2
    assert find_twice(range(10)) is None


def test_values_are_shortened_without_looking_at_all_of_them(measure_work):
    assert shorten({"id": 1, "x": [1.5, None]}) == "{'id': 1, 'x': [1.5, None]}"
    assert shorten("\x1b[31m") == "'\\x1b[31m'"
    values = ["x" * 10**6, [1] * 10**6, {str(i): i for i in range(10**5)}]
    for value in values:
        assert len(shorten(value)) <= 80
        assert measure_work(lambda value=value: shorten(value))[1] < 10**5


def test_all_wrong_images_are_found():
    good = {"id": 1, "file_name": "a.png", "height": 3.0, "width": 4}
    bad = [
        {"id": 2},
        {"file_name": "a.png"},
        7,
        *({**good, "id": image_id} for image_id in ([2], None, True, 1.0, 1.5, 2**70)),
        {**good, "id": 3, "file_name": 5},
        {**good, "id": 4, "file_name": "a\0.png"},
        {**good, "id": 9, "file_name": "a" * 3000},
        {**good, "id": 5, "height": -3},
        {**good, "id": 6, "width": float("nan")},
        {**good, "id": 7, "width": 10**400},
        {**good, "id": 8, "height": 10**9},
        {**good, "id": 2**64},
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
    with paused_gc():
        with paused_gc():
            pass
        assert not gc.isenabled()
