import pytest

from parking.data.datasets.categories import collect_categories, read_categories, settle_categories
from parking.utils.class_names import class_key, find_classes


def content(*rows, used=()):
    """Make a json of categories (rows of id, name and perhaps supercategory) and one annotation for each id used."""
    keys = ("id", "name", "supercategory")
    return {
        "categories": [dict(zip(keys, row, strict=False)) for row in rows],
        "annotations": [{"category_id": i} for i in used],
    }


def kinds(categories):
    return [finding.kind for finding in categories.findings]


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        " a b",
        "a b \t",
        "a\xa0b",
        "a \u200bb",
        "\ufeffa b",
        "a b\r\n",
        "a\xad b",
        "a\u200d b",
        "a\u3000b",
        "a\0 b",
    ],
)
def test_what_does_not_show_is_not_compared(name):
    categories = read_categories(content((1, name), used=[1]))
    assert class_key(name) == "a b"
    assert categories.names == {1: name}  # as it is stored
    assert kinds(categories) == ([] if name == "a b" else ["class_name_unclear"])
    assert find_classes(["a b", name, "A b", 5], ["x", name]) == [name, name, None, None]


def test_unicode_forms_are_compared_composed():
    nfc, nfd = "caf\xe9", "cafe\u0301"
    assert class_key(nfd) == nfc != class_key("cafe")
    assert kinds(read_categories(content((1, nfc), used=[1]))) == []
    assert find_classes([nfc], [nfd]) == [nfd]
    # If two match, only an identical one counts.
    assert find_classes([nfc, "x"], [nfc, nfd, "x ", "x\t"]) == [nfc, None]


@pytest.mark.parametrize("second", ["car", "car ", "\ufeffcar"])
def test_two_classes_never_look_the_same(second):
    categories = read_categories(content((1, "car"), (7, second), (3, "Car"), used=[1, 3, 7]))
    (finding,) = [finding for finding in categories.findings if finding.kind == "class_name_twice"]
    assert "1 ('car') and 7 " in finding.detail
    for used, kept in (([1, 3], [1, 3]), ([7], [3, 7]), ([], [1, 3])):
        categories = read_categories(content((1, "car"), (7, second), (3, "Car"), used=used))
        assert list(categories.names) == kept and kinds(categories)[0] == "category_left_out"


def test_a_group_without_annotations_is_left_out():
    rows = [(0, "car", "none"), (1, "car", "car"), (2, "bus", "car")]
    assert list(read_categories(content(*rows, used=[])).names) == [1, 2]
    rows[0] = (0, "vehicles", "none")
    assert list(read_categories(content(*rows, used=[1])).names) == [0, 1, 2]  # no category has 0 as its supercategory
    rows[1:] = [(1, "car", "vehicles"), (2, "bus", "vehicles")]
    assert list(read_categories(content(*rows, used=[1])).names) == [1, 2]
    assert list(read_categories(content(*rows, used=[0, 1])).names) == [0, 1, 2]
    # COCO's person is its own supercategory.
    assert len(read_categories(content((1, "person", "person"), (2, "rider", "person"), used=[2])).names) == 2
    assert len(read_categories(content((1, "a", "b"), (2, "b", "a"))).names) == 2  # not all are left out


def test_files_that_are_used_together_have_the_order_and_names_of_the_first():
    first = content((0, "root"), (1, "car", "root"), (2, "bus ", "root"), used=[1, 2])
    other = content((5, "bus"), (9, "root"), (7, "car", "root"), used=[5])
    train, val = settle_categories([collect_categories(first), collect_categories(other)])
    assert list(train.names.items()) == [(1, "car"), (2, "bus ")]
    assert list(val.names.items()) == [(7, "car"), (5, "bus ")]
    assert "class_name_differs" in kinds(val)
    # A category that one of the jsons uses is kept in both.
    first["annotations"].append({"category_id": 0})
    train, val = settle_categories([collect_categories(first), collect_categories(other)])
    assert list(train.names) == [0, 1, 2]


@pytest.mark.parametrize(("value", "name"), [(5, "5"), (1.5, "1.5"), (-3, "-3"), (10**20, "1" + "0" * 20)])
def test_numbers_are_used_as_texts(value, name):
    categories = read_categories(content((1, value), used=[1]))
    assert categories.names == {1: name} and kinds(categories) == ["class_name_number"]


@pytest.mark.parametrize("value", [None, True, False, [], ["a"], {}, float("nan"), float("inf"), "half \ud83d"])
def test_what_cannot_be_a_name_is_an_error(value):
    categories = read_categories(content((1, "a"), (12, value), used=[1]))
    assert kinds(categories) == ["json_structure"] and "12" in categories.findings[0].detail


@pytest.mark.parametrize("value", ["1", None, True, 1.0, 2**70, -(2**70), [], {}, 2**63])
def test_ids_are_whole_numbers_of_64_bits(value):
    categories = read_categories(content((5, "a"), (value, "b"), used=[5]))
    if value == 2**63:
        assert list(categories.names) == [5, 2**63] and not categories.findings
    else:
        assert kinds(categories) == ["json_structure"] and list(categories.names) == [5]


@pytest.mark.parametrize("name", ["", " ", "\u200b"])
def test_an_empty_name_is_used(name):
    categories = read_categories(content((0, name), (-1, "a" * 300), (3, "a/b %s {}"), used=[0]))
    assert list(categories.names) == [-1, 0, 3] and categories.names[0] == name
    assert kinds(categories) == ["class_name_unclear"]


@pytest.mark.parametrize("entries", [None, [], 5, {}])
def test_there_must_be_categories(entries):
    categories = read_categories({"categories": entries, "annotations": []})
    assert kinds(categories) == ["json_structure"] and "categories" in categories.findings[0].detail


@pytest.mark.parametrize("names", ["same", "groups of same", "different"])
def test_twice_as_many_categories_take_twice_the_work(measure_work, names):
    def work(n):
        same = "groups" in names or names == "same"
        categories = [{"id": i, "name": "car" if same else f"car {i}"} for i in range(n)]
        if "groups" in names:
            categories += [{"id": n + i, "name": f"{i}", "supercategory": "car"} for i in range(n)]
        content = {"categories": categories, "annotations": [{"category_id": n - 1}]}
        return measure_work(lambda: read_categories(content))

    small, large = work(1000), work(2000)
    assert all(b <= 2.3 * a for a, b in zip(small, large, strict=True)), (small, large)
