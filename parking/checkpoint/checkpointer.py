"""detectron2's checkpointer, made atomic, strict and bounded."""

import os
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from parking.utils.errors import UserError
from parking.utils.files import open_atomic

from .weights import load_weights, torch_load, weights_from_checkpoint


class Checkpointer(DetectionCheckpointer):
    """Like ``DetectionCheckpointer``, with these differences.

    * Files are written beside their final name and then renamed: a kill while writing never loses the previous one.
    * Only :meth:`save_resumable` moves ``last_checkpoint``, so that a saved best model never becomes what is resumed.
    * Loading reads tensors and plain values only (``weights_only``), and a tensor that does not fit is an error.
    """

    def __init__(
        self, model, save_dir: str = "", *, num_to_keep: int = 2, extra: dict[str, Any] | None = None, **kwargs
    ):
        """
        Args:
            num_to_keep: newest resumable checkpoints that stay on disk, at least 1.
            extra: plain values that every file carries, such as the config.
        """
        super().__init__(model, save_dir, **kwargs)
        if num_to_keep < 1:
            raise UserError(f"SOLVER.CHECKPOINTS_TO_KEEP is {num_to_keep}; at least 1 checkpoint must be kept.")
        self._num_to_keep = num_to_keep
        self._extra = dict(extra or {})

    def save_resumable(self, name: str) -> None:
        """Save model and all checkpointables as ``name.pth``, tag it as the last and remove the oldest ones."""
        data = {"model": self.model.state_dict(), **self._extra}
        data |= {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        if self._write(name, data):
            self.tag_last_checkpoint(f"{name}.pth")
            self._remove_old(keep=f"{name}.pth")

    def save_release(self, name: str, state_dict: dict[str, torch.Tensor], **values: Any) -> None:
        """Save weights for inference as ``name.pth``, with plain ``values`` and nothing that only training needs."""
        self._write(name, {"model": state_dict, **self._extra, **values})

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with open_atomic(Path(self.save_dir, "last_checkpoint")) as f:
            f.write(last_filename_basename.encode())

    def resume(self) -> None:
        """Load model and all checkpointables from what ``last_checkpoint`` names.

        Raises:
            UserError: there is none, it is unreadable, or it belongs to another model.
        """
        path = self.get_checkpoint_file()
        if not path or not os.path.isfile(path):
            raise UserError(f"OUTPUT_DIR {self.save_dir} holds no checkpoint to resume; start one without --resume.")
        checkpoint = torch_load(path)
        missing = [key for key in ("model", *self.checkpointables) if key not in checkpoint]
        if missing:
            raise UserError(f"{path} cannot be resumed: it has no {missing[0]!r}; start anew with --overwrite.")
        # The raw weights: the average is a checkpointable of its own.
        load_weights(self.model, weights_from_checkpoint(path, {"model": checkpoint["model"]}))
        for key, obj in self.checkpointables.items():
            obj.load_state_dict(checkpoint[key])
        self.logger.info(f"Resumed from {path}")

    def _write(self, name: str, data: dict[str, Any]) -> bool:
        if not self.save_dir or not self.save_to_disk:
            return False
        path = Path(self.save_dir, f"{name}.pth")
        with open_atomic(path) as f:
            torch.save(data, f)
        self.logger.info(f"Saved {path}")
        return True

    def _remove_old(self, keep: str) -> None:
        # Zero-padded iterations sort by age; the one just written stays even where an older run left higher numbers.
        old = sorted(Path(self.save_dir).glob("model_[0-9]*.pth"))
        for path in old[: -self._num_to_keep]:
            if path.name != keep:
                path.unlink()
