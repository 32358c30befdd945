"""Run ``train_net.py``: train the stages of a config one after the other, or evaluate weights."""

import gc
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from parking.checkpoint import find_misfits, find_training, read_weights, remove_training
from parking.config import Task, get_typed
from parking.config.checks import Recipe
from parking.config.compat import read_version, upgrade_config
from parking.config.plain import describe_config, flatten
from parking.config.stages import Stage, read_stages, select_stages
from parking.config.yaml_files import parse_config, read_config_text
from parking.inference.build import build_inference_model, find_shapes
from parking.inference.models import check_config, choose_eval_classes, choose_weights, last_stage_with_weights
from parking.utils.errors import UserError
from parking.utils.files import check_writable
from parking.utils.logs import setup_logging
from parking.utils.text import join_some, printable

from .resume import check_same_recipe, keep_earlier_behaviour, tell_changed_scores
from .setup import check_output_dir, claim_output_dir, lock_output_dir, setup_evaluation, setup_training
from .stages import choose_start, is_finished, is_resumable, mark_finished, share_of_budget
from .trainer import Trainer

logger = logging.getLogger(__name__)


def run_training(args) -> dict[str, Any] | None:
    """Train the stages of ``args.config_file``, or only ``args.stage``; return the final scores of the last stage.

    Args:
        args: ``config_file``, ``opts``, ``stage``, ``resume``, ``overwrite``.

    Raises:
        UserError: an argument, the config, a file or an OUTPUT_DIR is wrong. Whatever can be checked beforehand is
            checked for all stages before the first one begins.
    """
    setup_logging()  # because reading the config may log
    all_stages = read_stages(args.config_file, args.opts)
    stages = select_stages(all_stages, args.stage)
    for stage in stages:
        check_config(stage.cfg, Task.TRAIN)
    with ExitStack() as locks:
        if comm.is_main_process():
            # Lock the folders before reading anything in them, so that no other training writes there meanwhile.
            for stage in stages:
                check_writable(stage.cfg.OUTPUT_DIR, name="OUTPUT_DIR")
                locks.enter_context(lock_output_dir(stage.cfg.OUTPUT_DIR))
        comm.synchronize()  # no process may look into the folders before they are locked
        return _train(stages, all_stages, args)


def _train(stages, all_stages, args) -> dict[str, Any] | None:
    done = [s for s in all_stages if is_finished(s) and (args.resume or s not in stages)]
    resumed = [s for s in stages if args.resume and s not in done and is_resumable(s)]
    _check(stages, all_stages, done, resumed, args)
    comm.synchronize()  # no process may write a file before all have checked the folders
    if comm.is_main_process():
        for stage in stages:
            claim_output_dir(stage.cfg.OUTPUT_DIR)
    if all(stage in done for stage in stages):
        setup_logging()
        logger.info("Everything is finished already: there is nothing to resume.")

    results = None
    for stage in [s for s in stages if s not in done]:
        if stage not in resumed:
            _choose_start(stage, args)
        setup_training(stage.cfg, args)
        if stage.name:
            logger.info(f"Stage {stage.name} of {', '.join(s.name for s in stages)}")
        trainer = Trainer(
            stage.cfg,
            max_seconds=share_of_budget(stage, all_stages, done),
            is_followed=stage is not all_stages[-1],
        )
        trainer.resume_or_load(resume=stage in resumed)
        comm.synchronize()  # files are removed next, so all processes must have read them
        if stage not in resumed:
            # With --overwrite, there may be trainings of later stages. Remove them, too, because they started from the
            # weights that this stage replaces.
            for replaced in stages[stages.index(stage) :]:
                remove_training(replaced.cfg.OUTPUT_DIR, keep_time=args.resume)
            comm.synchronize()
        results = trainer.train()
        if comm.is_main_process():
            mark_finished(stage, trainer.seconds_used)
        comm.synchronize()  # the next stage reads files of this one
        done.append(stage)
        del trainer
        gc.collect()  # free the memory of trainer and hooks, which refer to each other, for the next stage
    return results


def run_evaluation(args) -> dict[str, Any]:
    """Evaluate MODEL.WEIGHTS if the command line gives it, else the weights of a stage; return the scores.

    The stage is ``args.stage`` if given, else the last one that has weights.
    """
    stage = last_stage_with_weights(select_stages(read_stages(args.config_file, args.opts), args.stage))
    setup_evaluation(stage.cfg)
    weights = read_weights(choose_weights(stage.cfg, args.opts))
    class_names = choose_eval_classes(stage.cfg, weights)
    model = build_inference_model(stage.cfg, weights, class_names)
    return Trainer.test(stage.cfg, model, class_names=class_names)


def _choose_start(stage: Stage, args) -> None:
    if args.stage is None or get_typed(args.opts, "MODEL.WEIGHTS") is None:
        choose_start(stage)


def _check(stages: list[Stage], all_stages: list[Stage], done: list[Stage], resumed: list[Stage], args) -> None:
    for stage in stages:
        # With --resume, allow files of a training even if no checkpoint is there: a stage that stopped before its first
        # checkpoint has left logs.
        check_output_dir(stage.cfg.OUTPUT_DIR, may_hold_training=args.resume or args.overwrite)
    check_stages_fit(stages)
    if args.resume:
        _keep_earlier_behaviour(all_stages, args)
        _check_resumable(stages, all_stages, done, resumed)
    stale = [s.name for s in all_stages[all_stages.index(stages[-1]) + 1 :] if find_training(s.cfg.OUTPUT_DIR)]
    if args.overwrite and stale:
        raise UserError(
            f"--overwrite: stage {stale[0]} was trained from what stage {stages[-1].name} would replace; overwrite all "
            f"stages, or move that stage's folder away."
        )
    if stages[0] not in done and stages[0] not in resumed:
        _choose_start(stages[0], args)
        weights = stages[0].cfg.MODEL.WEIGHTS
        frozen = stages[0].cfg.MODEL.BACKBONE.FREEZE_AT
        if frozen > 0 and not weights:
            raise UserError(
                f"MODEL.BACKBONE.FREEZE_AT is {frozen}, but without MODEL.WEIGHTS these stages would stay random; set "
                f"it to 0, or name weights of this project's model."
            )
        if weights and "://" not in weights and not os.path.exists(weights):
            # Check early that the file exists, because weights are read only after the data.
            raise UserError(
                f"MODEL.WEIGHTS {weights} is not there: put the file there (docs/weights.md says where to get it), "
                f"name another with MODEL.WEIGHTS FILE, or train from scratch with MODEL.WEIGHTS ''."
            )


def check_stages_fit(stages: Sequence[Stage]) -> None:
    """Raise a UserError if the weights of a stage would not fit the model of the next one."""
    for earlier, later in itertools.pairwise(stages):
        # Compare the models as if they had the same number of classes: stages may differ in it, because loading maps
        # the weights from class to class.
        same_classes = earlier.cfg.clone()
        same_classes.MODEL.YOLO.NUM_CLASSES = later.cfg.MODEL.YOLO.NUM_CLASSES
        misfits = find_misfits(find_shapes(same_classes), find_shapes(later.cfg))
        if misfits:
            raise UserError(
                f"stage {later.name} starts from the weights of stage {earlier.name}, but they would not fit its "
                f"model: {join_some(misfits, 3)}; give both stages the same model."
            )


def _keep_earlier_behaviour(stages: list[Stage], args) -> None:
    """Let all stages behave as in the version of this project with which the training began."""
    saved = [stage for stage in stages if find_training(stage.cfg.OUTPUT_DIR) and _saved_config(stage).is_file()]
    if not saved:
        return
    earlier, _ = _read_saved_config(saved[0])
    for stage in stages:
        keep_earlier_behaviour(stage.cfg, earlier, args.opts)


def _saved_config(stage: Stage) -> Path:
    return Path(stage.cfg.OUTPUT_DIR, "config.yaml")


def _read_saved_config(stage: Stage) -> tuple[dict[str, Any], int]:
    """Return the config that a training began with, translated to the present version, and the VERSION in its file.

    Call this before the present run writes its own config to the same file.
    """
    path = str(_saved_config(stage))
    source = f"config file {printable(path)}"
    config = parse_config(read_config_text(path), path)
    if not isinstance(config, Mapping):
        raise UserError(f"{source} does not hold a mapping of config keys; put it back.")
    return upgrade_config(config, source, is_complete=True), read_version(config, source)


def _check_resumable(stages: list[Stage], all_stages: list[Stage], done: list[Stage], resumed: list[Stage]) -> None:
    if not any(_saved_config(stage).exists() for stage in stages):
        folders = ", ".join(stage.cfg.OUTPUT_DIR for stage in stages)
        raise UserError(f"OUTPUT_DIR {folders} holds no training to resume; start one without --resume.")
    is_later = False
    for stage in stages:
        folder = stage.cfg.OUTPUT_DIR
        if find_training(folder) and (is_later or stage not in [*done, *resumed]):
            raise UserError(
                f"--resume: {folder} holds weights, but no checkpoint to go on from, or the previous stage is not "
                f"finished; move the weights away, or start anew with --overwrite."
            )
        is_later = is_later or stage not in done
        if find_training(folder) and _saved_config(stage).is_file():
            # Do not compare 0 classes, which stands for the number of classes in the data; data are compared later.
            values = dict(pair for pair in flatten(describe_config(stage.cfg)) if pair != ("MODEL.YOLO.NUM_CLASSES", 0))
            recipe = Recipe(values, is_followed=stage is not all_stages[-1])
            saved, version = _read_saved_config(stage)
            tell_changed_scores(recipe, version, output_dir=folder)
            check_same_recipe(recipe, dict(flatten(saved)), output_dir=folder)


def list_results(args) -> list[tuple[str, str]]:
    """Return (title, path) of each result of a training; the last pair holds the command that shows the curves."""
    stages = select_stages(read_stages(args.config_file, args.opts), args.stage)
    found = []
    for stage in stages:
        folder = Path(stage.cfg.OUTPUT_DIR)
        for title, name in [
            ("best weights", "model_best.pth"),
            ("final weights", "model_final.pth"),
            ("config", "config.yaml"),
            ("log", "log.txt"),
            ("curves", "metrics.json"),
        ]:
            if (folder / name).exists():
                found.append((f"{stage.name} {title}".strip(), str(folder / name)))
    return [*found, ("TensorBoard", f"tensorboard --logdir {stages[0].root}")]
