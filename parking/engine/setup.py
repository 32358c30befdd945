"""From what the user typed to a configuration that can run."""

import logging
import os
from pathlib import Path

import torch
from detectron2.data import MetadataCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from parking.checkpoint import Weights, find_weights, read_weights
from parking.config import CfgNode, get_cfg
from parking.data.datasets.builtin import register_datasets_from_config
from parking.utils.errors import UserError

logger = logging.getLogger(__name__)


def setup_logging(output_dir: str | None = None) -> None:
    """Log to stdout on the main process and, given a folder, to ``log.txt`` (``log.txt.rankN``) there."""
    rank = comm.get_rank()
    # The calls must be spelled as in detectron2's default_setup: they are cached by their arguments, and another
    # spelling adds handlers that print every line twice.
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    setup_logger(output_dir, distributed_rank=rank, name="parking")


def setup_training(args, *, overwrite: bool = False) -> CfgNode:
    """The frozen config of ``train_net.py``'s arguments, with data sets registered, logging set up, RNGs seeded.

    Raises:
        UserError: something in the config is wrong, or OUTPUT_DIR already holds a training.
    """
    cfg = get_cfg()
    cfg.merge_from_file(args.config_file)
    cfg.merge_from_list(args.opts)
    if not args.eval_only:
        check_output_dir(cfg.OUTPUT_DIR, resume=args.resume, overwrite=overwrite)
        comm.synchronize()  # no process may write the first file before all have looked
        setup_logging(cfg.OUTPUT_DIR)
    else:
        setup_logging()
    resolve_device(cfg)
    register_datasets_from_config(cfg)
    resolve_num_classes(cfg, (cfg.DATASETS.TEST if args.eval_only else cfg.DATASETS.TRAIN)[:1])
    cfg.freeze()
    if not args.eval_only:
        default_setup(cfg, args)
    return cfg


def check_output_dir(output_dir: str, *, resume: bool, overwrite: bool) -> None:
    """Raise a UserError when a new training would mix with an old one; ``overwrite`` removes the old checkpoints."""
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"OUTPUT_DIR {output_dir} is a file; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"OUTPUT_DIR {output_dir} cannot be made ({e.strerror}); give a folder you can write to."
        ) from e
    if resume:
        return
    old = [*folder.glob("model_*.pth"), *folder.glob("last_checkpoint")]
    if old and not overwrite:
        raise UserError(
            f"OUTPUT_DIR {output_dir} already holds a training; continue it with --resume, replace it with "
            f"--overwrite, or give another OUTPUT_DIR."
        )
    if comm.is_main_process():
        # Curves of two trainings in one file could not be told apart.
        for path in [*old, *folder.glob("metrics.json"), *folder.glob("events.out.tfevents.*")]:
            path.unlink()


def resolve_device(cfg: CfgNode) -> None:
    """Fall back to the CPU, with one message, where the config asks for a GPU and there is none."""
    if cfg.MODEL.DEVICE.startswith("cuda") and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
        if comm.is_main_process():
            logger.info("No GPU found: running on the CPU.")


def resolve_num_classes(cfg: CfgNode, dataset_names) -> None:
    """Set NUM_CLASSES 0 to as many as the data set has; raise a UserError where another number contradicts it."""
    for name in dataset_names:
        num_classes = len(MetadataCatalog.get(name).thing_classes)
        if cfg.MODEL.YOLO.NUM_CLASSES == 0:
            cfg.MODEL.YOLO.NUM_CLASSES = num_classes
        elif num_classes != cfg.MODEL.YOLO.NUM_CLASSES:
            raise UserError(
                f"MODEL.YOLO.NUM_CLASSES is {cfg.MODEL.YOLO.NUM_CLASSES}, but the data set {name} has {num_classes} "
                f"classes; set it to {num_classes}, or to 0 to follow the data set."
            )


def find_config_and_weights(
    config_file: str | None, weights_file: str | None, opts: list[str], *, default_config: str | os.PathLike
) -> tuple[CfgNode, Weights]:
    """What inference shall run, from a config file, a weights file, both or neither.

    The config is that of ``config_file``, else the one ``weights_file`` carries, else ``default_config``. The weights
    are ``weights_file``, else MODEL.WEIGHTS of ``opts``, else the best of the config's OUTPUT_DIR, else its
    MODEL.WEIGHTS.

    Returns:
        The config (not frozen; device and number of classes resolved) and the weights.
    """
    cfg = get_cfg()
    weights = None
    if weights_file and not config_file:
        weights = read_weights(weights_file)
        if weights.config is None:
            raise UserError(f"weights {weights_file} carry no config; give it with --config-file.")
        cfg.merge_from_dict(weights.config, source=f"the config in {weights_file}")
    else:
        cfg.merge_from_file(config_file or os.fspath(default_config))
    cfg.merge_from_list(opts)
    if weights is None:
        named = cfg.MODEL.WEIGHTS if "MODEL.WEIGHTS" in opts[0::2] else None
        path = weights_file or named or find_weights(cfg.OUTPUT_DIR) or cfg.MODEL.WEIGHTS
        if not path:
            raise UserError(
                f"no weights: OUTPUT_DIR {cfg.OUTPUT_DIR} of the config holds none; train first or give --weights FILE."
            )
        weights = read_weights(path)
    resolve_device(cfg)
    if cfg.MODEL.YOLO.NUM_CLASSES == 0 and weights.class_names:
        cfg.MODEL.YOLO.NUM_CLASSES = len(weights.class_names)
    return cfg, weights
