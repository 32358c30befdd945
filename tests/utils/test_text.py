import pytest

from parking.utils.text import compose, join_some, printable, printable_lines


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("세단 a.png", "세단 a.png"),
        ("car 🚗", "car 🚗"),
        ("a\x1b[31m\n\r\t", "a\\x1b[31m\\n\\r\\t"),
        ("car\u200b", "car\\u200b"),
        ("pick\u00a0up", "pick\\xa0up"),
        ("\ufeffcar", "\\ufeffcar"),
        ("gpj.\u202etxt", "gpj.\\u202etxt"),
        ("\udcc1.png", "\\udcc1.png"),
        ("👨\u200d👩", "👨\\u200d👩"),
        (17, "17"),
    ],
)
def test_what_would_not_show_as_itself_is_escaped(text, shown):
    assert printable(text) == shown
    assert printable(text).isprintable()
    printable(text).encode()


def test_some_of_many_texts():
    assert join_some(["a\n", "b"], 2) == "a\\n, b"
    assert join_some([1, 2, 3, 4], 2, hex) == "0x1, 0x2 and 2 more"


def test_line_breaks_of_our_own_outputs_stay():
    assert printable_lines("a\n\tb\r\x1b[2J\u202e주") == "a\n\tb\\r\\x1b[2J\\u202e주"


def test_texts_are_composed_unless_that_would_take_hours():
    decomposed = "\u1109\u1166\u1103\u1161\u11ab e\u0323\u0301" * 100
    assert compose(decomposed) == "세단 ẹ\u0301" * 100
    hostile = "e" + "\u0301\u0323" * 10**6
    assert compose(hostile) == hostile
