"""From what the user typed to a configuration that can run."""

import logging
import os
import stat
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.data import MetadataCatalog
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from parking.challenge.registration import find_category_ids, register_datasets_from_config
from parking.checkpoint import (
    SECONDS_USED,
    UNREADABLE_IMAGES,
    Weights,
    check_all_fit,
    distinct_names,
    find_misfits,
    find_training,
    find_weights,
    read_weights,
    shorten,
)
from parking.config import CfgNode, Task, get_cfg, get_typed, typed_keys
from parking.config.checks import check_values
from parking.data.datasets.coco import original_category_ids
from parking.modeling.registered import list_registered
from parking.utils.class_names import find_classes
from parking.utils.errors import UserError
from parking.utils.files import locked
from parking.utils.logs import make_logs_printable
from parking.utils.marks import OutputFolder
from parking.utils.text import printable

from .predictor import build_model, find_size_divisibility
from .resume import flatten
from .stages import last_stage_with_weights, read_stages

logger = logging.getLogger(__name__)

# Data workers of a training that was killed share its lock, and take up to this many seconds to notice and end.
_LOCK_SECONDS = 10.0
# Files of a training that detectron2 opens itself, to write or append.
_WRITTEN_IN_PLACE = ("config.yaml", "log.txt*", "metrics.json")
# What a training replaces, appends to or removes, beside checkpoints and weights.
_WRITTEN = (*_WRITTEN_IN_PLACE, "events.out.tfevents.*", UNREADABLE_IMAGES, SECONDS_USED)


def setup_logging(output_dir: str | None = None) -> None:
    """Log to stdout on the main process and, given a folder, to ``log.txt`` (``log.txt.rankN``) there."""
    make_logs_printable()
    rank = comm.get_rank()
    # Those of an earlier stage would go on writing to its file.
    setup_logger.cache_clear()
    for name in ("fvcore", "detectron2", "parking"):
        logging.getLogger(name).handlers.clear()
    # The calls must be spelled as in detectron2's default_setup: they are cached by their arguments, and another
    # spelling adds handlers that print every line twice.
    setup_logger(output_dir, distributed_rank=rank, name="fvcore")
    setup_logger(output_dir, distributed_rank=rank)
    setup_logger(output_dir, distributed_rank=rank, name="parking")


def setup_training(cfg: CfgNode, args) -> None:
    """Register the data sets of ``cfg``, set logging up, seed the RNGs, and freeze ``cfg``, which is then complete.

    Args:
        args: of ``train_net.py``; they are logged.

    Raises:
        UserError: something in the config is wrong.
    """
    setup_logging(cfg.OUTPUT_DIR)
    resolve_device(cfg)
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    register_datasets_from_config(cfg, names)
    resolve_num_classes(cfg, names)
    cfg.freeze()
    default_setup(cfg, args)
    make_deterministic(cfg.SEED >= 0 and cfg.MODEL.DEVICE.startswith("cuda"))


def make_deterministic(enabled: bool) -> None:
    """Have a GPU compute the same each time, which costs speed there; the CPU does anyway."""
    torch.backends.cudnn.deterministic = enabled
    # Only warnings for what has no such kernel: errors would end a training that is repeatable but for rounding.
    torch.use_deterministic_algorithms(enabled, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # a check for bugs, which costs time
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts


def setup_evaluation(cfg: CfgNode) -> None:
    """Register the data sets to evaluate on and set logging up; for NUM_CLASSES see :func:`choose_eval_classes`."""
    check_config(cfg, Task.EVAL)
    setup_logging()
    resolve_device(cfg)
    # Where the config names no data set for it, what DATASETS.COCO lists is what there is to evaluate on.
    cfg.DATASETS.TEST = cfg.DATASETS.TEST or tuple(entry[0] for entry in cfg.DATASETS.COCO)
    if not cfg.DATASETS.TEST:
        raise UserError("DATASETS.TEST is empty; name a data set to evaluate on, such as one of DATASETS.COCO.")
    register_datasets_from_config(cfg, cfg.DATASETS.TEST)


def check_config(cfg: CfgNode, task: Task, *, sources: Mapping[str, str] | None = None) -> None:
    """Raise a UserError for values that cannot work in ``task``, before anything is read or written.

    Args:
        cfg: not changed; NUM_CLASSES may be 0.
        sources: see :func:`parking.config.checks.check_values`.
    """
    _check_table(cfg, task, sources)
    # Whether its parts fit together, their constructors tell.
    stride = find_size_divisibility(cfg)
    if task is Task.TRAIN and any(side % stride for side in cfg.INPUT.SIZE_TRAIN):
        raise UserError(
            f"INPUT.SIZE_TRAIN is {list(cfg.INPUT.SIZE_TRAIN)}; both must be multiples of the model's largest stride, "
            f"{stride} pixels."
        )


def _check_table(cfg: CfgNode, task: Task, sources: Mapping[str, str] | None = None) -> None:
    check_values(cfg, task, num_processes=comm.get_world_size(), registered=list_registered(), sources=sources)


def make_output_dir(output_dir: str) -> Path:
    """Make the folder if needed. Raises a UserError when it cannot be made."""
    folder = Path(output_dir)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"OUTPUT_DIR {output_dir} is a file; give a folder.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise UserError(
            f"OUTPUT_DIR {output_dir} cannot be made ({e.strerror}); give a folder you can write to."
        ) from e
    return folder


def lock_output_dir(output_dir: str) -> AbstractContextManager[None]:
    """Keep other trainings out of the folder, which must exist; a UserError says that one is in it."""
    busy = f"OUTPUT_DIR {output_dir} is in use by another training; wait for it, or give another OUTPUT_DIR."
    return locked(Path(output_dir, ".training.lock"), busy=busy, max_seconds=_LOCK_SECONDS)


def check_output_dir(output_dir: str, *, may_hold_training: bool) -> None:
    """Make the folder. Raises a UserError when it cannot be made, or already holds a training and must not.

    It is an error, too, when a file that is written in place is a link, which would be followed, or a FIFO or device,
    and, unless the user has said that this is the folder of a training, when another file that a training replaces,
    appends to or removes was there before any training.
    """
    folder = make_output_dir(output_dir)
    # By listing: Path.glob() passes over links that lead nowhere, and a file would be made where they point to.
    for path in sorted(folder.iterdir()):
        is_written = any(fnmatch(path.name, pattern) for pattern in _WRITTEN_IN_PLACE)
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
    """Note in a folder that :func:`check_output_dir` has passed what trainings write there, and may remove."""
    OutputFolder(output_dir, option="OUTPUT_DIR").claim(_WRITTEN)


def resolve_device(cfg: CfgNode) -> None:
    """Fall back to the CPU, with one message, where the config asks for a GPU and there is none.

    Raises:
        UserError: there are GPUs, but not the one that the config asks for.
    """
    if not cfg.MODEL.DEVICE.startswith("cuda"):
        return
    if not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"
        if comm.is_main_process():
            logger.info("No GPU found: running on the CPU.")
    elif (torch.device(cfg.MODEL.DEVICE).index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE!r}, but this machine has {torch.cuda.device_count()} GPUs, which are "
            f"counted from 0."
        )


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


def choose_eval_classes(cfg: CfgNode, weights: Weights) -> list[str]:
    """The classes that the model shall have to evaluate ``weights`` on DATASETS.TEST; sets NUM_CLASSES to their number.

    They are the weights' own, as for inference, if NUM_CLASSES is 0 or theirs: some of them may not occur in the data,
    and classes of the data that they lack count as not found. Else they are the data's, and each gets the outputs of
    the weights' class that :func:`parking.checkpoint.load_weights` finds for it.
    """
    in_data = list(MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes)
    own, num_classes = weights.class_names, cfg.MODEL.YOLO.NUM_CLASSES
    unknown = [name for name, found in zip(in_data, find_classes(in_data, own or ()), strict=True) if found is None]
    if own and len(own) == num_classes != len(in_data) and unknown:
        raise UserError(
            f"weights {weights.path} have no class {printable(', '.join(unknown))}, which the data set "
            f"{cfg.DATASETS.TEST[0]} has; say in MODEL.YOLO.CLASS_MAP which of theirs stand for them, "
            f"and set MODEL.YOLO.NUM_CLASSES to 0."
        )
    if (
        own
        and num_classes in (0, len(own))
        and (not unknown or (len(unknown) < len(in_data) and not cfg.MODEL.YOLO.CLASS_MAP))
    ):
        if unknown:
            logger.warning(
                "weights %s have no class %s: their boxes count as not found.",
                printable(weights.path),
                printable(", ".join(unknown)),
            )
        cfg.MODEL.YOLO.NUM_CLASSES = len(own)
        return own
    resolve_num_classes(cfg, cfg.DATASETS.TEST)
    return in_data


def choose_inference_classes(cfg: CfgNode, weights: Weights) -> tuple[list[str], list[int]]:
    """The classes that the model shall have for inference, and their category ids; sets a NUM_CLASSES of 0.

    They are the weights' own, if their number is NUM_CLASSES and they are what CLASS_MAP makes. Else they are those
    of the first of DATASETS.TRAIN, and each gets the outputs of the weights' class that
    :func:`parking.checkpoint.load_weights` finds for it. Weights without class names need DATASETS.COCO to say them.

    Raises:
        UserError: nothing says what the classes are, or NUM_CLASSES is neither the one number nor the other.
    """
    names = weights.class_names
    if not names:
        if not (cfg.DATASETS.COCO and cfg.DATASETS.TRAIN):
            raise UserError(
                f"weights {weights.path} carry no class names, so nothing says what their boxes are; name a data set "
                f"of the same classes in the same order (DATASETS.COCO \"[['own', 'own.json', 'images']]\" "
                f"DATASETS.TRAIN \"('own',)\"), or give the file that they were taken from."
            )
        return _classes_of_training_data(cfg)
    mapped = [pair[0] for pair in cfg.MODEL.YOLO.CLASS_MAP if isinstance(pair, list | tuple) and pair]
    if cfg.MODEL.YOLO.NUM_CLASSES in (0, len(names)) and all(name in names for name in mapped):
        cfg.MODEL.YOLO.NUM_CLASSES = len(names)
        known = weights.category_ids or find_category_ids(distinct_names(names))
        return names, known or list(range(1, len(names) + 1))
    if not cfg.DATASETS.TRAIN:
        raise UserError(
            f"MODEL.YOLO.NUM_CLASSES is {cfg.MODEL.YOLO.NUM_CLASSES} and the weights {weights.path} have {len(names)} "
            f"classes; set it to {len(names)} and MODEL.YOLO.CLASS_MAP to [], or name the data set whose classes are "
            f"wanted in DATASETS.TRAIN."
        )
    return _classes_of_training_data(cfg)


def _classes_of_training_data(cfg: CfgNode) -> tuple[list[str], list[int]]:
    register_datasets_from_config(cfg, cfg.DATASETS.TRAIN[:1])
    resolve_num_classes(cfg, cfg.DATASETS.TRAIN[:1])
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    return list(metadata.thing_classes), original_category_ids(metadata)


def choose_weights(cfg: CfgNode, opts: list[str], weights_file: str | None = None) -> str:
    """The weights to evaluate or infer with: what was typed, else the best of OUTPUT_DIR, else the yaml's.

    A yaml's MODEL.WEIGHTS comes last, because after a training it is where that started from.

    Args:
        opts: KEY VALUE pairs of the command line.
        weights_file: from a flag.
    """
    path = weights_file or get_typed(opts, "MODEL.WEIGHTS") or find_weights(cfg.OUTPUT_DIR)
    if path:
        return path
    if not os.path.isfile(cfg.MODEL.WEIGHTS):
        first = cfg.MODEL.WEIGHTS and f"{cfg.MODEL.WEIGHTS} is not there (docs/weights.md says where to get it), and "
        raise UserError(
            f"no weights: {first}OUTPUT_DIR {cfg.OUTPUT_DIR} holds none; train first, or name a file (MODEL.WEIGHTS "
            f"FILE; infer.py: --weights FILE)."
        )
    logger.info(f"OUTPUT_DIR {cfg.OUTPUT_DIR} holds no weights: using the config's {cfg.MODEL.WEIGHTS}")
    return cfg.MODEL.WEIGHTS


def find_config_and_weights(
    config_file: str | None, weights_file: str | None, opts: list[str], *, default_config: str | os.PathLike
) -> tuple[CfgNode, Weights]:
    """What inference shall run, from a config file, a weights file, both or neither.

    The config is that of ``config_file``, else the one ``weights_file`` carries, else ``default_config``; for the
    weights see :func:`choose_weights`.

    Returns:
        The config (not frozen, device resolved) and the weights.
    """
    sources: dict[str, str] = {}
    cfg = get_cfg()
    if not config_file:
        weights_file = weights_file or get_typed(opts, "MODEL.WEIGHTS")
    if weights_file and not config_file:
        weights = read_weights(weights_file)
        if weights.config is None:
            fitting = "one of configs/coco/, by the size of the model" if weights.is_published else "see configs/"
            raise UserError(f"weights {weights_file} carry no config; give it with --config-file ({fitting}).")
        sources = _merge_carried(cfg, weights)
        cfg.OUTPUT_DIR = os.path.dirname(weights_file)
        cfg.merge_from_list(opts)
        sources = {key: source for key, source in sources.items() if key not in typed_keys(opts)}
    else:
        stages = read_stages(config_file or default_config, opts)
        stage = last_stage_with_weights(stages)
        cfg = stage.cfg
        weights = read_weights(choose_weights(cfg, opts, weights_file))
        cfg.OUTPUT_DIR = stage.root
    check_config(cfg, Task.INFER, sources=sources)
    resolve_device(cfg)
    return cfg, weights


def find_fitting_config(
    weights: Weights, config_file: str | None, *, candidates: Iterable[str | os.PathLike]
) -> tuple[CfgNode, str]:
    """A config whose model has exactly the tensors of ``weights``, and where that config is from.

    Args:
        config_file: the config, where the user says it; else the one that the weights carry is taken, else the first
            file of ``candidates`` that fits, with NUM_CLASSES changed to theirs.

    Raises:
        UserError: none fits.
    """
    if config_file is None and weights.config is not None:
        sources = _merge_carried(cfg := get_cfg(), weights)
        _check_table(cfg, Task.INFER, sources)
        check_all_fit(weights.state_dict, _shapes_of_model(cfg, weights), weights)
        return cfg, f"the config in {weights.path}"
    fewest, nearest = None, ""
    for candidate in [config_file] if config_file else candidates:
        cfg = get_cfg()
        cfg.merge_from_file(os.fspath(candidate))
        _check_table(cfg, Task.INFER)
        misfits = find_misfits(weights.state_dict, _shapes_of_model(cfg, weights))
        if not misfits:
            return cfg, str(candidate)
        if fewest is None or len(misfits) < len(fewest):
            fewest, nearest = misfits, str(candidate)
    raise UserError(
        f"weights {weights.path} fit no such model; nearest is {nearest}, but {shorten(fewest)}; give the right config "
        f"with --config-file."
    )


def _shapes_of_model(cfg: CfgNode, weights: Weights) -> dict[str, torch.Tensor]:
    """The state of the model of ``cfg``, without memory; sets NUM_CLASSES to that of ``weights``."""
    if weights.class_names:
        cfg.MODEL.YOLO.NUM_CLASSES = len(weights.class_names)
    shapes_only = cfg.clone()
    shapes_only.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        return build_model(shapes_only).state_dict()


def _merge_carried(cfg: CfgNode, weights: Weights) -> dict[str, str]:
    """Merge, of the config that ``weights`` carry, what describes the model and how it is tested.

    The rest (where files are, how many workers) is for the one who uses the weights to say, not for who made them; but
    what is wrong anywhere in it is an error.

    Returns:
        By key that was merged, where it is from.
    """
    source = f"the config in {weights.path}"
    get_cfg().merge_from_dict(weights.config, source=source)
    selected = _select_inference_keys(weights.config)
    cfg.merge_from_dict(selected, source=source)
    return {key: source for key, _ in flatten(selected)}


def _select_inference_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    selected = {key: value for key, value in config.items() if key in ("MODEL", "TEST")}
    model, size = selected.get("MODEL"), config.get("INPUT")
    if isinstance(model, Mapping):
        yolo = model.get("YOLO")
        selected["MODEL"] = {key: value for key, value in model.items() if key not in ("WEIGHTS", "DEVICE")}
        if isinstance(yolo, Mapping):
            selected["MODEL"]["YOLO"] = {key: value for key, value in yolo.items() if key != "CLASS_MAP"}
    if isinstance(size, Mapping) and "SIZE_TEST" in size:
        selected["INPUT"] = {"SIZE_TEST": size["SIZE_TEST"]}
    return selected


def describe_config(cfg: CfgNode) -> dict[str, Any]:
    """``cfg`` as nested plain values for a weights file, without the device, which says nothing about the next run."""
    config = yaml.safe_load(cfg.dump())
    del config["MODEL"]["DEVICE"]
    return config
