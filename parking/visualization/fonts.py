"""Prepare texts for drawing, and find fonts that have their characters."""

import importlib.util
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font

from parking.utils.errors import UserError
from parking.utils.text import compose, printable

logger = logging.getLogger(__name__)

#: Python packages with fonts that have Hangul; fonts are searched in their folders, but the packages are not imported.
FONT_PACKAGES = ("koreanize_matplotlib",)
# Preferred fonts, best first, by the beginnings of their file names: plain sans-serif fonts with Hangul from Debian,
# macOS and Windows.
_PREFERRED_NAMES = (
    "nanumgothic",
    "nanumbarungothic",
    "notosanscjk-regular",
    "notosanskr",
    "pretendard",
    "malgun",
    "applesdgothicneo",
)
# Longest drawable name in characters; pictures have room for far fewer.
_MAX_LENGTH = 120


def drawable(text: str) -> str:
    """Make a name drawable by Pillow and matplotlib: compose and escape characters, shorten it if too long."""
    text = printable(compose(text[: 2 * _MAX_LENGTH]))
    return text if len(text) <= _MAX_LENGTH else f"{text[: _MAX_LENGTH // 2]}…{text[-_MAX_LENGTH // 2 :]}"


def default_font() -> Path:
    """Return the path of DejaVu Sans, which comes with matplotlib; it has Latin, Greek, Cyrillic and symbols."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def find_font(text: str) -> Path:
    """Return the first font that has every character of ``text``.

    DejaVu Sans is tried first, then the fonts of :data:`FONT_PACKAGES`, then those of the system.

    Raises:
        UserError: no font has all characters; the message says what to install.
    """
    characters = {ord(c) for c in text if not c.isspace()}
    for path in _candidates():
        if not _find_lacking(path, characters):
            return path
    sample = next((c for c in text if ord(c) > 0x7F), text[:1])
    raise UserError(
        f"No font on this machine can draw {sample!r}. For Korean names install one, with "
        "'pip install koreanize-matplotlib' or 'apt-get install fonts-nanum', or use the English names."
    )


def fit_font(texts: Sequence[str]) -> tuple[list[str], Path]:
    """Find one font for ``texts``; return the texts, with codes for characters that it lacks, and the font's path.

    If no font has all characters, the font that has most of them is taken, with a warning; each character that it lacks
    (such as an emoji) is replaced by a code such as ``\\U0001f697``.
    """
    text = "".join(texts)
    try:
        return list(texts), find_font(text)
    except UserError as e:
        logger.warning("%s Until then such characters are drawn as codes.", e)
    characters = {ord(c) for c in text if not c.isspace()}
    path = min(_candidates(), key=lambda candidate: len(_find_lacking(candidate, characters)))
    codes = {c: ascii(chr(c))[1:-1] for c in _find_lacking(path, characters) if c > 0x7F}
    return [text.translate(codes) for text in texts], path


def _candidates() -> Iterator[Path]:
    yield default_font()
    for package in FONT_PACKAGES:
        yield from _by_preference(_package_fonts(package))
    yield from _by_preference(_system_fonts())


def _package_fonts(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for pattern in ("*.ttf", "*.otf", "*.ttc"):
            yield from Path(folder).rglob(pattern)


def _system_fonts() -> Iterable[Path]:
    # Import this only when needed: the first import on a machine lists all fonts of the system, which takes seconds.
    from matplotlib import font_manager

    return map(Path, font_manager.findSystemFonts())


def _by_preference(paths: Iterable[Path]) -> list[Path]:
    def key(path):
        name = path.stem.lower()
        rank = next((i for i, known in enumerate(_PREFERRED_NAMES) if name.startswith(known)), len(_PREFERRED_NAMES))
        return rank, len(name), str(path)

    return sorted(paths, key=key)


def _find_lacking(path: Path, characters: set[int]) -> set[int]:
    """Return the ``characters`` that a font lacks; for an unreadable font, all of them and -1."""
    try:
        font = FT2Font(str(path))
        return {c for c in characters if not font.get_char_index(c)}
    except (OSError, RuntimeError):
        # FreeType cannot open the broken files and bitmap fonts that system folders may hold. The -1 makes find_font
        # pass over such a font even if ``characters`` is empty.
        return {*characters, -1}
