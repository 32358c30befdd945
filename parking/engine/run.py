"""What ``train_net.py`` does: the stages of a training one after the other, or the evaluation of one."""

import gc
import logging
import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

from detectron2.utils import comm

from parking.checkpoint import read_weights, remove_training
from parking.utils.errors import UserError

from .predictor import build_inference_model
from .resume import check_same_recipe
from .setup import (
    check_config,
    check_output_dir,
    choose_eval_classes,
    choose_weights,
    describe_config,
    setup_evaluation,
    setup_logging,
    setup_training,
)
from .stages import Stage, last_stage_with_weights, read_stages, select_stages, share_of_budget
from .trainer import Trainer

logger = logging.getLogger(__name__)


def run_training(args) -> OrderedDict[str, Any] | None:
    """Train the stages of ``args.config_file``, or the one that is ``args.stage``; the last one's final scores.

    Args:
        args: ``config_file``, ``opts``, ``stage``, ``resume``, ``overwrite``.

    Raises:
        UserError: anything that can be known to be wrong, of any stage, before the first one begins; or later.
    """
    stages = select_stages(read_stages(args.config_file, args.opts), args.stage)
    resumed = [args.resume and _is_resumable(stage) for stage in stages]
    finished = [is_resumed and stage.is_finished for stage, is_resumed in zip(stages, resumed, strict=True)]
    _check(stages, resumed, args)
    comm.synchronize()  # no process may write the first file before all have looked

    if all(finished):
        setup_logging()
        logger.info("Everything is finished already: there is nothing to resume.")
    results = None
    for i, stage in enumerate(stages):
        if finished[i]:
            continue
        stage.choose_start()
        setup_training(stage.cfg, args)
        logger.info(f"Stage {stage.name} of {', '.join(s.name for s in stages)}" if stage.name else "One stage")
        trainer = Trainer(stage.cfg, max_seconds=share_of_budget(stage, stages))
        trainer.resume_or_load(resume=resumed[i])
        if not resumed[i]:
            # Now that this one is ready to start. What later stages hold comes from other weights than it will give.
            for later in stages[i:]:
                remove_training(later.cfg.OUTPUT_DIR)
            comm.synchronize()
        results = trainer.train()
        if comm.is_main_process():
            stage.mark_finished(trainer.seconds_used)
        comm.synchronize()  # the next one reads what this one has written
        del trainer
        gc.collect()  # trainer and hooks refer to each other, and the next stage needs the memory
    return results


def run_evaluation(args) -> OrderedDict[str, Any]:
    """Score the weights of the last stage that has some (or of ``args.stage``), or those typed as MODEL.WEIGHTS."""
    stage = last_stage_with_weights(select_stages(read_stages(args.config_file, args.opts), args.stage))
    setup_evaluation(stage.cfg)
    weights = read_weights(choose_weights(stage.cfg, args.opts))
    class_names = choose_eval_classes(stage.cfg, weights)
    model = build_inference_model(stage.cfg, weights, class_names)
    return Trainer.test(stage.cfg, model, class_names=class_names)


def _is_resumable(stage: Stage) -> bool:
    return Path(stage.cfg.OUTPUT_DIR, "last_checkpoint").is_file()


def _check(stages: list[Stage], resumed: list[bool], args) -> None:
    for stage in stages:
        check_config(stage.cfg)
    if args.resume:
        if not any(Path(stage.cfg.OUTPUT_DIR, "config.yaml").exists() for stage in stages):
            folders = ", ".join(stage.cfg.OUTPUT_DIR for stage in stages)
            raise UserError(f"OUTPUT_DIR {folders} holds no training to resume; start one without --resume.")
        for stage in stages:
            if stage.is_finished:
                earlier = read_weights(Path(stage.cfg.OUTPUT_DIR, "model_final.pth")).config or {}
                check_same_recipe(describe_config(stage.cfg), earlier, output_dir=stage.cfg.OUTPUT_DIR)
    for stage, is_resumed in zip(stages, resumed, strict=True):
        # A stage of --resume without a checkpoint was stopped before its first, and may hold its logs.
        check_output_dir(stage.cfg.OUTPUT_DIR, may_hold_training=args.resume or args.overwrite)
        if stage is stages[0] and not is_resumed:
            stage.choose_start()
            weights = stage.cfg.MODEL.WEIGHTS
            if weights and "://" not in weights and not os.path.exists(weights):
                # Long before they are read, which is after the data.
                raise UserError(
                    f"MODEL.WEIGHTS {weights} is not there: put the file there (docs/weights.md says where to get it), "
                    f"name another with MODEL.WEIGHTS FILE, or train from scratch with MODEL.WEIGHTS ''."
                )


def list_results(args) -> list[tuple[str, str]]:
    """(what, path) of everything that a training of ``args`` left behind, and the command that draws its curves."""
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
