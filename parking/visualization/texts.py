"""Names as texts that can be drawn."""

from parking.utils.text import compose, printable

# Characters; far more than a picture has room for.
_MAX_LENGTH = 120


def drawable(text: str) -> str:
    """A name of any kind as Pillow and matplotlib can draw it: composed, without control characters, not too long."""
    text = printable(compose(text[: 2 * _MAX_LENGTH]))
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]}…{text[-_MAX_LENGTH // 2 :]}"
