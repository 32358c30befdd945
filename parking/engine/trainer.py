"""detectron2's ``DefaultTrainer`` with gradient accumulation, averaged weights and a resumable stream of samples."""

import logging
import math
import os
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import DefaultTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import DatasetEvaluators
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from parking import solver
from parking.checkpoint import SECONDS_USED, UNREADABLE_IMAGES, Checkpointer, load_weights, read_weights
from parking.config import Task
from parking.config.checks import Recipe, scores_steer
from parking.config.plain import describe_config, flatten
from parking.data.annotations import check_learnable
from parking.data.build import build_train_loader, load_train_dicts
from parking.data.datasets.coco import original_category_ids
from parking.evaluation.coco_evaluation import COCOBoxEvaluator
from parking.evaluation.prediction_pictures import PredictionPictures, pop_pictures
from parking.inference.build import build_model
from parking.inference.models import check_config
from parking.utils.errors import UserError, explain, explaining_out_of_memory, is_lost_connection

from .clock import TrainingClock
from .evaluation import StopEvaluation, evaluate_copy, evaluate_dataset
from .hooks.checkpoints import BestCheckpointHook, CheckpointHook
from .hooks.early_stopping import EarlyStoppingHook
from .hooks.evaluation import EvalHook, Evaluations
from .hooks.interrupt import InterruptHook, StopRequest
from .hooks.optimization import EMAHook, WarmupHook
from .hooks.pictures import PictureHook, put_pictures
from .hooks.time_budget import TimeBudgetHook
from .hooks.unreadable_images import UnreadableImagesHook
from .resume import check_same_data, check_same_recipe, digest_dataset
from .scores import best_metric, class_ap_of, finite_only
from .train_loop import AccumulatingTrainer, autocast_dtype

logger = logging.getLogger(__name__)

# Iterations between two lines of the log, as in detectron2.
_LOG_PERIOD = 20


class Trainer(DefaultTrainer):
    """Builds everything that a training needs from a config, and trains.

    Use it like detectron2's: ``trainer = Trainer(cfg); trainer.resume_or_load(resume); trainer.train()``. The data
    sets of the config must have been registered (``register_datasets_from_config``).
    """

    def __init__(self, cfg, *, max_seconds: float | None = None, is_followed: bool = False):
        """
        Args:
            max_seconds: time limit of this training, including interrupted runs; None: no limit.
            is_followed: whether another stage starts from the weights that the evaluations of this one choose.
        """
        # Skip DefaultTrainer.__init__: it requires GPUs for several processes, and builds the data loader too early. At
        # which sample the loader must start is known only when a checkpoint has been read.
        TrainerBase.__init__(self)
        check_config(cfg, Task.TRAIN)
        self.cfg = cfg
        self._recipe = Recipe(dict(flatten(describe_config(cfg))), is_followed)
        self.max_iter = cfg.SOLVER.MAX_ITER
        self._last_eval_results: dict[str, Any] | None = None
        self._evaluations = Evaluations()
        self._clock = TrainingClock(os.path.join(cfg.OUTPUT_DIR, SECONDS_USED))
        self._stop_request = StopRequest()
        self._class_ap: list[float] | None = None
        self._max_seconds = max_seconds
        self._dataset_dicts = load_train_dicts(cfg)
        check_learnable(self._dataset_dicts, self._class_names, cfg.DATASETS.TRAIN)
        self._seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()

        self._bare_model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, self._bare_model)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer, self.iters_per_epoch)
        self._warmup = solver.Warmup(
            num_iters=cfg.SOLVER.WARMUP_ITERS,
            bias_lr=cfg.SOLVER.WARMUP_BIAS_LR,
            start_momentum=cfg.SOLVER.WARMUP_MOMENTUM,
            momentum=cfg.SOLVER.MOMENTUM,
        )
        on_gpu = next(self._bare_model.parameters()).is_cuda
        has_sync_norms = any(isinstance(module, nn.SyncBatchNorm) for module in self._bare_model.modules())
        if has_sync_norms and comm.get_world_size() > 1 and not on_gpu:
            raise UserError(
                "SyncBN (MODEL.YOLO.NORM, MODEL.RESNETS.NORM, MODEL.FPN.NORM) trains on GPUs only; set it to BN to "
                "train on the CPU."
            )
        ddp_model = create_ddp_model(
            self._bare_model, broadcast_buffers=False, device_ids=[comm.get_local_rank()] if on_gpu else None
        )
        # Start the average only after the wrapper above has given all processes the same weights.
        self._ema = None
        if cfg.SOLVER.EMA.ENABLED:
            self._ema = solver.ModelEMA(self._bare_model, decay=cfg.SOLVER.EMA.DECAY, warmup=cfg.SOLVER.EMA.WARMUP)
        self._trainer = AccumulatingTrainer(
            ddp_model,
            None,
            optimizer,
            max_iter=self.max_iter,
            accumulation=lambda iteration: self._warmup.accumulation(
                iteration, cfg.SOLVER.NOMINAL_BATCH_SIZE, cfg.SOLVER.IMS_PER_BATCH
            ),
            autocast_dtype=autocast_dtype(cfg, on_gpu),
            metrics_period=_LOG_PERIOD,
        )
        self.checkpointer = Checkpointer(
            self._bare_model,
            cfg.OUTPUT_DIR,
            num_to_keep=cfg.SOLVER.CHECKPOINTS_TO_KEEP,
            extra={**_describe(cfg), "data_digest": self._digest_data()},
            trainer=weakref.proxy(self),
            **({"ema": self._ema} if self._ema else {}),
        )
        self.register_hooks(self.build_hooks())

    @property
    def iters_per_epoch(self) -> int:
        """Number of iterations in an epoch: SOLVER.ITERS_PER_EPOCH, or one pass over the training set if that is 0."""
        return self.cfg.SOLVER.ITERS_PER_EPOCH or math.ceil(len(self._dataset_dicts) / self.cfg.SOLVER.IMS_PER_BATCH)

    def release_state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights to evaluate and to save as results: the averaged ones if SOLVER.EMA.ENABLED."""
        return self._ema.model_state_dict(self._bare_model) if self._ema else self._bare_model.state_dict()

    def resume_or_load(self, resume: bool = True) -> None:
        """If ``resume``, continue from the last checkpoint in OUTPUT_DIR; else load MODEL.WEIGHTS, if it is not empty.

        Raises:
            UserError: there is no checkpoint to resume, or it is from a training with another config or other data.
        """
        if resume:
            self.checkpointer.resume(self._check_resumable)
            self.start_iter = self.iter + 1
        elif self.cfg.MODEL.WEIGHTS:
            load_weights(
                self._bare_model,
                read_weights(self.cfg.MODEL.WEIGHTS),
                class_names=MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0]).thing_classes,
                class_map=self.cfg.MODEL.YOLO.CLASS_MAP,
                will_train=True,
            )
            if self._ema:
                self._ema.restart_from(self._bare_model)
        # Build the loader now, because this reveals the last mistakes in the config, and the caller may next remove the
        # files of an earlier training.
        self._reset_data_loader(self.start_iter)

    def _check_resumable(self, values: Mapping[str, Any]) -> None:
        folder = self.cfg.OUTPUT_DIR
        check_same_recipe(self._recipe, dict(flatten(values.get("config", {}))), output_dir=folder)
        check_same_data(self._recipe, self._digest_data(), values.get("data_digest", {}), output_dir=folder)

    def _digest_data(self) -> dict[str, str]:
        names = {*self.cfg.DATASETS.TRAIN, *self.cfg.DATASETS.TEST}
        return {name: digest_dataset(DatasetCatalog.get(name)) for name in sorted(names)}

    @property
    def seconds_used(self) -> float:
        """Seconds that the training has taken, including interrupted runs."""
        return self._clock.seconds

    def end_at(self, max_iter: int, next_iteration: int) -> None:
        """Move the end of the training and of the learning rate's decay to ``max_iter``; all processes must call this.

        Args:
            next_iteration: the iteration that comes next.
        """
        self.max_iter = self._trainer.max_iter = max_iter
        self.scheduler.set_max_iter(max_iter)
        if self.cfg.INPUT.AUG.STRONG_OFF_ITERS > 0 and next_iteration < max_iter:
            # Rebuild the loader, because the iteration at which mosaic and mixup end moves, too.
            self._reset_data_loader(next_iteration)

    def run_step(self) -> None:
        self._trainer.iter = self.iter
        batch_size, world_size = self.cfg.SOLVER.IMS_PER_BATCH, comm.get_world_size()
        remedy = (
            f"lower SOLVER.IMS_PER_BATCH (now {batch_size}, {batch_size // world_size} for each of {world_size} "
            f"processes) or INPUT.SIZE_TRAIN (now {list(self.cfg.INPUT.SIZE_TRAIN)})"
        )
        with explaining_out_of_memory(f"in iteration {self.iter}", remedy):
            self._trainer.run_step()

    def build_hooks(self) -> list:
        cfg, loop = self.cfg, self._trainer
        ret = [
            hooks.IterationTimer(),
            # LRScheduler sets the learning rates of the next iteration. During the warm-up, WarmupHook replaces these
            # rates before that iteration starts.
            hooks.LRScheduler(self.optimizer, self.scheduler),
            WarmupHook(self._warmup, self.optimizer, self.scheduler),
            EMAHook(self._ema, self._bare_model, loop) if self._ema else None,
            # UnreadableImagesHook stands before CheckpointHook, because the checkpoint after an iteration must contain
            # the names of the images that were left out in this iteration.
            UnreadableImagesHook(os.path.join(cfg.OUTPUT_DIR, UNREADABLE_IMAGES), lambda: loop.last_batch),
            # CheckpointHook stands before EvalHook, so that the weights are saved even if their evaluation fails.
            CheckpointHook(self.checkpointer, loop, cfg.SOLVER.CHECKPOINT_PERIOD, self.release_state_dict),
        ]
        if cfg.DATASETS.TEST:
            metric, patience = best_metric(cfg), cfg.SOLVER.EARLY_STOPPING_PATIENCE
            followers = [BestCheckpointHook(self.checkpointer, metric, self.release_state_dict)]
            if patience > 0:
                followers.append(EarlyStoppingHook(metric, patience, self.end_at))
            follow = [hook.after_evaluation for hook in followers]
            ret += [*followers, EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate, self._evaluations, follow)]
        ret += [
            TimeBudgetHook(
                self._max_seconds,
                max_iter=cfg.SOLVER.MAX_ITER,
                eval_period=cfg.TEST.EVAL_PERIOD if cfg.DATASETS.TEST else 0,
                clock=self._clock,
                evaluations=self._evaluations,
                end_at=self.end_at,
            ),
            PictureHook(lambda: loop.last_batch, self._class_names),
            InterruptHook(self.checkpointer, loop, self._stop_request),
        ]
        if comm.is_main_process():
            # PeriodicWriter stands last, so that it writes everything that the other hooks have put into the storage.
            ret.append(hooks.PeriodicWriter(self.build_writers(), period=_LOG_PERIOD))
        return ret

    def _evaluate(self, next_iteration: int) -> dict[str, Any]:
        raw_results = {}
        self._clock.write_record()
        start = time.monotonic()
        try:
            if self._ema and self.cfg.SOLVER.EMA.EVAL_RAW:
                logger.info("Evaluating the weights themselves, then their average")
                raw_results = self._test_weights(self._bare_model.state_dict(), with_pictures=False)
            results = self._test_weights(self.release_state_dict(), with_pictures=True)
        except StopEvaluation:
            logger.info("Evaluation stopped by Ctrl-C.")
            if next_iteration in (self.start_iter, self.max_iter):
                # End at once: before the first iteration of this run there is nothing to save, and after the last one
                # no iteration follows that could save a checkpoint.
                raise KeyboardInterrupt from None
            return {}
        put_pictures(self.storage, pop_pictures(results))
        self._last_eval_results = results
        self._evaluations.add(next_iteration, comm.all_gather(time.monotonic() - start)[0])
        if self.cfg.DATALOADER.SAMPLER_TRAIN == "ClassBalancedTrainingSampler":
            self._class_ap = comm.all_gather(class_ap_of(results, self._class_names))[0]
            if next_iteration < self.max_iter:
                self._reset_data_loader(next_iteration)
        return finite_only({**results, **({"raw": raw_results} if raw_results else {})})

    def _test_weights(self, state_dict: Mapping[str, torch.Tensor], *, with_pictures: bool) -> dict[str, Any]:
        def test(model: nn.Module) -> dict[str, Any]:
            how = {"should_stop": self._should_stop_evaluation, "restart": restart}
            return self.test(self.cfg, model, with_pictures=with_pictures, **how)

        restart = ""
        if scores_steer(self._recipe):
            restart = (
                " and start anew with --overwrite (--resume refuses this change, as scores steer this training), or "
                "free memory and continue with --resume"
            )
        return evaluate_copy(self.cfg, self._bare_model, state_dict, test)

    def _should_stop_evaluation(self) -> bool:
        # Stop only if a checkpoint is saved before the next iteration, because class-balanced sampling needs the
        # results of this evaluation for that iteration. Stop only with one process: several would have to agree.
        can_stop = not self._trainer.is_amid_step or self.iter >= self.max_iter
        return self._stop_request.is_made and can_stop and comm.get_world_size() == 1

    def train(self) -> dict[str, Any] | None:
        """Train from ``start_iter`` to ``max_iter``; return the results of the last evaluation, None if there was none.

        Unlike ``TrainerBase.train``, this logs a traceback only for bugs, see :func:`explain`.
        """
        epochs = self.max_iter / self.iters_per_epoch
        logger.info(
            f"Training on {len(self._dataset_dicts)} images, iterations {self.start_iter} to {self.max_iter}: "
            f"{epochs:.1f} epochs of {self.iters_per_epoch} iterations of {self.cfg.SOLVER.IMS_PER_BATCH} images"
        )
        self.iter = self.start_iter
        if self._trainer.data_loader is None:
            self._reset_data_loader(self.start_iter)
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                # Read max_iter each time, because hooks may change it.
                while self.iter < self.max_iter:
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    self.iter += 1
            except BaseException as e:
                if explain(e) is None and not isinstance(e, KeyboardInterrupt):
                    logger.exception("Exception during training:")
                self._end_after(e)
                raise
            self.after_train()
        return self._last_eval_results

    def _end_after(self, error: BaseException) -> None:
        try:
            self.after_train()
        except Exception as e:
            # Log this error instead of raising it, so that it does not hide why the training ended: on a full disk, for
            # example, the writers fail, too.
            if not is_lost_connection(e):
                logger.warning(f"Ending the training after {type(error).__name__} failed, too: {e}")

    def _reset_data_loader(self, next_iteration: int) -> None:
        """Rebuild the data loader such that the samples of ``next_iteration`` come next."""
        cfg = self.cfg.clone()
        cfg.defrost()
        cfg.SOLVER.MAX_ITER = self.max_iter
        num_weak = cfg.INPUT.AUG.STRONG_OFF_ITERS = min(cfg.INPUT.AUG.STRONG_OFF_ITERS, self.max_iter)
        self._bare_model.head.strong_augmentation_ends(self.max_iter - num_weak if num_weak else None)
        self._trainer.reset_data_loader(
            lambda: self.build_train_loader(
                cfg, self._dataset_dicts, seed=self._seed, start_iter=next_iteration, class_ap=self._class_ap
            )
        )

    @property
    def _class_names(self) -> list[str]:
        return list(MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0]).thing_classes)

    def state_dict(self) -> dict[str, Any]:
        return {
            **super().state_dict(),
            "seed": self._seed,
            "max_iter": self.max_iter,
            "evaluated_before": self._evaluations.before,
            "class_ap": self._class_ap,
            # Users' heads or losses may draw numbers from this generator; the training itself draws none.
            "rng": comm.all_gather(torch.get_rng_state()),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._seed = state_dict["seed"]
        self.max_iter = self._trainer.max_iter = state_dict["max_iter"]
        self.scheduler.set_max_iter(self.max_iter)
        self._evaluations.before = state_dict["evaluated_before"]
        self._class_ap = state_dict["class_ap"]
        if len(state_dict["rng"]) == comm.get_world_size():
            torch.set_rng_state(state_dict["rng"][comm.get_rank()])

    @classmethod
    def build_model(cls, cfg) -> nn.Module:
        return build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg, model) -> torch.optim.Optimizer:
        return solver.build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer, iters_per_epoch):
        return solver.build_lr_scheduler(cfg, optimizer, iters_per_epoch)

    @classmethod
    def build_train_loader(cls, cfg, dataset_dicts, *, seed, start_iter, class_ap=None):
        return build_train_loader(cfg, dataset_dicts, seed=seed, start_iter=start_iter, class_ap=class_ap)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, class_names=None):
        return COCOBoxEvaluator(
            dataset_name, class_names=class_names, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        )

    @classmethod
    def test(
        cls,
        cfg,
        model,
        *,
        class_names: list[str] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        with_pictures: bool = False,
        restart: str = "",
    ) -> dict[str, Any]:
        """Evaluate the present weights of ``model`` on DATASETS.TEST.

        For test-time augmentation, give a model from ``wrap_for_inference``. Evaluations during training do without the
        augmentation, because it takes about twice the time.

        Args:
            class_names: the model's classes, if they are not those of the data sets.
            should_stop: called after each batch; if it returns True, the evaluation stops.
            with_pictures: whether to add pictures to the results, for :func:`pop_pictures`; requires that the model has
                the classes of the data sets.
            restart: see :func:`parking.inference.runner.inference_settings`.

        Returns:
            {"bbox": {"AP": ..., "AP75": ..., ...}} in percent; for several data sets, a dict of these by data set name.

        Raises:
            StopEvaluation: ``should_stop`` returned True.
        """
        results: dict[str, Any] = {}
        for name in cfg.DATASETS.TEST:
            evaluator = scorer = cls.build_evaluator(cfg, name, class_names)
            if with_pictures:
                evaluator = DatasetEvaluators([scorer, PredictionPictures(name)])
            how = {"leave_out": scorer.leave_out, "should_stop": should_stop, "restart": restart}
            results[name] = evaluate_dataset(cfg, model, name, evaluator, **how)
        return next(iter(results.values())) if len(results) == 1 else results


def _describe(cfg) -> dict[str, Any]:
    """Return what a weights file needs to be usable without other files: config, class names and category ids.

    All are plain values.
    """
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    return {
        "config": describe_config(cfg),
        "class_names": [str(name) for name in metadata.thing_classes],
        "category_ids": original_category_ids(metadata),
    }
