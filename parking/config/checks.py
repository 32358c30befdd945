"""Check configs: which values each key allows, which tasks use it, and whether it can change what a training learns.

All of this is in one table, :data:`CHECKS`, in which each key of ``defaults.py`` needs a row. Values that must fit
files (such as class names) are checked by the code that reads those files.
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from parking.utils.constants import CSP_DARKNET_PAFPN, DETECTRON2_BACKBONES, RESNET, RESNET_FPN, RETINANET_FPN
from parking.utils.errors import UserError
from parking.utils.text import show

from .compat import FIRST_VERSION
from .defaults import make_defaults
from .kinds import Flag, Kind, ListOf, OneOf, Real, Such, Text, Whole


class Task(enum.Enum):
    """What a config is used for. A key is checked only for the tasks that use it."""

    TRAIN = "train"
    EVAL = "eval"
    INFER = "infer"


class Recipe(NamedTuple):
    """What a function in :attr:`Check.changes_weights` needs to know about a training.

    Attributes:
        values: values by full key; keys that the training's version did not have are missing.
        is_followed: whether another stage starts from the weights that the evaluations of this stage choose.
    """

    values: Mapping[str, Any]
    is_followed: bool


class Check(NamedTuple):
    """The rules for one config key, as listed in :data:`CHECKS`.

    Attributes:
        kind: the values that are allowed.
        tasks: tasks that use the key.
        changes_weights: whether a change of this key in the middle of a training could change the final weights; if
            that depends on other keys, a function that decides it from a :class:`Recipe`. If True, ``--resume``
            requires the value that the training began with. Keys that hold paths have False, because ``--resume``
            compares the content of the data.
    """

    kind: Kind
    tasks: frozenset[Task]
    changes_weights: bool | Callable[[Recipe], bool]


ALL = frozenset(Task)
TRAIN = frozenset({Task.TRAIN})
EVAL, INFER, TEST = frozenset({Task.TRAIN, Task.EVAL}), frozenset({Task.INFER}), frozenset({Task.EVAL, Task.INFER})


def _scores_end_or_choose(recipe: Recipe) -> bool:
    """Whether TEST.BEST_METRIC can end the training early or choose the weights that the next stage starts from."""
    return recipe.is_followed or recipe.values.get("SOLVER.EARLY_STOPPING_PATIENCE", 0) > 0


def scores_steer(recipe: Recipe) -> bool:
    """Whether scores of evaluations can affect the sampler, the end of the training, or the start of the next stage."""
    sampler = recipe.values.get("DATALOADER.SAMPLER_TRAIN")
    return sampler == "ClassBalancedTrainingSampler" or _scores_end_or_choose(recipe)


def _if_set(key: str, *values: str) -> Callable[[Recipe], bool]:
    """Return a function for :attr:`Check.changes_weights` that tells whether ``key`` has one of ``values``."""
    return lambda recipe: recipe.values.get(key) in values


_if_repeating = _if_set("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler")

# These limits are far above useful values, but exclude values that overflow, fill the memory or take forever.
_MAX_ITERATIONS = 10**9
_MAX_SIDE = 16384
_MAX_IMAGES = 65536  # in a batch
_MAX_FACTOR = 1e6
_COUNT = Whole(0, _MAX_ITERATIONS)
_SOME = Whole(1, _MAX_ITERATIONS)
_PART = Real(0, 1)
_FACTOR = Real(0, _MAX_FACTOR)
# Range of DEPTH_MULTIPLE and WIDTH_MULTIPLE; in the largest published model, these are 1.33 and 1.25.
_MULTIPLE = Real(0, 4, above=True)
_NAME = Text(".+", "a text that is not empty")


def _all_differ(names: Sequence[str]) -> bool:
    return len(set(names)) == len(names)


_NAMES = ListOf(_NAME, also=_all_differ, allowed="a list of different names")
_FEATURES = ListOf(_NAME, min_length=1, also=_all_differ, allowed="a list of one or more different names")


def _is_fallback(entry: Any) -> bool:
    is_list = isinstance(entry, list | tuple) and len(entry) > 0 and len(entry) % 2 == 0
    return is_list and all(isinstance(key, str) for key in entry[0::2])


def _is_floor(entry: Any) -> bool:
    return _NAME.allows(entry) or _COUNT.allows(entry)


_OF_RESNETS = ("MODEL.BACKBONE.FREEZE_AT", "MODEL.RESNETS.")
_OF_PYRAMIDS = ("MODEL.FPN.",)
_OF_CSP_DARKNET = ("MODEL.CSP_DARKNET.", "MODEL.PAFPN.", "MODEL.YOLO.DEPTH_MULTIPLE", "MODEL.YOLO.WIDTH_MULTIPLE")
# Beginnings of the keys that each backbone does not read. A backbone of the user is not listed: it may read any key,
# because it may be built from parts of these backbones.
_UNREAD_BY: Mapping[str, tuple[str, ...]] = {
    CSP_DARKNET_PAFPN: (*_OF_RESNETS, *_OF_PYRAMIDS),
    RESNET: (*_OF_CSP_DARKNET, *_OF_PYRAMIDS),
    RESNET_FPN: _OF_CSP_DARKNET,
    RETINANET_FPN: _OF_CSP_DARKNET,
}
_RESNET_STAGES = ("stem", "res2", "res3", "res4", "res5")
_STAGES = ListOf(
    OneOf(*_RESNET_STAGES),
    min_length=1,
    also=_all_differ,
    allowed=f"a list of one or more of {', '.join(_RESNET_STAGES)}, each once",
)
# The widest published ResNeXt has 32 groups of 48 channels, 1536 in all.
_CHANNELS = Whole(1, 2048)


CHECKS: Mapping[str, Check] = {
    # When values are checked, compat.py has already replaced the VERSION of a file by the current version.
    "VERSION": Check(Whole(FIRST_VERSION, 10**6), ALL, False),
    "OUTPUT_DIR": Check(Text(), ALL, False),
    # NumPy's seeds have 32 bits. Only 31 are allowed here, because the rank of the process is added to the seed.
    "SEED": Check(Whole(-1, 2**31 - 1), TRAIN, True),
    "CUDNN_BENCHMARK": Check(Flag(), TRAIN, False),
    "DATASETS.ROOT": Check(_NAME, ALL, False),
    "DATASETS.SPLIT": Check(OneOf("sequence", "entry", "all"), ALL, True),
    "DATASETS.VAL_FRACTION": Check(Real(0, 1, above=True, below=True), ALL, True),
    "DATASETS.SPLIT_SEED": Check(Whole(-(2**63), 2**63 - 1), ALL, True),
    "DATASETS.POLICY": Check(OneOf("strict", "repair"), ALL, True),
    "DATASETS.ALLOW_OUTSIDE": Check(Flag(), ALL, False),
    "DATASETS.COCO": Check(
        ListOf(ListOf(_NAME, length=3), allowed="a list of [name, json file, image folder]"), ALL, False
    ),
    "DATASETS.TRAIN": Check(_NAMES, ALL, True),
    "DATASETS.TEST": Check(_NAMES, EVAL, scores_steer),
    "DATALOADER.NUM_WORKERS": Check(Whole(0, 1024), ALL, False),
    "DATALOADER.SAMPLER_TRAIN": Check(
        OneOf("TrainingSampler", "ClassBalancedTrainingSampler", "RepeatFactorTrainingSampler"), TRAIN, True
    ),
    "DATALOADER.REPEAT_THRESHOLD": Check(_PART, TRAIN, _if_repeating),
    "DATALOADER.REPEAT_SQRT": Check(Flag(), TRAIN, _if_repeating),
    "INPUT.SIZE_TRAIN": Check(
        ListOf(Whole(1, _MAX_SIDE), length=2, allowed=f"[height, width] in pixels, each from 1 to {_MAX_SIDE}"),
        TRAIN,
        True,
    ),
    "INPUT.SIZE_TEST": Check(Whole(1, _MAX_SIDE), ALL, scores_steer),
    "INPUT.EXIF_ORIENTATION": Check(OneOf("auto", "apply", "ignore"), ALL, True),
    "INPUT.CACHE": Check(OneOf("none", "ram", "disk"), TRAIN, _if_set("INPUT.CACHE_FORMAT", "jpeg")),
    "INPUT.CACHE_FORMAT": Check(OneOf("raw", "jpeg"), TRAIN, _if_set("INPUT.CACHE", "ram", "disk")),
    "INPUT.CACHE_DIR": Check(Text(), ALL, False),
    "INPUT.CACHE_GB": Check(Real(0, 1e9, above=True), TRAIN, False),
    "INPUT.AUG.MOSAIC_PROB": Check(_PART, TRAIN, True),
    "INPUT.AUG.MIXUP_PROB": Check(_PART, TRAIN, True),
    "INPUT.AUG.STRONG_OFF_ITERS": Check(_COUNT, TRAIN, True),
    "INPUT.AUG.DEGREES": Check(Real(0, 360, below=True), TRAIN, True),
    "INPUT.AUG.TRANSLATE": Check(Real(0, 1, below=True), TRAIN, True),
    "INPUT.AUG.SCALE": Check(Real(0, 1, below=True), TRAIN, True),
    "INPUT.AUG.SHEAR": Check(Real(0, 90, below=True), TRAIN, True),
    "INPUT.AUG.PERSPECTIVE": Check(Real(0, 1, below=True), TRAIN, True),
    "INPUT.AUG.HSV_H": Check(_PART, TRAIN, True),
    "INPUT.AUG.HSV_S": Check(_PART, TRAIN, True),
    "INPUT.AUG.HSV_V": Check(_PART, TRAIN, True),
    "INPUT.AUG.FLIP_LR_PROB": Check(_PART, TRAIN, True),
    "INPUT.AUG.FLIP_UD_PROB": Check(_PART, TRAIN, True),
    # All tasks build the model and therefore use its keys; only training uses the keys of assigners and losses.
    "MODEL.DEVICE": Check(Text(r"cpu|cuda(:[0-9]{1,2})?", "cuda, cuda:1 (the second GPU) or cpu"), ALL, False),
    "MODEL.META_ARCHITECTURE": Check(_NAME, ALL, True),
    "MODEL.WEIGHTS": Check(Text(), ALL, False),
    "MODEL.PIXEL_MEAN": Check(ListOf(Real(-_MAX_FACTOR, _MAX_FACTOR), length=3), ALL, True),
    "MODEL.PIXEL_STD": Check(ListOf(Real(1e-3, _MAX_FACTOR), length=3), ALL, True),
    "MODEL.BACKBONE.NAME": Check(_NAME, ALL, True),
    "MODEL.HEAD.NAME": Check(_NAME, ALL, True),
    "MODEL.BACKBONE.FREEZE_AT": Check(Whole(0, 5), ALL, True),
    "MODEL.RESNETS.DEPTH": Check(OneOf(18, 34, 50, 101, 152), ALL, True),
    "MODEL.RESNETS.OUT_FEATURES": Check(_STAGES, ALL, True),
    "MODEL.RESNETS.NUM_GROUPS": Check(Whole(1, 256), ALL, True),
    "MODEL.RESNETS.NORM": Check(OneOf("BN", "SyncBN", "GN"), ALL, True),
    "MODEL.RESNETS.WIDTH_PER_GROUP": Check(_CHANNELS, ALL, True),
    "MODEL.RESNETS.STRIDE_IN_1X1": Check(Flag(), ALL, True),
    "MODEL.RESNETS.RES5_DILATION": Check(Whole(1, 2), ALL, True),
    "MODEL.RESNETS.RES2_OUT_CHANNELS": Check(_CHANNELS, ALL, True),
    "MODEL.RESNETS.STEM_OUT_CHANNELS": Check(_CHANNELS, ALL, True),
    "MODEL.FPN.IN_FEATURES": Check(_STAGES, ALL, True),
    "MODEL.FPN.OUT_CHANNELS": Check(_CHANNELS, ALL, True),
    "MODEL.FPN.NORM": Check(OneOf("BN", "SyncBN", "GN", ""), ALL, True),
    "MODEL.FPN.FUSE_TYPE": Check(OneOf("sum", "avg"), ALL, True),
    "MODEL.CSP_DARKNET.OUT_FEATURES": Check(_FEATURES, ALL, True),
    "MODEL.CSP_DARKNET.LAYOUT": Check(OneOf("yolov5", "yolox"), ALL, True),
    "MODEL.PAFPN.IN_FEATURES": Check(_FEATURES, ALL, True),
    "MODEL.YOLO.NUM_CLASSES": Check(Whole(0, 65536), ALL, True),
    "MODEL.YOLO.CLASS_MAP": Check(
        ListOf(ListOf(Text(), length=2), allowed="a list of pairs [class of the data, class of the weights]"),
        ALL,
        False,
    ),
    "MODEL.ANCHOR_HEAD.ANCHORS_FROM_WEIGHTS": Check(Flag(), ALL, False),
    "MODEL.YOLO.DEPTH_MULTIPLE": Check(_MULTIPLE, ALL, True),
    "MODEL.YOLO.WIDTH_MULTIPLE": Check(_MULTIPLE, ALL, True),
    "MODEL.YOLO.DEPTHWISE": Check(Flag(), ALL, True),
    "MODEL.YOLO.NORM": Check(OneOf("BN", "SyncBN"), ALL, True),
    "MODEL.YOLO.IN_FEATURES": Check(_FEATURES, ALL, True),
    "MODEL.ANCHOR_HEAD.ANCHORS": Check(
        ListOf(
            ListOf(ListOf(Real(0, 1e5, above=True), length=2), min_length=1),
            min_length=1,
            also=lambda levels: len({len(level) for level in levels}) == 1,
            allowed="for each level a list of equally many [width, height] of numbers above 0",
        ),
        ALL,
        True,
    ),
    "MODEL.ANCHOR_HEAD.ANCHOR_RATIO": Check(Real(1, 1e3, above=True), ALL, True),
    "MODEL.ANCHOR_HEAD.LOSS.BOX_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.ANCHOR_HEAD.LOSS.OBJ_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.ANCHOR_HEAD.LOSS.CLS_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.ANCHOR_HEAD.LOSS.OBJ_POS_WEIGHT": Check(_FACTOR, TRAIN, True),
    "MODEL.ANCHOR_HEAD.LOSS.CLS_POS_WEIGHT": Check(_FACTOR, TRAIN, True),
    "MODEL.ANCHOR_HEAD.LOSS.FOCAL_GAMMA": Check(Real(0, 100), TRAIN, True),
    "MODEL.ANCHOR_HEAD.LOSS.LABEL_SMOOTHING": Check(Real(0, 1, below=True), TRAIN, True),
    "MODEL.ANCHOR_HEAD.LOSS.OBJ_LEVEL_WEIGHTS": Check(ListOf(_FACTOR, min_length=1), ALL, True),
    "MODEL.DISTRIBUTION_HEAD.NUM_BINS": Check(Whole(2, 256), ALL, True),
    "MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS": Check(Whole(0, 65536), ALL, True),
    "MODEL.DISTRIBUTION_HEAD.ASSIGNER.ALPHA": Check(Real(0, 100), TRAIN, True),
    "MODEL.DISTRIBUTION_HEAD.ASSIGNER.BETA": Check(Real(0, 100), TRAIN, True),
    "MODEL.DISTRIBUTION_HEAD.ASSIGNER.CANDIDATES": Check(Whole(1, 1000), TRAIN, True),
    "MODEL.DISTRIBUTION_HEAD.LOSS.BOX_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.DISTRIBUTION_HEAD.LOSS.CLS_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.DISTRIBUTION_HEAD.LOSS.BINS_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.YOLOX_HEAD.ASSIGNER": Check(OneOf("SimOTA", "TaskAligned"), ALL, True),
    "MODEL.YOLOX_HEAD.LOSS.BOX_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.YOLOX_HEAD.LOSS.OBJ_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.YOLOX_HEAD.LOSS.CLS_GAIN": Check(_FACTOR, TRAIN, True),
    "MODEL.YOLOX_HEAD.LOSS.L1_GAIN": Check(_FACTOR, TRAIN, True),
    # A threshold of 1 would leave out every box.
    "MODEL.YOLO.SCORE_THRESH_TEST": Check(Real(0, 1, below=True), ALL, scores_steer),
    "MODEL.YOLO.MULTI_LABEL_TEST": Check(Flag(), ALL, scores_steer),
    "MODEL.YOLO.NMS_THRESH_TEST": Check(_PART, ALL, scores_steer),
    "MODEL.YOLO.PRE_NMS_TOPK_TEST": Check(_SOME, ALL, scores_steer),
    # `read_stages` checks this list before it makes the configs of the stages, in which the list is empty.
    "SOLVER.STAGES": Check(ListOf(ListOf(_NAME, length=2), allowed="a list of [name, config file]"), ALL, True),
    "SOLVER.OPTIMIZER": Check(OneOf("SGD", "AdamW"), TRAIN, True),
    "SOLVER.BASE_LR": Check(Real(0, 1e3), TRAIN, True),
    "SOLVER.MOMENTUM": Check(Real(0, 1, below=True), TRAIN, True),
    "SOLVER.NESTEROV": Check(Flag(), TRAIN, True),
    "SOLVER.WEIGHT_DECAY": Check(Real(0, 1e3), TRAIN, True),
    "SOLVER.LR_SCHEDULER_NAME": Check(OneOf("linear", "cosine"), TRAIN, True),
    "SOLVER.LR_FINAL_FACTOR": Check(Real(0, 1e3), TRAIN, True),
    "SOLVER.LR_DECAY_PER": Check(OneOf("epoch", "iteration"), TRAIN, True),
    "SOLVER.MAX_ITER": Check(_SOME, TRAIN, True),
    "SOLVER.ITERS_PER_EPOCH": Check(_COUNT, TRAIN, True),
    "SOLVER.WARMUP_ITERS": Check(_COUNT, TRAIN, True),
    "SOLVER.WARMUP_MOMENTUM": Check(Real(0, 1, below=True), TRAIN, True),
    "SOLVER.WARMUP_BIAS_LR": Check(Real(0, 1e3), TRAIN, True),
    "SOLVER.IMS_PER_BATCH": Check(Whole(1, _MAX_IMAGES), TRAIN, True),
    "SOLVER.NOMINAL_BATCH_SIZE": Check(_COUNT, TRAIN, True),
    "SOLVER.CHECKPOINT_PERIOD": Check(_COUNT, TRAIN, False),
    "SOLVER.CHECKPOINTS_TO_KEEP": Check(_SOME, TRAIN, False),
    "SOLVER.AMP.ENABLED": Check(Flag(), TRAIN, True),
    "SOLVER.AMP.DTYPE": Check(OneOf("auto", "float16", "bfloat16"), TRAIN, True),
    "SOLVER.EMA.ENABLED": Check(Flag(), TRAIN, True),
    "SOLVER.EMA.DECAY": Check(Real(0, 1, below=True), TRAIN, True),
    "SOLVER.EMA.WARMUP": Check(_SOME, TRAIN, True),
    # Scores of the raw weights are only logged; nothing depends on them.
    "SOLVER.EMA.EVAL_RAW": Check(Flag(), TRAIN, False),
    "SOLVER.EARLY_STOPPING_PATIENCE": Check(_COUNT, TRAIN, True),
    "SOLVER.MAX_HOURS": Check(Real(0, _MAX_FACTOR), TRAIN, False),
    "TEST.EVAL_PERIOD": Check(_COUNT, TRAIN, scores_steer),
    "TEST.BEST_METRIC": Check(
        Text(r"(.+/)?bbox/.+", "bbox/ and a score, such as bbox/AP75 or bbox/AP75-CLASS"), TRAIN, _scores_end_or_choose
    ),
    "TEST.DETECTIONS_PER_IMAGE": Check(_SOME, ALL, scores_steer),
    # This can change scores: on a GPU, their last bits depend on the batch size.
    "TEST.IMS_PER_BATCH": Check(Whole(0, _MAX_IMAGES), ALL, scores_steer),
    "TEST.DTYPE": Check(OneOf("auto", "float32", "float16", "bfloat16"), ALL, scores_steer),
    # Evaluations during training use no test-time augmentation.
    "TEST.AUG.ENABLED": Check(Flag(), TEST, False),
    "TEST.FUSION.NAME": Check(OneOf("nms", "soft_nms", "wbf"), TEST, False),
    "TEST.FUSION.IOU_THRESH": Check(_PART, TEST, False),
    "TEST.FUSION.SOFT_NMS_SIGMA": Check(Real(0, _MAX_FACTOR, above=True), TEST, False),
    "TEST.FALLBACKS": Check(
        ListOf(Such(_is_fallback, ""), allowed="a list of lists [KEY, VALUE, KEY, VALUE, ...]"), INFER, False
    ),
    # The lower limit is two bytes, the size of an empty list.
    "TEST.SUBMISSION_MB": Check(Real(2e-6, _MAX_FACTOR), INFER, False),
    "TEST.SUBMISSION_MAX_PER_IMAGE": Check(_SOME, INFER, False),
    "TEST.SUBMISSION_CLASS_FLOORS": Check(
        ListOf(Such(_is_floor, ""), allowed="a list of CLASS=N, or N for all classes"), INFER, False
    ),
    "TEST.SUBMISSION_SPACING": Check(OneOf("compact", "original"), INFER, False),
}


def _find_nesterov_without_momentum(cfg) -> str | None:
    if cfg.SOLVER.OPTIMIZER != "SGD" or not cfg.SOLVER.NESTEROV or cfg.SOLVER.MOMENTUM > 0:
        return None
    return "SOLVER.MOMENTUM is 0; it must be above 0 if SOLVER.NESTEROV is True."


def _find_nothing_to_train_on(cfg) -> str | None:
    return None if cfg.DATASETS.TRAIN else "DATASETS.TRAIN is empty; name a data set to train on."


def _find_unread_key(cfg) -> str | None:
    """Find a key that was changed although the backbone MODEL.BACKBONE.NAME does not read it."""
    name, defaults = cfg.MODEL.BACKBONE.NAME, make_defaults()
    for key in CHECKS:
        if key.startswith(_UNREAD_BY.get(name, ())) and find_value(cfg, key) != find_value(defaults, key):
            readers = [reader for reader, unread in _UNREAD_BY.items() if not key.startswith(unread)]
            return (
                f"{key} is {show(find_value(cfg, key))}, but MODEL.BACKBONE.NAME is {name}, which does not read it: "
                f"leave it out, or name {' or '.join(readers)}."
            )
    return None


def _find_incomplete_pyramid(cfg) -> str | None:
    """Find settings with which detectron2 cannot build the feature pyramid or gives wrong names to its levels."""
    if cfg.MODEL.BACKBONE.NAME not in DETECTRON2_BACKBONES or cfg.MODEL.BACKBONE.NAME == RESNET:
        return None
    joined, given = list(cfg.MODEL.FPN.IN_FEATURES), list(cfg.MODEL.RESNETS.OUT_FEATURES)
    if missing := [name for name in joined if name not in given]:
        return (
            f"MODEL.FPN.IN_FEATURES names {missing[0]}, which MODEL.RESNETS.OUT_FEATURES, {given}, lacks; add it there."
        )
    if joined != list(_RESNET_STAGES[-len(joined) :]) or "stem" in joined:
        return (
            f"MODEL.FPN.IN_FEATURES is {joined}; it must be stages in their order up to res5, such as res3, res4, res5."
        )
    if cfg.MODEL.RESNETS.RES5_DILATION != 1:
        return "MODEL.RESNETS.RES5_DILATION is 2; it must be 1 for a feature pyramid, whose strides double."
    return None


def _find_untrained_level(cfg) -> str | None:
    """Find a feature that the head does not use; distributed training would wait forever for its weights' gradients."""
    backbone, used = cfg.MODEL.BACKBONE.NAME, list(cfg.MODEL.YOLO.IN_FEATURES)
    if backbone not in DETECTRON2_BACKBONES:
        return None
    if backbone == RESNET:
        features = [max(cfg.MODEL.RESNETS.OUT_FEATURES, key=_RESNET_STAGES.index)]
    else:
        features = [f"p{stage[-1]}" for stage in cfg.MODEL.FPN.IN_FEATURES]
        features += ["p6", "p7"] if backbone == RETINANET_FPN else []
    unused = [feature for feature in features if feature not in used]
    if not unused:
        return None
    return (
        f"MODEL.YOLO.IN_FEATURES is {used} and lacks {unused[0]}, whose weights would never be trained: add it "
        f"(AnchorHead needs anchors for it), or choose other features or another MODEL.BACKBONE.NAME than {backbone}."
    )


# Conditions on several keys together, each with the tasks for which it must hold. A condition is a function of the
# config; it returns a sentence about what is wrong, or None.
_RELATIONS: Sequence[tuple[Callable[[Mapping], str | None], frozenset[Task]]] = (
    (_find_unread_key, ALL),
    (_find_incomplete_pyramid, ALL),
    (_find_untrained_level, TRAIN),
    (_find_nothing_to_train_on, TRAIN),
    (_find_nesterov_without_momentum, TRAIN),
)


def check_values(
    cfg: Mapping[str, Any],
    task: Task,
    *,
    num_processes: int = 1,
    registered: Mapping[str, Sequence[str]] | None = None,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Raise a UserError that names the first value with which ``task`` cannot run.

    Args:
        cfg: a config with the keys of ``defaults.py``; other keys are ignored.
        num_processes: number of processes that share the work.
        registered: by key, the names that the key may have, for keys that name a part of the model. A key that is
            missing here may have any name.
        sources: by key, words for error messages that say where the value comes from. The user gave the values of all
            keys that are missing here.
    """
    for key, check in CHECKS.items():
        if task not in check.tasks:
            continue
        kind = check.kind
        if registered and key in registered:
            kind = OneOf(*registered[key])
        _check_value(key, find_value(cfg, key), kind, (sources or {}).get(key))
    for find_fault, tasks in _RELATIONS:
        if task in tasks and (fault := find_fault(cfg)):
            raise UserError(fault)
    if task is Task.TRAIN and cfg.SOLVER.IMS_PER_BATCH % num_processes:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH is {cfg.SOLVER.IMS_PER_BATCH}; it counts the images of all processes together and "
            f"must be a multiple of their number, {num_processes}."
        )


def check_key(cfg: Mapping[str, Any], key: str) -> None:
    """Raise a UserError unless the value of ``key`` is allowed; call it for keys used before :func:`check_values`."""
    _check_value(key, find_value(cfg, key), CHECKS[key].kind, None)


def find_value(cfg: Mapping[str, Any], key: str) -> Any:
    """Return the value of a full key such as "SOLVER.EMA.DECAY"."""
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def changes_weights(key: str, *recipes: Recipe) -> bool:
    """Whether a change of ``key`` in the middle of a training could change the final weights, in any of ``recipes``."""
    if key not in CHECKS:
        return True
    answer = CHECKS[key].changes_weights
    return any(map(answer, recipes)) if callable(answer) else answer


def reads_scores(key: str) -> bool:
    """Whether ``key`` determines how a training is evaluated, or which score chooses its best weights."""
    return key in CHECKS and CHECKS[key].changes_weights in (scores_steer, _scores_end_or_choose)


def _check_value(key: str, value: Any, kind: Kind, source: str | None) -> None:
    if not kind.allows(value):
        where = f" in {source}" if source else ""
        raise UserError(f"{key} is {show(value)}{where}; it must be {kind.allowed}.")
