"""The table of checks: every key, every kind of bad value, every task."""

import math
import re

import pytest

from parking.config import Task, get_cfg
from parking.config.checks import CHECKS, Recipe, changes_weights, check_key, check_values, find_value
from parking.config.kinds import Flag, ListOf, OneOf, Real, Text, Whole
from parking.config.plain import flatten
from parking.utils.errors import UserError

KEYS = sorted(dict(flatten(get_cfg())))
HUGE = 10**5000
# Values that no key may have, whatever its kind is.
NEVER = [None, {}, {"a": 1}, object(), b"x", [None], [[None]], math.nan, math.inf, -math.inf, HUGE, -HUGE, "a\0b"]


def set_value(cfg, key, value):
    *parents, last = key.split(".")
    for part in parents:
        cfg = cfg[part]
    dict.__setitem__(cfg, last, value)


def bad_values(kind):
    if isinstance(kind, Whole):
        return [kind.low - 1, kind.high + 1, float(kind.low), True, str(kind.low), [kind.low]]
    if isinstance(kind, Real):
        limits = [kind.low] * kind.above + [kind.high] * kind.below
        return [kind.low - 1, kind.high * 2 + 1, True, "0.5", [0.5], 1e308, *limits]
    if isinstance(kind, Flag):
        return [0, 1, "True", [True]]
    if isinstance(kind, OneOf):
        other = [name.swapcase() for name in map(str, kind.names) if name.swapcase() != name]
        other += [] if "" in kind.names else [""]
        first = kind.names[0]
        return [1, True, 50.0, "50", f" {first}", f"{first} ", f"{first}\n", list(kind.names), *other]
    if isinstance(kind, Text):
        return [1, True, ["a"]] + ([""] if kind.pattern != ".*" else [])
    assert isinstance(kind, ListOf)
    return ["ab", 1, True, [math.nan], [HUGE], [[math.inf, 1]], [{}]]


def test_every_key_has_a_row_and_every_row_is_a_key():
    assert sorted(CHECKS) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_bad_values_are_one_sentence_with_key_value_and_what_is_allowed(key):
    check, cfg = CHECKS[key], get_cfg()
    assert check.tasks, "some task must use it"
    for value in [*NEVER, *bad_values(check.kind)]:
        set_value(cfg, key, value)
        for task in Task:
            if task not in check.tasks:
                continue
            with pytest.raises(UserError, match=rf"^{re.escape(key)} is .+; it must be .+\.$") as raised:
                check_values(cfg, task)
            assert len(str(raised.value)) < 600 and str(raised.value).isprintable()


@pytest.mark.parametrize("task", list(Task))
def test_a_key_is_looked_at_by_the_tasks_that_use_it_only(task):
    cfg = get_cfg()
    for key in KEYS:
        if task not in CHECKS[key].tasks:
            set_value(cfg, key, object())
    check_values(cfg, task)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("MODEL.PIXEL_STD", value) for value in ([255.0, 0.0, 255.0], [255.0, 255.0])],
        ("MODEL.PIXEL_MEAN", [0.0, math.nan, 0.0]),
        *[("INPUT.SIZE_TRAIN", value) for value in ([640, -640], [640])],
        *[("MODEL.ANCHOR_HEAD.ANCHORS", value) for value in ([], [[10, 13]], [[[1, 2]], [[1, 2], [3, 4]]], [[[1, 0]]])],
        ("MODEL.ANCHOR_HEAD.ANCHORS", [[["a", 2]]]),
        *[("MODEL.DEVICE", value) for value in ("gpu", "cuda:x")],
        ("SOLVER.STAGES", [["one"]]),
        ("DATASETS.COCO", [["name", "a.json"]]),
        ("DATASETS.TRAIN", ["a", "a"]),
        *[("TEST.FALLBACKS", value) for value in (["TEST.AUG.ENABLED", False], [["TEST.AUG.ENABLED"]])],
        ("TEST.BEST_METRIC", "AP75"),
        ("TEST.SUBMISSION_MB", 0.0),
        ("MODEL.YOLO.CLASS_MAP", [["a"]]),
    ],
)
def test_values_that_cannot_work(key, value):
    cfg = get_cfg()
    set_value(cfg, key, value)
    with pytest.raises(UserError, match=re.escape(key)):
        check_key(cfg, key)


@pytest.mark.parametrize("num_processes", range(1, 9))
@pytest.mark.parametrize("batch_size", [1, 2, 3, 8, 16])
def test_only_training_needs_a_batch_that_can_be_shared(num_processes, batch_size):
    cfg = get_cfg()
    cfg.SOLVER.IMS_PER_BATCH = batch_size
    for task in (Task.EVAL, Task.INFER):
        check_values(cfg, task, num_processes=num_processes)
    if batch_size % num_processes == 0:
        check_values(cfg, Task.TRAIN, num_processes=num_processes)
    else:
        with pytest.raises(UserError, match=rf"SOLVER\.IMS_PER_BATCH is {batch_size}; .*{num_processes}\.$"):
            check_values(cfg, Task.TRAIN, num_processes=num_processes)


def test_values_that_contradict_each_other():
    cfg = get_cfg()
    cfg.SOLVER.MOMENTUM = 0.0
    with pytest.raises(UserError, match=r"SOLVER\.MOMENTUM is 0"):
        check_values(cfg, Task.TRAIN)
    check_values(cfg, Task.INFER)
    cfg.SOLVER.NESTEROV = False
    check_values(cfg, Task.TRAIN)
    cfg.DATASETS.TRAIN = ()
    with pytest.raises(UserError, match=r"DATASETS\.TRAIN is empty"):
        check_values(cfg, Task.TRAIN)


def test_names_of_parts_and_where_a_value_is_from():
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    check_values(cfg, Task.INFER)
    with pytest.raises(UserError, match=r"META_ARCHITECTURE is 'RetinaNet' in a\.pth; .*YOLO, Other\."):
        check_values(
            cfg,
            Task.INFER,
            registered={"MODEL.META_ARCHITECTURE": ["YOLO", "Other"]},
            sources={"MODEL.META_ARCHITECTURE": "a.pth"},
        )


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 400, "nan", ".nan", ".inf", "1_000e999"])
@pytest.mark.parametrize("key", ["SOLVER.BASE_LR", "SOLVER.MAX_ITER", "INPUT.AUG.SCALE"])
def test_numbers_that_are_none(key, text):
    cfg = get_cfg()
    with pytest.raises(UserError, match=re.escape(key)):
        cfg.merge_from_list([key, text])
        check_values(cfg, Task.TRAIN)


def test_what_can_change_a_weight():
    plain = {"DATALOADER.SAMPLER_TRAIN": "TrainingSampler", "SOLVER.EARLY_STOPPING_PATIENCE": 0}
    alone, followed = Recipe(plain, False), Recipe(plain, True)
    balanced = Recipe({**plain, "DATALOADER.SAMPLER_TRAIN": "ClassBalancedTrainingSampler"}, False)
    stopping = Recipe({**plain, "SOLVER.EARLY_STOPPING_PATIENCE": 3}, False)
    for key in ("TEST.AUG.ENABLED", "SOLVER.EMA.EVAL_RAW", "OUTPUT_DIR", "SOLVER.CHECKPOINT_PERIOD"):
        assert not changes_weights(key, alone, followed, balanced, stopping)
    for key in ("SEED", "SOLVER.BASE_LR", "SOLVER.EMA.DECAY", "INPUT.SIZE_TRAIN", "A.KEY.OF.ANOTHER_VERSION"):
        assert changes_weights(key, alone)
    for key in ("INPUT.SIZE_TEST", "TEST.DTYPE", "DATASETS.TEST", "TEST.EVAL_PERIOD", "MODEL.YOLO.NMS_THRESH_TEST"):
        assert not changes_weights(key, alone)
        assert all(changes_weights(key, alone, recipe) for recipe in (followed, balanced, stopping))
    # The sampler reads the AP of each class, not TEST.BEST_METRIC.
    metric = [changes_weights("TEST.BEST_METRIC", recipe) for recipe in (alone, balanced, followed, stopping)]
    assert metric == [False, False, True, True]


def test_choices_are_what_the_code_knows():
    from parking.challenge.splits import SPLITS
    from parking.challenge.submission.selection import SPACINGS

    for key, known in [
        ("DATASETS.SPLIT", SPLITS),
        ("TEST.SUBMISSION_SPACING", SPACINGS),
    ]:
        assert set(CHECKS[key].kind.names) == set(known), key


def test_every_choice_builds_something():
    import torch

    from parking.engine.train_loop import autocast_dtype
    from parking.inference.build import inference_dtype
    from parking.modeling import DetectionFusion
    from parking.solver import build_lr_scheduler, build_optimizer

    builders = {
        "SOLVER.OPTIMIZER": lambda cfg: build_optimizer(cfg, torch.nn.Linear(1, 1)),
        "SOLVER.LR_SCHEDULER_NAME": lambda cfg: build_lr_scheduler(cfg, build_optimizer(cfg, torch.nn.Linear(1, 1)), 2),
        "SOLVER.LR_DECAY_PER": lambda cfg: build_lr_scheduler(cfg, build_optimizer(cfg, torch.nn.Linear(1, 1)), 2),
        "SOLVER.AMP.DTYPE": lambda cfg: autocast_dtype(cfg, on_gpu=False),
        "TEST.DTYPE": inference_dtype,
        "TEST.FUSION.NAME": DetectionFusion,
    }
    for key, build in builders.items():
        for name in CHECKS[key].kind.names:
            cfg = get_cfg()
            cfg.SOLVER.AMP.ENABLED = True
            cfg.merge_from_list([key, name])
            build(cfg)


def test_the_defaults_are_allowed():
    for task in Task:
        check_values(get_cfg(), task)
    assert find_value(get_cfg(), "SOLVER.EMA.DECAY") == 0.9999
