"""Prepare a training or an evaluation: complete the config, set up logging, check the output folder."""

import logging
import os
import stat
from contextlib import AbstractContextManager
from fnmatch import fnmatch
from pathlib import Path

import torch
from detectron2.utils import comm
from detectron2.utils.collect_env import collect_env_info
from detectron2.utils.env import seed_all_rng

from parking.challenge.registration import register_datasets_from_config
from parking.checkpoint import SECONDS_USED, UNREADABLE_IMAGES, find_training
from parking.config import CfgNode, Task
from parking.inference.models import check_config, resolve_device, resolve_num_classes
from parking.utils.errors import UserError
from parking.utils.files import check_writable, locked, open_atomic
from parking.utils.logs import setup_logging
from parking.utils.marks import OutputFolder
from parking.utils.text import printable

logger = logging.getLogger(__name__)

# How long to wait for the lock: the data workers of a killed training hold it until they notice the kill and end.
_LOCK_SECONDS = 10.0
# Names of a training's files that must be regular files: config.yaml, which is replaced, and the files to which
# detectron2 appends; it would append even to the target of a link.
_REGULAR = ("config.yaml", "log.txt*", "metrics.json")
# Names of all files that a training replaces, appends to or removes, besides checkpoints and weights.
_WRITTEN = (*_REGULAR, "events.out.tfevents.*", UNREADABLE_IMAGES, SECONDS_USED)


def setup_training(cfg: CfgNode, args) -> None:
    """Set up logging, register the data sets of ``cfg``, complete and freeze ``cfg``, and seed the random generators.

    Args:
        args: the arguments of ``train_net.py``, which are logged.

    Raises:
        UserError: a value of the config is wrong.
    """
    setup_logging(cfg.OUTPUT_DIR)
    resolve_device(cfg)
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    register_datasets_from_config(cfg, names)
    resolve_num_classes(cfg, names)
    cfg.freeze()
    _record_run(cfg, args)
    seed_all_rng(None if cfg.SEED < 0 else cfg.SEED + comm.get_rank())
    torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    make_deterministic(cfg.SEED >= 0 and cfg.MODEL.DEVICE.startswith("cuda"))


def _record_run(cfg: CfgNode, args) -> None:
    """Log arguments, environment and config, and write config.yaml.

    Unlike detectron2's ``default_setup``, this never leaves a half-written config.yaml.
    """
    logger.info(f"Process {comm.get_rank()} of {comm.get_world_size()}, started with {args}")
    logger.info(f"Environment:\n{collect_env_info()}")
    logger.info(f"Config:\n{cfg.dump()}")
    if comm.is_main_process():
        with open_atomic(Path(cfg.OUTPUT_DIR, "config.yaml")) as file:
            file.write(cfg.dump().encode())


def make_deterministic(enabled: bool) -> None:
    """Make GPUs compute the same results each time, at the cost of speed; CPUs do so anyway."""
    torch.backends.cudnn.deterministic = enabled
    # Only warn of operations without a deterministic kernel: an error would end a training for differences in rounding.
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # filling costs time and only helps to find bugs
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads this when it starts


def setup_evaluation(cfg: CfgNode) -> None:
    """Set up logging, check the config, and register the data sets to evaluate on; NUM_CLASSES may stay 0."""
    check_config(cfg, Task.EVAL)
    setup_logging()
    resolve_device(cfg)
    # If DATASETS.TEST is empty, evaluate on every data set of DATASETS.COCO.
    cfg.DATASETS.TEST = cfg.DATASETS.TEST or tuple(entry[0] for entry in cfg.DATASETS.COCO)
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name a data set to evaluate on, such as one of DATASETS.COCO.")
    register_datasets_from_config(cfg, cfg.DATASETS.TEST)


def lock_output_dir(output_dir: str) -> AbstractContextManager[None]:
    """Lock the folder, which must exist, against other trainings; raise a UserError if one is using it."""
    busy = f"OUTPUT_DIR {output_dir} is in use by another training; wait for it, or give another OUTPUT_DIR."
    return locked(Path(output_dir, ".training.lock"), busy=busy, max_seconds=_LOCK_SECONDS)


def check_output_dir(output_dir: str, *, may_hold_training: bool) -> None:
    """Make the folder for a training, and check that the training may write to it.

    Args:
        may_hold_training: whether the folder may already hold a training, or files with the names that one writes.

    Raises:
        UserError: the folder cannot be made or holds what it may not, or the config, the log or the metrics in it are a
            link, a FIFO or a device.
    """
    check_writable(output_dir, name="OUTPUT_DIR")
    folder = Path(output_dir)
    # Use iterdir(), because Path.glob() skips dead links; writing to a dead link would create its target.
    for path in sorted(folder.iterdir()):
        is_written = any(fnmatch(path.name, pattern) for pattern in _REGULAR)
        if is_written and not stat.S_ISREG(path.lstat().st_mode):
            raise UserError(f"{printable(path)} is not a regular file, but would be written to; move it away.")
    if find_training(output_dir) and not may_hold_training:
        raise UserError(
            f"OUTPUT_DIR {output_dir} already holds a training; continue it with --resume, replace it with "
            f"--overwrite, or give another OUTPUT_DIR."
        )
    marked = OutputFolder(folder, option="OUTPUT_DIR")
    for pattern in _WRITTEN if not may_hold_training else ():
        found = [path.name for path in sorted(folder.iterdir()) if fnmatch(path.name, pattern)]
        if found and not marked.has_claimed(pattern):
            raise UserError(
                f"OUTPUT_DIR {output_dir} holds '{printable(found[0])}', which is not known to be a training's, and a "
                f"training would replace it; move it away, or give another OUTPUT_DIR (--overwrite replaces it)."
            )


def claim_output_dir(output_dir: str) -> None:
    """Mark the files that trainings write and may remove, in a folder that :func:`check_output_dir` has accepted."""
    OutputFolder(output_dir, option="OUTPUT_DIR").claim(_WRITTEN)
