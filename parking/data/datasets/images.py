"""Listing the images for an inference; needs neither torch nor detectron2."""

import glob
import os
from pathlib import Path
from typing import NamedTuple

from parking.data.datasets.json_io import read_image_records, read_json_object
from parking.utils.errors import UserError

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff"})
IMAGE_INFO_NAME = "Test_Images_Information.json"
# File names that an error message lists before it only counts.
_NUM_EXAMPLES = 3


class ImageList(NamedTuple):
    """The images for an inference.

    Attributes:
        images: sorted by ``relative_path``, per image: ``file_name`` (path), ``relative_path`` (below the folder, with
            slashes), ``image_id`` (the list's, else 1, 2, ... in this order), and ``height`` and ``width`` if the list
            has them.
        has_ids: whether the ids are those of a list.
        note: a sentence for the user: why they are not; else empty.
    """

    images: list[dict]
    has_ids: bool
    note: str


def list_images(input: str, image_info: str | None = None) -> ImageList:
    """Find the images that ``input`` stands for, with their ids.

    Args:
        input: a folder, searched with its subfolders (its subfolder ``images`` instead, where there is one); one
            image file; or a glob pattern (``**`` for any number of folders). Hidden files, whose name starts with a
            dot, and files without an image's extension are not images.
        image_info: the challenge's list of test images. None: ``Test_Images_Information.json`` in the folder of the
            images, the one above or the one above that, unless it names none of the images.

    Raises:
        UserError: ``input`` is missing or holds no image, the list is missing or malformed, an image is not in it,
            or, where ``input`` is a folder, an image in the list is not in the folder.
    """
    root, paths = _find_images(input)
    records = [{"file_name": str(root / path), "relative_path": path} for path in paths]
    if image_info is not None:
        infos, note = _read_image_info(image_info), ""
    else:
        image_info, infos, note = _find_image_info(root, paths)
    if infos is None:
        return ImageList([{**record, "image_id": i} for i, record in enumerate(records, start=1)], False, note)
    return ImageList(_join(records, infos, image_info, is_complete=os.path.isdir(input)), True, note)


def _find_images(input: str) -> tuple[Path, list[str]]:
    """The folder, and the sorted relative paths of the images below it."""
    if os.path.isdir(input):
        root = Path(input, "images") if Path(input, "images").is_dir() else Path(input)
        files = [Path(folder, name) for folder, _, names in os.walk(root) for name in names]
    elif os.path.isfile(input):
        root, files = Path(input).parent, [Path(input)]
        if not _is_image(files[0]):
            raise UserError(f"'{input}' is not an image file; known extensions are {_join_extensions()}.")
    elif glob.has_magic(input):
        root = _get_fixed_folder(input)
        if ".." in Path(input).parts[len(root.parts) :]:
            # Results are laid out like the paths below the folder, and must not climb out of theirs.
            raise UserError(f"The glob pattern '{input}' goes up with '..' after a wildcard; write it without.")
        files = [path for path in map(Path, glob.glob(input, recursive=True)) if path.is_file()]
    else:
        raise UserError(f"The input '{input}' does not exist; give a folder, an image file or a glob pattern.")
    paths = sorted(path.relative_to(root).as_posix() for path in files if _is_image(path))
    if not paths:
        raise UserError(f"The input '{input}' holds no images; known extensions are {_join_extensions()}.")
    return root, paths


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS and not path.name.startswith(".")


def _join_extensions() -> str:
    return ", ".join(sorted(IMAGE_EXTENSIONS))


def _get_fixed_folder(pattern: str) -> Path:
    parts = Path(pattern).parts
    num_fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:num_fixed])


def _find_image_info(root: Path, paths: list[str]) -> tuple[str | None, dict[str, dict] | None, str]:
    """The list that names any of the images and its content, with an empty note; or None twice, noting why."""
    folder = root.resolve()
    note = f"There is no image list ({IMAGE_INFO_NAME}) beside or above the images, so they are numbered from 1."
    for candidate in [folder, *folder.parents][:3]:
        image_info = candidate / IMAGE_INFO_NAME
        if image_info.is_file():
            infos = _read_image_info(str(image_info))
            if any(_look_up(infos, path) for path in paths):
                return str(image_info), infos, ""
            note = f"The image list '{image_info}' names none of the images, so they are numbered from 1."
    return None, None, note


def _read_image_info(image_info: str) -> dict[str, dict]:
    infos, ids = {}, set()
    for info in read_image_records(read_json_object(image_info), image_info):
        if info["file_name"] in infos or info["image_id"] in ids:
            raise UserError(f"'{image_info}': the file name '{info['file_name']}' or its image id occurs twice.")
        infos[info["file_name"]] = info
        ids.add(info["image_id"])
    return infos


def _look_up(infos: dict[str, dict], path: str) -> dict | None:
    return infos.get(path) or infos.get(path.rsplit("/", 1)[-1])


def _join(records: list[dict], infos: dict[str, dict], image_info: str, *, is_complete: bool) -> list[dict]:
    """Add ids and sizes to ``records``; ``is_complete`` demands all of ``infos``."""
    found: dict[str, str] = {}
    joined, unlisted = [], []
    for record in records:
        path = record["relative_path"]
        info = _look_up(infos, path)
        if info is None:
            unlisted.append(path)
            continue
        name = info["file_name"]
        if name in found:
            raise UserError(f"'{found[name]}' and '{path}' are both '{name}' in '{image_info}'; remove one of them.")
        found[name] = path
        joined.append({**record, **{key: value for key, value in info.items() if key != "file_name"}})
    if unlisted:
        raise UserError(
            f"Not in the image list '{image_info}': {_name_some(unlisted)}; remove them, or correct the list."
        )
    missing = [name for name in infos if name not in found]
    if is_complete and missing:
        raise UserError(
            f"In the image list '{image_info}', but not in the folder: {_name_some(missing)}; add them, or give a glob "
            "pattern (such as 'folder/*.png') to process a part of the list."
        )
    return joined


def _name_some(names: list[str]) -> str:
    rest = len(names) - _NUM_EXAMPLES
    return ", ".join(names[:_NUM_EXAMPLES]) + (f" and {rest} more" if rest > 0 else "")
