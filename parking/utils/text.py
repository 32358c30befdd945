"""Texts from files and file names, made safe to show and to compare."""

import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

# Characters of a value in a message.
_SHOWN_LENGTH = 100


def printable(text: object) -> str:
    """``text`` for terminals, logs and messages: every character that would not show as itself becomes an escape.

    Control characters (a terminal obeys them), line breaks, bytes that are not UTF-8, invisible and
    direction-changing characters become ``\\n``, ``\\x1b``, ``\\u200b`` and so on; all else, Korean for example, stays.
    Never use the result to look something up: the stored name stays exact.
    """
    return _escape(str(text))


def show(value: object) -> str:
    """A config value or the like in a message: the beginning of its ``repr``, escaped."""
    try:
        text = printable(repr(value))
    except ValueError:  # an integer of more digits than Python writes out
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}..."


def join_some(texts: Sequence[object], limit: int, show: Callable[[Any], str] = printable) -> str:
    """Join up to ``limit`` of ``texts``, each made safe by ``show``, and say how many more there are."""
    rest = len(texts) - limit
    return ", ".join(map(show, texts[:limit])) + (f" and {rest} more" if rest > 0 else "")


def printable_lines(text: object) -> str:
    """:func:`printable` for an output of several lines, whose line breaks and tabs stay.

    For the doors where all text leaves for a terminal or log. Line breaks inside a name or value must have been escaped
    when it was put into the text.
    """
    return _escape(str(text), kept="\n\t")


def compose(text: str) -> str:
    """``text`` in Unicode's form NFC, in which some file systems do not store names."""
    return unicodedata.normalize("NFC", text)


def _escape(text: str, kept: str = "") -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in kept else _escape_character(char) for char in text)


def _escape_character(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
