"""List the images of a folder, and count the files that are passed over, by reason."""

import os
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
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
# Reason -> how a message names a single file, and several files.
_WORDS = {
    _OWN: ("1 result that this product wrote", "{} results that this product wrote"),
    _VIDEO: ("1 video (--input VIDEO takes one)", "{} videos (--input VIDEO takes one)"),
    _DEAD: ("1 link that leads nowhere", "{} links that lead nowhere"),
    _SPECIAL: ("1 pipe or device with a picture's name", "{} pipes or devices with a picture's name"),
    _BESIDE: ("1 picture beside the folder images", "{} pictures beside the folder images"),
}


@dataclass
class Listing:
    """The images below a folder, and how many other files were passed over.

    Attributes:
        names: paths of the images relative to the folder, sorted.
        passed_over: reason -> number of files passed over. For a picture of a kind that is not read, it is the ending.
    """

    names: list[str] = field(default_factory=list)
    passed_over: Counter = field(default_factory=Counter)

    def describe_passed_over(self) -> str:
        """Return words that say how many files were passed over, and why; "" if none were."""
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
    """List the images among the regular files ``names``, relative to ``root``, and count the files passed over.

    Files that this product wrote are passed over; otherwise a run would read pictures that an earlier run has drawn.
    Hidden files, and files that are neither pictures nor videos, are not counted.

    Args:
        irregular: names of entries that are neither files nor folders, such as dead links.
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


def list_folder(folder: str) -> tuple[str, Listing]:
    """List the images of a folder and its subfolders, or of its subfolder ``images`` alone if there is one.

    Returns:
        The folder or its ``images``, and the listing.

    Raises:
        UserError: a folder cannot be read.
    """
    root = os.path.join(folder, "images")
    if not os.path.isdir(root):
        root = folder
    files = index_folder(root)
    listing = list_files(root, files.names, files.irregular)
    if root != folder:
        with suppress(UserError):  # what lies beside ``images`` need not be readable
            listing.passed_over[_BESIDE] = len(list_files(folder, index_folder(folder, without="images").names).names)
    return root, listing
