"""Finds the last checkpoint of a training by the file ``last_checkpoint``, which users may have edited."""

import os
import re
from pathlib import Path

from parking.utils.errors import UserError
from parking.utils.files import read_regular
from parking.utils.limits import MAX_NOTE_BYTES
from parking.utils.text import printable

#: The file that names the last checkpoint.
LAST = "last_checkpoint"
_CHECKPOINT = re.compile(r"model_[0-9]{7,12}\.pth", re.ASCII)


def list_checkpoints(folder: str | os.PathLike) -> list[Path]:
    """The files in ``folder`` that a training saved to resume from, oldest first."""
    if not os.path.isdir(folder):
        return []
    found = [path for path in Path(folder).iterdir() if _CHECKPOINT.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("model_")))


def find_last_checkpoint(output_dir: str | os.PathLike) -> Path | None:
    """The checkpoint to resume from: the one that the file ``last_checkpoint`` names, else the newest; None if none.

    The file ``last_checkpoint`` is missing if a training was killed right after it wrote its first checkpoint, which
    is complete.

    Raises:
        UserError: ``last_checkpoint`` does not name a checkpoint in its folder.
    """
    folder = Path(output_dir)
    tag = folder / LAST
    checkpoints = list_checkpoints(folder)
    if not os.path.lexists(tag):
        return checkpoints[-1] if checkpoints else None
    name, problem = _read_tag(tag)
    if problem is None and (folder / name).is_file():
        return folder / name
    problem = problem or f"it names {name}, which is not there"
    if checkpoints:
        remedy = f"delete it, and the newest checkpoint there, {checkpoints[-1].name}, counts as the last"
    else:
        remedy = "there is no other checkpoint: put it back, or delete this file and start anew with --overwrite"
    raise UserError(f"{printable(tag)} is damaged: {problem}; {remedy}.")


def _read_tag(tag: Path) -> tuple[str, str | None]:
    """Return the checkpoint that the file ``tag`` names, and None; or "" and what is wrong with the file."""
    try:
        text = read_regular(tag, max_bytes=MAX_NOTE_BYTES).decode("utf-8").strip()
    except UnicodeDecodeError:
        return "", "it holds no text"
    except OSError as e:
        return "", f"it cannot be read ({e.strerror})"
    except UserError:
        return "", "it is larger than such a file ever is"
    if not _CHECKPOINT.fullmatch(text):
        shown = f"'{printable(text[:60])}' instead of a name such as model_0001234.pth" if text else "nothing"
        return "", f"it says {shown}"
    return text, None
