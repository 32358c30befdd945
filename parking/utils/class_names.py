"""Comparing class names; wherever they are kept or written, they stay as they are stored."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from .text import compose, printable

# Characters that look like a space, which Unicode counts as letters or symbols.
_BLANK = "\u3164\uffa0\u2800"
# Characters of a name in messages and tables.
_SHOWN_LENGTH = 60


def class_key(name: str) -> str:
    """``name`` as class names are compared: composed (NFC), without invisible characters and needless spaces."""
    name = compose(name)
    if not (name.isascii() and name.isprintable()):
        name = "".join(" " if c.isspace() or c in _BLANK else c for c in name if c.isspace() or not _is_invisible(c))
    return " ".join(name.split())


def shown_name(name: str) -> str:
    """``name`` for tables and messages: :func:`~parking.utils.text.printable`, and cut where it is very long."""
    # Cut twice: an escape takes up to ten characters.
    text = printable(str(name)[: _SHOWN_LENGTH + 1])
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."


def _is_invisible(char: str) -> bool:
    return unicodedata.category(char) in ("Cc", "Cf") or "\ufe00" <= char <= "\ufe0f"


def find_classes(names: Iterable[str], class_names: Iterable[str]) -> list[str | None]:
    """For each name the class that it means: the same text, else the only one with its :func:`class_key`, else None."""
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
    """Whether two lists name the same classes, in whatever order."""
    return sorted(map(class_key, first)) == sorted(map(class_key, second))
