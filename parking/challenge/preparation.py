"""Unpacks the challenge's zips to the layout of ``datasets/README.md``; needs neither torch nor detectron2."""

import errno
import fcntl
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from parking.data.datasets.file_names import index_folder, name_key
from parking.data.datasets.images import IMAGE_INFO_NAME
from parking.utils.errors import UserError
from parking.utils.files import wait_for_lock
from parking.utils.text import printable

from .archive import Archive, Member, is_macos_litter, open_zip, read_archive, read_member

FOLDERS = ("train", "test")
_TRAIN_JSON = "train/label/Train.json"
# Unpacking must leave _SPARE_BYTES free on the disk. A file may take _BYTES_PER_FILE there in addition to its content.
_SPARE_BYTES, _BYTES_PER_FILE = 10**9, 8192
_CHUNK = 1 << 20


class Part(NamedTuple):
    """One of the data's folders ``train`` and ``test``, and the zip that it is unpacked from.

    Attributes:
        folder: where the data belong; may not exist yet.
        archive: the content of its zip; None if there is no zip.
    """

    folder: Path
    archive: Archive | None

    @property
    def is_unpacked(self) -> bool:
        return self.folder.is_dir()

    @property
    def staging(self) -> Path:
        """The hidden folder beside ``folder`` to which the zip is unpacked; renamed to ``folder`` when complete."""
        return self.folder.with_name(f".{self.folder.name}.unpacking")


def find_parts(data_dir: str | os.PathLike) -> list[Part]:
    """Find the parts whose folder or zip exists, and check the zips' lists of contents; nothing is written.

    Raises:
        UserError: ``data_dir`` does not exist; a zip is unusable (see :func:`read_archive`) or lacks what its folder
            needs; or the name of a folder is taken by something else.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"The folder '{data_dir}' does not exist; --data-dir names the one with train.zip or train/.")
    parts = []
    for name in FOLDERS:
        folder, file = data_dir / name, data_dir / f"{name}.zip"
        if os.path.lexists(folder) and not folder.is_dir():
            raise UserError(f"'{folder}' must be a folder, but is a file or a broken link; move it away.")
        archive = read_archive(file, leading_folder=name) if os.path.lexists(file) else None
        if archive:
            _check_content(archive, name)
        if archive or folder.is_dir():
            parts.append(Part(folder, archive))
    return parts


def check_disk(parts: Sequence[Part]) -> None:
    """Raise a UserError if the disk has no room for the files left to unpack, or if a staging folder is unusable."""
    waiting = [part for part in parts if not part.is_unpacked]
    if not waiting:
        return
    sizes = [member.size for part in waiting for member in _list_absent(part)]
    needed = sum(size + _BYTES_PER_FILE for size in sizes)
    free = shutil.disk_usage(waiting[0].folder.parent).free
    if needed and needed + _SPARE_BYTES > free:
        raise UserError(
            f"The disk of '{waiting[0].folder.parent}' has {format_size(free)} free, but unpacking takes another "
            f"{format_size(needed)} and should leave {format_size(_SPARE_BYTES)}; free "
            f"{format_size(needed + _SPARE_BYTES - free)} and run this again."
        )


def unpack(part: Part, progress: Callable[[int], object] = lambda num_bytes: None) -> int:
    """Unpack the zip of a part whose folder does not exist.

    Each file is written whole or not at all, into ``part.staging``, which is renamed to ``part.folder`` at the very
    end. After an interruption, even a power failure, the next run keeps files of the right size and checksum.

    Args:
        progress: called with the number of bytes done, ``part.archive.size`` in all.

    Returns:
        Number of files that an earlier, interrupted run had unpacked.

    Raises:
        UserError: the zip is damaged, the folder cannot be written, another process is unpacking the same, or the
            staging folder holds a file that the zip lacks.
    """
    num_kept = 0
    _list_absent(part)  # raises a UserError if the staging folder holds a file that the zip lacks
    with _explain_os_errors(part), _locked(part.staging), open_zip(part.archive.file) as opened:
        # The half-written file lies beside the staging folder, where no member of the zip can have the same name.
        half_file = part.staging.with_name(f"{part.staging.name}.part")
        for member in part.archive.members:
            path = part.staging / member.path
            if _is_intact(path, member):
                num_kept += 1
                progress(member.size)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            half_file.unlink(missing_ok=True)  # a run that was killed may have left a half-written file
            try:
                with open(half_file, "xb") as file:
                    for chunk in read_member(part.archive, opened, member):
                        file.write(chunk)
                        progress(len(chunk))
                os.replace(half_file, path)
            finally:
                half_file.unlink(missing_ok=True)
        # Wait for the disk only once, after the last file. If the power fails earlier, the next run finds lost data by
        # their checksums.
        os.sync()
        os.rename(part.staging, part.folder)
    return num_kept


def compare(part: Part) -> tuple[list[str], list[str], int]:
    """Compare the names and sizes in an unpacked folder with its zip, regardless of the names' case and Unicode form.

    Returns:
        The files of the zip that the folder lacks, the files whose size differs, and the number of files that only
        the folder has; paths are relative to the folder and sorted.

    Raises:
        UserError: a folder cannot be read, or folders are nested too deep.
    """
    names = [name for name in index_folder(str(part.folder)).names if not is_macos_litter(name)]
    sizes = {name_key(name): os.stat(part.folder / name).st_size for name in names}
    expected = {name_key(member.path): member for member in part.archive.members}
    missing = sorted(member.path for key, member in expected.items() if key not in sizes)
    differing = sorted(member.path for key, member in expected.items() if sizes.get(key, member.size) != member.size)
    return missing, differing, len(sizes.keys() - expected.keys())


def find_layout_problems(data_dir: str | os.PathLike) -> list[str]:
    """Return a sentence for each part that ``data_dir`` lacks of the layout described in ``datasets/README.md``."""
    data_dir = Path(data_dir)
    problems = []
    for name in FOLDERS:
        images = data_dir / name / "images"
        if not (data_dir / name).is_dir():
            problems.append(f"There is neither '{data_dir / name}' nor '{data_dir / name}.zip'.")
        elif not images.is_dir() or not any(images.iterdir()):
            problems.append(f"The folder of images '{images}' is missing or empty.")
    if (data_dir / "train").is_dir() and not (data_dir / _TRAIN_JSON).is_file():
        problems.append(f"The labels '{data_dir / _TRAIN_JSON}' are missing.")
    if not (data_dir / IMAGE_INFO_NAME).is_file():
        problems.append(f"The list of test images '{data_dir / IMAGE_INFO_NAME}' is missing.")
    return problems


def format_size(num_bytes: int) -> str:
    """The size as a text in GB (10^9 bytes), or in MB (10^6 bytes) if it is below 0.1 GB."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def _check_content(archive: Archive, name: str) -> None:
    """Raise a UserError if the zip lacks a file or folder that the layout needs; called before the long unpacking."""
    paths = [member.path for member in archive.members]
    wanted = ["images/"] + ([_TRAIN_JSON.removeprefix("train/")] if name == "train" else [])
    for start in wanted:
        if not any(path.startswith(start) for path in paths):
            tops = sorted({path.split("/")[0] for path in paths})
            found = ", ".join(tops[:5]) + (" ..." if len(tops) > 5 else "") if tops else "nothing"
            raise UserError(
                f"'{archive.file}' must hold '{start}', at its top or in a folder '{name}', but holds: {found}; see "
                "datasets/README.md for the layout."
            )


def _list_absent(part: Part) -> list[Member]:
    """The members that the staging folder lacks or holds in another size.

    Raises:
        UserError: the staging folder holds a file that the zip lacks, or is not a folder.
    """
    staging = part.staging
    if not os.path.lexists(staging):
        return part.archive.members
    if staging.is_symlink() or not staging.is_dir():
        raise UserError(f"'{staging}' must be a folder of this tool, but is a file or a link; move it away.")
    sizes = {}
    for above, folders, files in os.walk(staging):
        links = [name for name in folders if os.path.islink(os.path.join(above, name))]
        for path in (Path(above, name) for name in [*files, *links]):
            if not is_macos_litter(name := path.relative_to(staging).as_posix()):
                sizes[name] = path.lstat().st_size
    strangers = sorted(sizes.keys() - {member.path for member in part.archive.members})
    if strangers:
        raise UserError(
            f"'{staging}', left by an interrupted run, holds '{strangers[0]}', which '{part.archive.file}' does not: "
            f"was the zip replaced? Remove the folder (rm -r '{staging}') and run this again."
        )
    return [member for member in part.archive.members if sizes.get(member.path) != member.size]


def _is_intact(path: Path, member: Member) -> bool:
    if not path.is_file() or path.stat().st_size != member.size:
        return False
    crc = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            crc = zlib.crc32(chunk, crc)
    return crc == member.info.CRC


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make ``folder`` if it is missing and lock it; raise a UserError if another process has locked it."""
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    busy = f"Another process is unpacking to '{printable(folder)}'; wait until it is done."
    try:
        wait_for_lock(descriptor, fcntl.LOCK_EX, path=folder, busy=busy, max_seconds=0)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _explain_os_errors(part: Part) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        reason = f"{e.strerror or e}{f' ({e.filename})' if e.filename else ''}; correct that"
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full; free some space"
        raise UserError(
            f"'{part.archive.file}' could not be unpacked to '{part.folder}': {reason} and run this again; it goes on "
            "where it stopped."
        ) from e
