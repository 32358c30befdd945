"""Compare and shorten class names; the stored names themselves are never changed."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from .text import compose, printable

# Characters that look like a space although Unicode counts them as letters or symbols.
_BLANK = "\u3164\uffa0\u2800"
# Longest name in messages and tables, in characters.
_SHOWN_LENGTH = 60


def class_key(name: str) -> str:
    """Return the text by which class names are compared: composed (NFC), no invisible characters, single spaces."""
    name = compose(name)
    if not (name.isascii() and name.isprintable()):
        name = "".join(" " if c.isspace() or c in _BLANK else c for c in name if c.isspace() or not _is_invisible(c))
    return " ".join(name.split())


def shown_name(name: str) -> str:
    """Return a class name for tables and messages: escaped by :func:`.text.printable`, and cut if it is very long."""
    # Cut before escaping, so that little is escaped, and cut again, because an escape takes up to ten characters.
    text = printable(str(name)[: _SHOWN_LENGTH + 1])
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf") or "\ufe00" <= char <= "\ufe0f"


def find_classes(names: Iterable[str], class_names: Iterable[str]) -> list[str | None]:
    """Return which of ``class_names`` each of ``names`` means; None for a name that means none of them.

    A name means the class that is spelled exactly like it, or else the only class with the same :func:`class_key`.
    """
    own, by_key = set(class_names), defaultdict(list)
    for name in own:
        by_key[class_key(name)].append(name)

    def find(name: Any) -> str | None:
        if not isinstance(name, str):
            return None
        same = [name] if name in own else by_key.get(class_key(name), ())
        return same[0] if len(same) == 1 else None

    return [find(name) for name in names]


def same_classes(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two lists name the same classes, in any order."""
    return sorted(map(class_key, first)) == sorted(map(class_key, second))
