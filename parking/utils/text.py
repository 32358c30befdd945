"""Texts from files and file names, made safe to show."""


def printable(text: object) -> str:
    """``text`` for terminals, logs and messages: every character that would not show as itself becomes an escape.

    Control characters (a terminal obeys them), line breaks, bytes that are not UTF-8, invisible and
    direction-changing characters become ``\\n``, ``\\x1b``, ``\\u200b`` and so on; all else, Korean for example, stays.
    Never use the result to look something up: the stored name stays exact.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def printable_lines(text: object) -> str:
    """:func:`printable` for an output of several lines, whose line breaks and tabs stay.

    For the doors where all text leaves for a terminal or log. Line breaks inside a name or value must have been escaped
    when it was put into the text.
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(char if char in "\n\t" or char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
