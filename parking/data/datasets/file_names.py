"""Find files by the names that a json gives them; needs neither torch nor detectron2.

macOS writes a Korean syllable as one character for each of its parts (NFD), Windows and Linux as one character (NFC),
and extensions come in either case. A name is first looked up as it is, and then regardless of these differences.
"""

import os
from collections.abc import Iterable, Sequence

from parking.utils.errors import UserError
from parking.utils.limits import MAX_PATH_FOLDERS
from parking.utils.text import compose, printable

#: Files with these extensions are taken for images; their content decides how they are read.
IMAGE_EXTENSIONS = frozenset(
    {".apng", ".avif", ".bmp", ".dib", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".mpo", ".pbm", ".pgm"}
    | {".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"}
)
#: Pictures with these extensions are not read; messages say that they were passed over.
UNREAD_IMAGE_EXTENSIONS = frozenset(
    {".arw", ".cr2", ".cr3", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".ico", ".jxl", ".nef", ".orf", ".pdf"}
    | {".pfm", ".psd", ".raf", ".rw2", ".svg", ".tga"}
)
#: Files with these extensions are taken for videos.
VIDEO_EXTENSIONS = frozenset(
    {".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ts", ".webm", ".wmv"}
)

#: The end of a message about two names with the same :func:`name_key`.
DIFFER_ONLY_IN_FORM = "differ only in upper and lower case or in their Unicode form; rename or remove one of them"


def is_hidden(name: str) -> bool:
    """Return whether a file's name starts with a dot, as systems and tools name files that are not for the user."""
    return name.rpartition("/")[2].startswith(".")


def is_image_name(name: str) -> bool:
    """Return whether a file of this name is taken for an image: it has an image's extension and is not hidden."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_EXTENSIONS


def name_key(name: str) -> str:
    """Return a key that is equal for names that differ only in case, Unicode form or kind of slashes."""
    # Use lower(), because casefold() would also make "Straße" and "Strasse" equal.
    key = name.lower()
    if not name.isascii():
        key = compose(compose(name).lower())
    key = key.replace("\\", "/")
    return key[2:] if key.startswith("./") else key


class NameIndex:
    """An index of names with their folders, which finds a name regardless of case and Unicode form.

    Attributes:
        names: sorted.
        ambiguous: pairs of names with the same :func:`name_key`.
    """

    def __init__(self, names: Iterable[str]):
        self.names = sorted(set(names))
        self.ambiguous: list[tuple[str, str]] = []
        self._exact = set(self.names)
        self._by_key: dict[str, str] = {}
        for name in self.names:
            first = self._by_key.setdefault(name_key(name), name)
            if first is not name:
                self.ambiguous.append((first, name))

    def find(self, name: str) -> str | None:
        """Return ``name`` if the index has it, else a name with the same :func:`name_key`, else None."""
        return name if name in self._exact else self._by_key.get(name_key(name))

    def check_unambiguous(self, where: str) -> None:
        """Raise a UserError that begins with ``where`` if two names differ only in case, Unicode form or slashes."""
        for first, second in self.ambiguous:
            raise UserError(f"{where}: '{printable(first)}' and '{printable(second)}' {DIFFER_ONLY_IN_FORM}.")


class FileIndex(NameIndex):
    """An index of the files below ``root``, by their paths relative to it, with slashes.

    Links below ``root`` may lead anywhere, because the user put them there. A name from a json may lead out of ``root``
    only if it is absolute and ``allow_outside`` is True.

    Attributes:
        irregular: names of entries that are neither files nor folders, such as dead links.
    """

    def __init__(self, root: str, names: Iterable[str], *, allow_outside: bool = False, irregular: Sequence[str] = ()):
        super().__init__(names)
        self.irregular = irregular
        self.allow_outside = allow_outside
        self.root = root.rstrip("/") if len(root) > 1 else root

    def path(self, name: str) -> str:
        """Return the full path of one of ``names``."""
        return f"{self.root}/{name}"

    def find(self, name: str) -> str | None:
        """Return the full path of the file that a json calls ``name``; None if there is none."""
        found = super().find(name)
        if found is None and _may_climb(name):
            found = super().find(self._to_relative(name))
        if found is not None:
            return self.path(found)
        if self.allow_outside and os.path.isabs(name):
            return name if os.path.isfile(name) else None
        return None

    def is_outside(self, name: str) -> bool:
        """Return whether ``name`` leads out of ``root`` although this is not allowed."""
        is_allowed = self.allow_outside and os.path.isabs(name)
        return _may_climb(name) and not is_allowed and self._to_relative(name).partition("/")[0] == ".."

    def _to_relative(self, name: str) -> str:
        # Compute the path from the names alone, without resolving links.
        root = os.path.abspath(self.root)
        return os.path.relpath(os.path.join(root, name), root)


def _may_climb(name: str) -> bool:
    return os.path.isabs(name) or ".." in name.split("/")


def index_folder(root: str, *, allow_outside: bool = False, without: str | None = None) -> FileIndex:
    """Index all files below ``root`` without opening them; links are followed.

    Args:
        allow_outside: see :class:`FileIndex`.
        without: name of a subfolder of ``root`` to leave out.

    Raises:
        UserError: a folder cannot be read.
    """
    names: list[str] = []
    irregular: list[str] = []
    _walk(root, "", (), names, irregular, without)
    return FileIndex(root, names, allow_outside=allow_outside, irregular=sorted(irregular))


def _walk(folder: str, prefix: str, ancestors: tuple, names: list, irregular: list, without: str | None = None) -> None:
    folders = []
    try:
        # Do not follow a link to a folder that contains the link: this would never end.
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in ancestors:
            return
        if len(ancestors) > MAX_PATH_FOLDERS:
            raise UserError(
                f"The folder '{printable(prefix[:100])}...' is nested deeper than {MAX_PATH_FOLDERS} folders."
            )
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():
                    if entry.name != without:
                        folders.append(entry.name)
                else:
                    (names if entry.is_file() else irregular).append(prefix + entry.name)
    except OSError as e:
        raise UserError(f"The folder '{printable(folder)}' cannot be read: {e.strerror or e}.") from e
    for name in folders:
        _walk(os.path.join(folder, name), f"{prefix}{name}/", (*ancestors, identity), names, irregular)
