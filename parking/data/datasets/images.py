"""List the images for an inference; needs neither torch nor detectron2."""

import glob
import os
from pathlib import Path
from typing import NamedTuple

from parking.data.datasets.file_names import IMAGE_EXTENSIONS, UNREAD_IMAGE_EXTENSIONS, NameIndex, is_image_name
from parking.data.datasets.json_io import find_twice, read_image_records, read_json_object
from parking.data.datasets.listing import Listing, list_files, list_folder
from parking.utils.errors import UserError
from parking.utils.files import describe_missing
from parking.utils.text import join_some, printable

IMAGE_INFO_NAME = "Test_Images_Information.json"
# An error message names up to this many files.
_NUM_EXAMPLES = 3


class ImageList(NamedTuple):
    """The images for an inference.

    Attributes:
        images: one dict for each image, sorted by ``relative_path``: ``file_name`` (path), ``relative_path`` (below the
            folder, with slashes), ``image_id`` (from an image list, or else 1, 2, ... in this order), and ``height``
            and ``width`` if the list has them.
        has_ids: whether the ids are from an image list.
        note: a sentence for the user that says why the ids are not from an image list; "" if they are.
        passed_over: the end of a sentence that says which other files were passed over, and why; "" if none were.
    """

    images: list[dict]
    has_ids: bool
    note: str
    passed_over: str = ""


def list_images(input: str, image_info: str | None = None) -> ImageList:
    """Find the images that ``input`` stands for, with their ids.

    Args:
        input: a folder, searched with its subfolders (only its subfolder ``images``, if there is one); one image file;
            or a glob pattern (``**`` for any number of folders). Hidden files and files without an image's extension
            are not images.
        image_info: the challenge's list of test images. None: look for ``Test_Images_Information.json`` in the folder
            of the images and the two folders above it; a list that names none of the images is ignored.

    Raises:
        UserError: ``input`` is missing or holds no image, two images or two entries of the list have names that differ
            only in case or Unicode form, the list is missing or malformed, it lacks an image, or it has an image that
            is missing in the folder ``input``.
    """
    root, listing = _find_images(input)
    paths, passed_over = listing.names, listing.describe_passed_over()
    records = [{"file_name": str(root / path), "relative_path": path} for path in paths]
    if image_info is not None:
        infos, note = _ImageInfos(image_info), ""
    else:
        infos, note = _find_image_infos(root, paths)
    if infos is None:
        numbered = [{**record, "image_id": i} for i, record in enumerate(records, start=1)]
        return ImageList(numbered, False, note, passed_over)
    return ImageList(_join(records, infos, is_complete=os.path.isdir(input)), True, note, passed_over)


def _find_images(input: str) -> tuple[Path, Listing]:
    """Find the images that ``input`` stands for; return the folder that their paths are relative to, and the images."""
    if os.path.isdir(input):
        folder, listing = list_folder(input)
        root = Path(folder)
    elif os.path.isfile(input):
        root, listing = Path(input).parent, Listing([Path(input).name])
        if os.path.splitext(input)[1].lower() in UNREAD_IMAGE_EXTENSIONS:
            raise UserError(f"'{printable(input)}' is a picture of a kind that is not read; convert it to JPEG.")
        if not is_image_name(input):
            raise UserError(f"'{printable(input)}' is not an image file; known extensions are {_join_extensions()}.")
    elif glob.has_magic(input):
        root = _get_fixed_folder(input)
        if ".." in Path(input).parts[len(root.parts) :]:
            # The output folder holds an image's results under the image's path, and '..' could lead out of the folder.
            raise UserError(f"The glob pattern '{input}' has '..' after a wildcard, which is not allowed.")
        # Folders that match the pattern are not searched.
        found = [path for path in glob.glob(input, recursive=True) if not os.path.isdir(path)]
        names, irregular = (
            [Path(path).relative_to(root).as_posix() for path in found if os.path.isfile(path) is is_regular]
            for is_regular in (True, False)
        )
        listing = list_files(str(root), names, irregular)
    else:
        raise UserError(
            f"The input '{printable(input)}' {describe_missing(input)}; give a folder, an image file or a glob pattern."
        )
    NameIndex(listing.names).check_unambiguous(f"The input '{printable(input)}'")
    if not listing.names:
        others = f", but {listing.describe_passed_over()}" if any(listing.passed_over.values()) else ""
        raise UserError(
            f"The input '{printable(input)}' holds no images{others}; known extensions are {_join_extensions()}."
        )
    return root, listing


def _join_extensions() -> str:
    return ", ".join(sorted(IMAGE_EXTENSIONS))


def _get_fixed_folder(pattern: str) -> Path:
    parts = Path(pattern).parts
    num_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:num_fixed])


class _ImageInfos:
    """The entries of an image list, which can be looked up by the paths of images."""

    def __init__(self, image_info: str):
        self.path = image_info
        records = read_image_records(read_json_object(image_info), image_info)
        self.records = {record["file_name"]: record for record in records}
        if len(self.records) < len(records):
            twice = find_twice(record["file_name"] for record in records)
            raise UserError(f"'{image_info}': the file name '{printable(twice)}' occurs twice.")
        self._names = NameIndex(self.records)
        self._names.check_unambiguous(f"'{image_info}'")

    def find(self, path: str) -> dict | None:
        """Return the entry for ``path``, or else for its name without folders, or else None."""
        name = self._names.find(path) or self._names.find(path.rpartition("/")[2])
        return None if name is None else self.records[name]


def _find_image_infos(root: Path, paths: list[str]) -> tuple[_ImageInfos | None, str]:
    """Return the nearest image list in or above ``root`` that names any of ``paths``, and ""; or None and a reason."""
    folder = root.resolve()
    note = f"There is no image list ({IMAGE_INFO_NAME}) beside or above the images, so they are numbered from 1."
    for candidate in [folder, *folder.parents][:3]:
        image_info = candidate / IMAGE_INFO_NAME
        if image_info.is_file():
            infos = _ImageInfos(str(image_info))
            if any(infos.find(path) for path in paths):
                return infos, ""
            note = f"The image list '{image_info}' names none of the images, so they are numbered from 1."
    return None, note


def _join(records: list[dict], infos: _ImageInfos, *, is_complete: bool) -> list[dict]:
    """Return ``records`` with ids and sizes from ``infos``; ``is_complete``: all entries of ``infos`` must match."""
    found: dict[str, str] = {}
    joined, unlisted = [], []
    for record in records:
        path = record["relative_path"]
        info = infos.find(path)
        if info is None:
            unlisted.append(path)
            continue
        name = info["file_name"]
        if name in found:
            raise UserError(
                f"'{found[name]}' and '{path}' both match '{name}' of the list '{infos.path}'; remove one of them."
            )
        found[name] = path
        joined.append({**record, **{key: value for key, value in info.items() if key != "file_name"}})
    if unlisted:
        raise UserError(
            f"The image list '{infos.path}' lacks {join_some(unlisted, _NUM_EXAMPLES)}; remove these images, or add "
            "them to the list."
        )
    if len({type(image["image_id"]) for image in joined}) > 1:
        raise UserError(f"'{infos.path}': some image ids are numbers and some are texts; give all of them one type.")
    missing = [name for name in infos.records if name not in found]
    if is_complete and missing:
        raise UserError(
            f"The folder lacks {join_some(missing, _NUM_EXAMPLES)} of the image list '{infos.path}'; add them, or give "
            "a glob pattern (such as 'folder/*.png') to process a part of the list."
        )
    return joined
