"""Finding a font that really has the characters to draw."""

import importlib.util
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib
from matplotlib.ft2font import FT2Font

from parking.utils.errors import UserError

logger = logging.getLogger(__name__)

#: Python packages that carry fonts with Hangul; they are searched for files, never imported.
FONT_PACKAGES = ("koreanize_matplotlib",)
# Of several fonts with the characters: plain sans-serif ones, as they come with Debian, macOS and Windows, go first.
_PREFERRED_NAMES = (
    "nanumgothic",
    "nanumbarungothic",
    "notosanscjk-regular",
    "notosanskr",
    "pretendard",
    "malgun",
    "applesdgothicneo",
)


def default_font() -> Path:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek, Cyrillic and symbols, no Hangul."""
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


def find_font(text: str) -> Path:
    """The first font that has every character of ``text``: DejaVu Sans, else one of :data:`FONT_PACKAGES`, else one of
    the system's.

    Raises:
        UserError: no font has them; the message says what to install.
    """
    characters = {ord(c) for c in text if not c.isspace()}
    for path in _candidates():
        if _covers(path, characters):
            return path
    sample = next((c for c in text if ord(c) > 0x7F), text[:1])
    raise UserError(
        f"No font on this machine can draw {sample!r}. For Korean names install one, with "
        "'pip install koreanize-matplotlib' or 'apt-get install fonts-nanum', or use the English names."
    )


def find_font_or_default(text: str) -> Path:
    """Like :func:`find_font`, but DejaVu Sans with a warning where no font has all characters."""
    try:
        return find_font(text)
    except UserError as e:
        logger.warning("%s Until then such characters are drawn as empty boxes.", e)
        return default_font()


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
    # Here and not above: importing it lists all fonts of the system on a machine's first run, which takes seconds.
    from matplotlib import font_manager

    return map(Path, font_manager.findSystemFonts())


def _by_preference(paths: Iterable[Path]) -> list[Path]:
    def key(path):
        name = path.stem.lower()
        rank = next((i for i, known in enumerate(_PREFERRED_NAMES) if name.startswith(known)), len(_PREFERRED_NAMES))
        return rank, len(name), str(path)

    return sorted(paths, key=key)


def _covers(path: Path, characters: set[int]) -> bool:
    try:
        font = FT2Font(str(path))
        return all(font.get_char_index(c) for c in characters)
    except (OSError, RuntimeError):
        # Broken files and bitmap formats that FreeType cannot open lie about in system folders.
        return False
