"""Choose the config, weights, device and classes of an inference or evaluation, and check that they work together."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm

from parking.challenge.registration import find_category_ids, register_datasets_from_config
from parking.checkpoint import Weights, check_all_fit, distinct_names, find_misfits, find_weights, read_weights
from parking.config import CfgNode, Task, get_cfg, get_typed, typed_keys
from parking.config.checks import check_values
from parking.config.plain import flatten
from parking.config.stages import Stage, read_stages
from parking.data.datasets.coco import original_category_ids
from parking.modeling.registered import list_registered
from parking.utils.class_names import find_classes
from parking.utils.errors import UserError
from parking.utils.text import join_some, printable

from .build import build_without_memory, find_shapes

logger = logging.getLogger(__name__)


def check_config(cfg: CfgNode, task: Task, *, sources: Mapping[str, str] | None = None) -> None:
    """Raise a UserError if a value of the config cannot work in ``task``, before anything is read or written.

    Args:
        cfg: is not changed; NUM_CLASSES may be 0.
        sources: see :func:`parking.config.checks.check_values`.
    """
    _check_table(cfg, task, sources)
    # Build the model, because the constructors of its parts check whether they fit together.
    stride = build_without_memory(cfg).size_divisibility
    if task is Task.TRAIN and any(side % stride for side in cfg.INPUT.SIZE_TRAIN):
        raise UserError(
            f"INPUT.SIZE_TRAIN is {list(cfg.INPUT.SIZE_TRAIN)}; both must be multiples of the model's largest stride, "
            f"{stride} pixels."
        )


def _check_table(cfg: CfgNode, task: Task, sources: Mapping[str, str] | None = None) -> None:
    check_values(cfg, task, num_processes=comm.get_world_size(), registered=list_registered(), sources=sources)


def resolve_device(cfg: CfgNode) -> None:
    """Set MODEL.DEVICE to "cpu", with one message, if it is a GPU and the machine has none.

    Raises:
        UserError: there are GPUs, but not the one that MODEL.DEVICE names.
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
    """If NUM_CLASSES is 0, set it to the data sets' number of classes; else raise a UserError unless they are equal."""
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
    """Return the model's classes for an evaluation of ``weights`` on DATASETS.TEST; set NUM_CLASSES to their number.

    If NUM_CLASSES is 0 or the weights' number of classes, the model has the classes of the weights, as for inference.
    Some of these may not occur in the data, and boxes of classes that only the data have count as not found. Otherwise
    the model has the classes of the data, and each gets the outputs of the weights' class that
    :func:`parking.checkpoint.load_weights` finds for it.

    Raises:
        UserError: the weights lack classes of the data, or NUM_CLASSES fits neither the weights nor the data.
    """
    in_data = list(MetadataCatalog.get(cfg.DATASETS.TEST[0]).thing_classes)
    own, num_classes = weights.class_names, cfg.MODEL.YOLO.NUM_CLASSES
    unknown = [name for name, found in zip(in_data, find_classes(in_data, own or ()), strict=True) if found is None]
    if own and len(own) == num_classes != len(in_data) and unknown:
        raise UserError(
            f"weights {weights.path} have no class {printable(', '.join(unknown))}, which the data set "
            f"{cfg.DATASETS.TEST[0]} has; say in MODEL.YOLO.CLASS_MAP which classes of the weights stand for "
            f"these, and set MODEL.YOLO.NUM_CLASSES to 0."
        )
    if (
        own
        and num_classes in (0, len(own))
        and (not unknown or (len(unknown) < len(in_data) and not cfg.MODEL.YOLO.CLASS_MAP))
    ):
        if unknown:
            logger.warning(
                "weights %s have no class %s: its annotated boxes count as not found.",
                printable(weights.path),
                printable(", ".join(unknown)),
            )
        cfg.MODEL.YOLO.NUM_CLASSES = len(own)
        return own
    resolve_num_classes(cfg, cfg.DATASETS.TEST)
    return in_data


def choose_inference_classes(cfg: CfgNode, weights: Weights) -> tuple[list[str], list[int]]:
    """Return the model's classes for inference, and their category ids; set NUM_CLASSES if it is 0.

    The model has the classes of the weights if NUM_CLASSES is 0 or their number, and CLASS_MAP names no other class.
    Otherwise it has the classes of the first of DATASETS.TRAIN, and each gets the outputs of the weights' class that
    :func:`parking.checkpoint.load_weights` finds for it. If weights carry no class names, DATASETS.COCO must name a
    data set that has them.

    Raises:
        UserError: nothing names the classes, or NUM_CLASSES fits neither the weights nor the data set.
    """
    names = weights.class_names
    if not names:
        if not (cfg.DATASETS.COCO and cfg.DATASETS.TRAIN):
            raise UserError(
                f"weights {weights.path} carry no class names, so nothing says which class a box has; name a data set "
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
    """Return the path of the weights to use: those on the command line, else in OUTPUT_DIR, else in the yaml.

    A yaml's MODEL.WEIGHTS comes last, because it names the weights that a training starts from.

    Args:
        opts: KEY VALUE pairs of the command line.
        weights_file: value of the flag ``--weights``.

    Raises:
        UserError: there are no such weights.
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


def last_stage_with_weights(stages: list[Stage]) -> Stage:
    """Return the stage to infer or evaluate with: the last whose OUTPUT_DIR has weights, else the first."""
    return next((stage for stage in reversed(stages) if find_weights(stage.cfg.OUTPUT_DIR)), stages[0])


def find_config_and_weights(
    config_file: str | None, weights_file: str | None, opts: list[str], *, default_config: str | os.PathLike
) -> tuple[CfgNode, Weights]:
    """Find the config and the weights for inference, given a config file, a weights file, both or neither.

    The config is ``config_file``, else the one that ``weights_file`` carries, else ``default_config``; for the weights
    see :func:`choose_weights`.

    Returns:
        The config (not frozen, MODEL.DEVICE resolved) and the weights.

    Raises:
        UserError: a file or a value of the config is wrong, or there are no weights.
    """
    sources: dict[str, str] = {}
    cfg = get_cfg()
    if not config_file:
        weights_file = weights_file or get_typed(opts, "MODEL.WEIGHTS")
    if weights_file and not config_file:
        weights = read_weights(weights_file)
        if weights.config is None:
            fitting = weights.find_config(for_coco=True) or "see configs/"
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
    weights: Weights, config_file: str | None, *, candidates: Sequence[str | os.PathLike]
) -> tuple[CfgNode, str]:
    """Find a config whose model has exactly the tensors of ``weights``.

    The config is ``config_file``, else the one that the weights carry, else the one of ``candidates`` with the name of
    the weights' family and size, else the first of ``candidates`` that fits. In a config from a file, NUM_CLASSES and
    the widths that depend on it are set to those of the weights.

    Returns:
        The config, and words that say where it is from.

    Raises:
        UserError: none of these configs fits.
    """
    if config_file is None and weights.config is not None:
        sources = _merge_carried(cfg := get_cfg(), weights)
        _check_table(cfg, Task.INFER, sources)
        check_all_fit(weights.state_dict, _shapes_of_model(cfg, weights), weights)
        return cfg, f"the config in {weights.path}"
    if config_file is None and not candidates:
        raise UserError(
            f"weights {printable(weights.path)} carry no config, and there is no configs/coco to choose from; give the "
            f"config of their model by --config-file (in Python: config_file)."
        )
    fewest, nearest = None, ""
    named = [path for path in candidates if Path(path).name == Path(weights.find_config(for_coco=True) or "").name]
    for candidate in [config_file] if config_file else named or candidates:
        cfg = get_cfg()
        cfg.merge_from_file(os.fspath(candidate))
        _check_table(cfg, Task.INFER)
        misfits = find_misfits(weights.state_dict, _shapes_of_model(cfg, weights))
        if not misfits:
            return cfg, str(candidate)
        if fewest is None or len(misfits) < len(fewest):
            fewest, nearest = misfits, str(candidate)
    raise UserError(
        f"weights {weights.path} fit no such model; nearest is {nearest}, but {join_some(fewest, 3)}; give the right "
        f"config with --config-file."
    )


def _shapes_of_model(cfg: CfgNode, weights: Weights) -> dict[str, torch.Tensor]:
    """Set NUM_CLASSES and the widths that depend on it to those of ``weights``, then call :func:`find_shapes`."""
    if weights.class_names:
        cfg.MODEL.YOLO.NUM_CLASSES = len(weights.class_names)
    shapes = find_shapes(cfg)
    widths = weights.find_widths(shapes)
    if not widths:
        return shapes
    cfg.merge_from_list([part for key, value in widths.items() for part in (key, str(value))])
    # Check the widths, which come from tensor shapes: a small file can claim a huge width with a tensor without
    # elements, of shape (10**9, 0).
    _check_table(cfg, Task.INFER, dict.fromkeys(widths, f"weights {printable(weights.path)}"))
    return find_shapes(cfg)


def _merge_carried(cfg: CfgNode, weights: Weights) -> dict[str, str]:
    """Copy the keys of model and inference (MODEL, TEST, INPUT.SIZE_TEST) from the config in ``weights`` to ``cfg``.

    The other keys (places of files, number of workers) are up to whoever uses the weights, not to whoever made them.
    A wrong value raises an error even if its key is not copied.

    Returns:
        For each copied key, words that say where its value is from.
    """
    source = f"the config in {weights.path}"
    carried = get_cfg()
    carried.merge_from_dict(weights.config, source=source)
    carried.MODEL.WEIGHTS, carried.MODEL.DEVICE = cfg.MODEL.WEIGHTS, cfg.MODEL.DEVICE
    carried.MODEL.YOLO.CLASS_MAP = cfg.MODEL.YOLO.CLASS_MAP
    cfg.MODEL, cfg.TEST, cfg.INPUT.SIZE_TEST = carried.MODEL, carried.TEST, carried.INPUT.SIZE_TEST
    merged = {"MODEL": cfg.MODEL, "TEST": cfg.TEST, "INPUT": {"SIZE_TEST": cfg.INPUT.SIZE_TEST}}
    return {key: source for key, _ in flatten(merged)}
