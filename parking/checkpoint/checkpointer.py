"""Writing checkpoints that survive a kill, and resuming from them."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from detectron2.utils import comm
from torch import nn

from parking.config.compat import upgrade_checkpoint
from parking.utils.errors import UserError
from parking.utils.files import UNFINISHED_ENDING, open_atomic
from parking.utils.text import printable

from .last_checkpoint import LAST, find_last_checkpoint, list_checkpoints
from .loading import check_all_fit
from .values import find_excess
from .weights import torch_load, weights_from_checkpoint

logger = logging.getLogger(__name__)

_REMEDY = "resume from an earlier checkpoint, or start anew with --overwrite"
#: Name of an empty file that is written when a training and its last evaluation have ended.
FINISHED = "finished"
#: Name of a file with the seconds that a training has used so far.
SECONDS_USED = "seconds_used"
#: Name of a file that lists the images that a training left out because they cannot be read.
UNREADABLE_IMAGES = "unreadable_images.txt"


class Checkpointer:
    """Saves and restores a model and named *checkpointables* (anything with ``state_dict`` and ``load_state_dict``).

    This class writes the same files as detectron2's ``DetectionCheckpointer``. That one downloads files, unpickles
    freely, only warns of tensors that do not fit, overwrites files in place, and resumes from the best model. Here,
    instead,

    * a file is written under another name and then renamed: a kill while writing never loses the previous file;
    * it is an error if the folder is removed while the training runs, and the folder is not made again;
    * only :meth:`save_resumable` changes the tag ``last_checkpoint``;
    * only tensors and plain values are read, and a tensor that does not fit is an error.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str,
        *,
        num_to_keep: int = 2,
        extra: dict[str, Any] | None = None,
        **checkpointables: Any,
    ):
        """
        Args:
            model: the bare model, not wrapped for several processes; only the main process writes.
            num_to_keep: how many resumable checkpoints, the newest ones, stay on disk; at least 1.
            extra: plain values that are saved in every file, such as the config.
        """
        if num_to_keep < 1:
            raise ValueError(f"num_to_keep is {num_to_keep}; at least 1 checkpoint must be kept")
        self.model = model
        self.save_dir = Path(save_dir)
        self.checkpointables = checkpointables
        self._num_to_keep = num_to_keep
        self._extra = dict(extra or {})
        self._has_tagged = False
        if comm.is_main_process():
            self.save_dir.mkdir(parents=True, exist_ok=True)
            # Remove the half-written file of a run that was killed; older versions of this project named it ".tmp".
            for ending in (UNFINISHED_ENDING, ".tmp"):
                for path in self.save_dir.glob(f".model_*{ending}"):
                    path.unlink()

    def save_resumable(self, name: str) -> None:
        """Save model and checkpointables as ``name.pth``, tag it as the last checkpoint, and remove the oldest ones.

        All processes must call this method, because a ``state_dict`` may be gathered from all of them.
        """
        data = {"model": self.model.state_dict(), **self._extra}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        if comm.is_main_process():
            self._write(name, data)
            with self._open(self.save_dir / LAST) as f:
                f.write(f"{name}.pth".encode())
            self._has_tagged = True
            self._remove_oldest(keep=f"{name}.pth")

    def save_release(self, name: str, state_dict: dict[str, torch.Tensor], **values: Any) -> None:
        """Save weights for inference as ``name.pth``, with plain ``values`` and nothing that only training needs."""
        if comm.is_main_process():
            self._write(name, {"model": state_dict, **self._extra, **values})

    def read_values(self, name: str) -> dict[str, Any]:
        """Return the ``values`` that :meth:`save_release` wrote into ``name.pth``, or {} if that file is missing."""
        path = self.save_dir / f"{name}.pth"
        if not path.is_file():
            return {}
        return {key: value for key, value in torch_load(path).items() if key != "model"}

    def resume(self, check: Callable[[Mapping[str, Any]], None] = lambda values: None) -> None:
        """Load model and all checkpointables from the file that :func:`find_last_checkpoint` finds.

        Args:
            check: function that is called with the file's ``extra`` values, upgraded to the present version, before
                anything is loaded; it may raise an error.

        Raises:
            UserError: there is no checkpoint, or it is unreadable or belongs to another model.
        """
        path = find_last_checkpoint(self.save_dir)
        if path is None:
            raise UserError(f"OUTPUT_DIR {self.save_dir} holds no checkpoint to resume; start one without --resume.")
        checkpoint = torch_load(path)
        missing = [key for key in ("model", *self.checkpointables) if key not in checkpoint]
        if missing:
            raise UserError(f"{_name(path)} has no {missing[0]!r}; {_REMEDY}.")
        extra = [key for key in self._extra if key in checkpoint]
        kinds = [key for key in extra if type(checkpoint[key]) is not type(self._extra[key])]
        if wrong := kinds or [key for key in extra if find_excess(checkpoint[key])]:
            raise UserError(f"{_name(path)} has {wrong[0]!r} of another kind; {_REMEDY}.")
        with _explaining(path):
            checkpoint = upgrade_checkpoint(checkpoint, f"the checkpoint {printable(path)}")
        check({key: checkpoint[key] for key in extra})
        # Read only the raw weights here; the averaged weights are a checkpointable, which is loaded below.
        weights = weights_from_checkpoint(str(path), {key: checkpoint.get(key) for key in ("model", "config")})
        check_all_fit(weights.state_dict, self.model.state_dict(), weights)
        self.model.load_state_dict(weights.state_dict)
        with _explaining(path):
            for key, obj in self.checkpointables.items():
                obj.load_state_dict(checkpoint[key])
        logger.info(f"Resumed from {printable(path)}")

    def _write(self, name: str, data: dict[str, Any]) -> None:
        path = self.save_dir / f"{name}.pth"
        with self._open(path) as f:
            _save(data, f)
        logger.info(f"Saved {path}")

    @contextmanager
    def _open(self, path: Path) -> Iterator[BinaryIO]:
        if not self.save_dir.is_dir() or (self._has_tagged and not (self.save_dir / LAST).exists()):
            raise UserError(
                f"OUTPUT_DIR {self.save_dir} was removed or emptied while the training ran; start the training again."
            )
        try:
            with open_atomic(path, makes_folder=False) as f:
                yield f
        except OSError as e:
            raise UserError(
                f"{path} cannot be written ({e.strerror or e}); make room and go on with --resume: the "
                f"checkpoint before it is intact."
            ) from e

    def _remove_oldest(self, keep: str) -> None:
        # Keep the checkpoint just written even if an older run left checkpoints with higher numbers.
        for path in list_checkpoints(self.save_dir)[: -self._num_to_keep]:
            if path.name != keep:
                path.unlink()


def _name(path: Path) -> str:
    return f"the checkpoint {printable(path)} cannot be resumed: it"


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Turn any exception from loading a foreign or damaged checkpoint into a UserError of one sentence."""
    try:
        yield
    except ValueError as e:
        raise UserError(f"{_name(path)} {printable(str(e)[:200])}; {_REMEDY}.") from e
    except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, OverflowError) as e:
        raise UserError(
            f"{_name(path)} holds the state of another kind of training ({type(e).__name__}: "
            f"{printable(str(e)[:100])}); {_REMEDY}."
        ) from e


def _save(data: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(data, file)
    except RuntimeError as e:
        # If anything interrupts torch.save (a full disk, a dead data worker, Ctrl-C), it raises a RuntimeError about
        # the file's missing end. The exception that interrupted it is the error's context: raise that instead.
        raise e.__context__ or e from None


def remove_training(output_dir: str, *, keep_time: bool = False) -> None:
    """Remove checkpoints and curves of an earlier training from ``output_dir``; nothing else there is touched.

    Call this in all processes, and only when the new training is ready to start, so that a mistake in its config
    removes nothing.

    Args:
        keep_time: whether the record of the time used stays: the same training goes on, but has no checkpoint yet.
    """
    if not comm.is_main_process():
        return
    folder = Path(output_dir)
    for path in [*find_training(output_dir), *folder.glob("events.out.tfevents.*")]:
        path.unlink()
    (folder / UNREADABLE_IMAGES).unlink(missing_ok=True)
    if not keep_time:
        (folder / SECONDS_USED).unlink(missing_ok=True)
    # Empty the curves instead of removing their file, because the new training may already have opened it.
    if (folder / "metrics.json").exists():
        os.truncate(folder / "metrics.json", 0)


def find_training(output_dir: str) -> list[Path]:
    """Return the checkpoints, weights, ``last_checkpoint`` and ``finished`` that a training left in ``output_dir``."""
    folder = Path(output_dir)
    others = [folder / name for name in (LAST, FINISHED, "model_best.pth", "model_final.pth")]
    return sorted([*list_checkpoints(folder), *(path for path in others if os.path.lexists(path))])
