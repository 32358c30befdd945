"""Which files of a folder are taken for images, and how many others are passed over, by reason."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from parking.data.datasets.file_names import (
    UNREAD_IMAGE_EXTENSIONS,
    VIDEO_EXTENSIONS,
    index_folder,
    is_hidden,
    is_image_name,
)
from parking.utils.errors import UserError
from parking.utils.files import is_dead_link
from parking.utils.marks import MarkedFiles

_OWN, _VIDEO, _DEAD, _SPECIAL, _BESIDE = "own", "video", "dead link", "special", "beside"
# For one, and for several.
_WORDS = {
    _OWN: ("1 result that this product wrote", "{} results that this product wrote"),
    _VIDEO: ("1 video (--input VIDEO takes one)", "{} videos (--input VIDEO takes one)"),
    _DEAD: ("1 link that leads nowhere", "{} links that lead nowhere"),
    _SPECIAL: ("1 pipe or device with a picture's name", "{} pipes or devices with a picture's name"),
    _BESIDE: ("1 picture beside the folder images", "{} pictures beside the folder images"),
}


@dataclass
class Listing:
    """Images below a folder, by their paths relative to it, and what else is there.

    Attributes:
        names: sorted.
        passed_over: numbers of other files by reason, or by the ending of a kind of picture that is not read.
    """

    names: list[str] = field(default_factory=list)
    passed_over: Counter = field(default_factory=Counter)

    def note_beside(self, num_images: int) -> None:
        """Count images that lie beside the folder ``images``."""
        self.passed_over[_BESIDE] += num_images

    def describe_passed_over(self) -> str:
        """What is not looked at, by reason, for the end of a sentence; "" if there is nothing to tell."""
        counts = {reason: count for reason, count in self.passed_over.items() if count}
        endings = {reason: count for reason, count in sorted(counts.items()) if reason not in _WORDS}
        told = [reason for reason in _WORDS if reason in counts]
        texts = [_WORDS[reason][counts[reason] > 1].format(counts[reason]) for reason in told]
        if endings:
            num = sum(endings.values())
            shown = ", ".join(f"{count} {ending}" for ending, count in endings.items())
            texts.append(f"{num} picture{'s' * (num > 1)} of kinds that are not read ({shown}; convert them to JPEG)")
        return "; ".join(texts)


def list_files(root: str, names: Iterable[str], irregular: Iterable[str] = ()) -> Listing:
    """Sort out ``names`` of regular files, relative to ``root``, and ``irregular`` ones of what is no file or folder.

    What this product wrote is no input, or the pictures that a run draws were images of the next one. Hidden files, and
    what is neither picture nor video, are not worth a word.
    """
    listing, marked = Listing(), MarkedFiles()
    for name in sorted(names):
        ending = os.path.splitext(name)[1].lower()
        if is_hidden(name):
            continue
        if is_image_name(name):
            if os.path.join(root, name) in marked:
                listing.passed_over[_OWN] += 1
            else:
                listing.names.append(name)
        elif ending in UNREAD_IMAGE_EXTENSIONS:
            listing.passed_over[ending] += 1
        elif ending in VIDEO_EXTENSIONS:
            listing.passed_over[_OWN if os.path.join(root, name) in marked else _VIDEO] += 1
    for name in irregular:
        if is_dead_link(os.path.join(root, name)):
            listing.passed_over[_DEAD] += not is_hidden(name)
        else:
            listing.passed_over[_SPECIAL] += is_image_name(name)
    return listing


def list_folder(root: str) -> Listing:
    """The images of a folder and its subfolders.

    Raises:
        UserError: a folder cannot be read.
    """
    files = index_folder(root)
    return list_files(root, files.names, files.irregular)


def count_beside(folder: str, chosen: str) -> int:
    """The number of images in ``folder`` that do not lie in its subfolder ``chosen``."""
    try:
        return len(list_files(folder, index_folder(folder, without=chosen).names).names)
    except UserError:
        return 0  # nothing is wanted of it
