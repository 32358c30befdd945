"""Make texts from files and file names safe to show and to compare."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

# Longest value in a message, in characters.
_SHOWN_LENGTH = 100
# compose() leaves a text with more combining marks in a row as it is; Unicode (UAX #15, 13) expects at most 30.
_MAX_MARKS = 30


def printable(text: object) -> str:
    """Escape every character of ``text`` that a terminal, log or message would not show as itself.

    Control characters (which a terminal would obey), line breaks, bytes that are not UTF-8, and invisible or
    direction-changing characters become ``\\n``, ``\\x1b``, ``\\u200b`` and so on. Others, such as Korean ones, stay.
    Use the result only for display; to look something up, use the original text.
    """
    return _escape(str(text))


def show(value: object) -> str:
    """Return the beginning of the ``repr`` of ``value``, escaped for messages."""
    try:
        text = printable(repr(value))
    except ValueError:  # an integer with more digits than Python converts to text
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def join_some(texts: Sequence[object], limit: int, show: Callable[[Any], str] = printable) -> str:
    """Join up to ``limit`` of ``texts``, each made safe by ``show``, and say how many more there are."""
    rest = len(texts) - limit
    return ", ".join(map(show, texts[:limit])) + (f" and {rest} more" if rest > 0 else "")


def printable_lines(text: object) -> str:
    """Escape ``text`` as :func:`printable` does, but keep line breaks and tabs.

    This is for the last step before text goes to a terminal or log. Names and values must have been escaped by
    :func:`printable` when they were put into the text, because their line breaks would stay here.
    """
    return _escape(str(text), kept="\n\t")


def compose(text: str) -> str:
    """Return ``text`` in Unicode's form NFC; some file systems store names in another form.

    A text with more combining marks in a row than any language has is returned as it is, because Unicode sorts these
    marks in a time that grows with the square of their number: hours for a name of a megabyte.
    """
    return text if _has_many_marks(text) else unicodedata.normalize("NFC", text)


def _has_many_marks(text: str) -> bool:
    num_marks = 0
    for char in text if len(text) > _MAX_MARKS and not text.isascii() else "":
        num_marks = num_marks + 1 if unicodedata.combining(char) else 0
        if num_marks > _MAX_MARKS:
            return True
    return False


def _escape(text: str, kept: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else _escape_character(char) for char in text)


def _escape_character(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
