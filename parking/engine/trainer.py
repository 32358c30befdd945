"""``DefaultTrainer`` for a YOLO: accumulation, averaged weights, a resumable stream of samples."""

import logging
import math
import os
import weakref
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from detectron2.data import MetadataCatalog
from detectron2.engine import DefaultTrainer, create_ddp_model, hooks
from detectron2.engine.train_loop import TrainerBase
from detectron2.evaluation import inference_on_dataset
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from parking import solver
from parking.checkpoint import Checkpointer, find_training, load_weights, read_weights
from parking.data.build import build_test_loader, build_train_loader, load_train_dicts
from parking.data.datasets.builtin import original_category_ids
from parking.evaluation.coco_evaluation import CLASS_METRICS, METRICS, COCOBoxEvaluator
from parking.utils.errors import UserError

from .hooks import BestCheckpointHook, CheckpointHook, EMAHook, EvalHook, InterruptHook, WarmupHook
from .predictor import build_model
from .setup import describe_config
from .train_loop import AccumulatingTrainer

logger = logging.getLogger(__name__)

# Iterations between two lines of the log, as in detectron2.
_LOG_PERIOD = 20


class Trainer(DefaultTrainer):
    """Builds everything a training needs from a config, and trains.

    Used like detectron2's: ``trainer = Trainer(cfg); trainer.resume_or_load(resume); trainer.train()``. The data sets
    of the config must be registered before (``register_datasets_from_config``).
    """

    def __init__(self, cfg):
        # Not DefaultTrainer's, which pins the wrapper for several processes to GPUs and builds the loader too early:
        # where the stream of samples starts is known only after loading a checkpoint.
        TrainerBase.__init__(self)
        self.cfg = cfg
        self.max_iter = cfg.SOLVER.MAX_ITER
        self._last_eval_results: OrderedDict[str, Any] | None = None
        self._dataset_dicts = load_train_dicts(cfg)
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
        if cfg.MODEL.YOLO.NORM == "SyncBN" and comm.get_world_size() > 1 and not on_gpu:
            raise UserError("MODEL.YOLO.NORM SyncBN trains on GPUs only; set it to BN to train on the CPU.")
        ddp_model = create_ddp_model(
            self._bare_model, broadcast_buffers=False, device_ids=[comm.get_local_rank()] if on_gpu else None
        )
        # Only now do all processes have the same weights to start the average from.
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
            mixed_precision=cfg.SOLVER.AMP.ENABLED,
            metrics_period=_LOG_PERIOD,
        )
        self.checkpointer = Checkpointer(
            self._bare_model,
            cfg.OUTPUT_DIR,
            num_to_keep=cfg.SOLVER.CHECKPOINTS_TO_KEEP,
            extra=_describe(cfg),
            trainer=weakref.proxy(self),
            **({"ema": self._ema} if self._ema else {}),
        )
        self.register_hooks(self.build_hooks())

    @property
    def iters_per_epoch(self) -> int:
        """Iterations that count as an epoch: SOLVER.ITERS_PER_EPOCH, or one pass over the training set."""
        return self.cfg.SOLVER.ITERS_PER_EPOCH or math.ceil(len(self._dataset_dicts) / self.cfg.SOLVER.IMS_PER_BATCH)

    @property
    def optimizer_has_stepped(self) -> bool:
        """Whether the present iteration ended with a step of the optimizer."""
        return self._trainer.last_step_iteration == self.iter

    @property
    def last_iteration(self) -> int:
        """The iteration that finished last, also after the loop, when ``iter`` has moved on."""
        return min(self.iter, self.max_iter - 1)

    def release_state_dict(self) -> dict[str, torch.Tensor]:
        """The weights to evaluate and release: the averaged ones, or the raw ones without averaging."""
        return self._ema.model_state_dict(self._bare_model) if self._ema else self._bare_model.state_dict()

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from OUTPUT_DIR's last checkpoint, or start from MODEL.WEIGHTS, if any, with fresh state."""
        if resume:
            self.checkpointer.resume()
            self.start_iter = self.iter + 1
        elif self.cfg.MODEL.WEIGHTS:
            load_weights(
                self._bare_model,
                read_weights(self.cfg.MODEL.WEIGHTS),
                class_names=MetadataCatalog.get(self.cfg.DATASETS.TRAIN[0]).thing_classes,
                class_map=self.cfg.MODEL.YOLO.CLASS_MAP,
                anchors_from_weights=self.cfg.MODEL.YOLO.ANCHORS_FROM_WEIGHTS,
                will_train=True,
            )
            if self._ema:
                self._ema.restart_from(self._bare_model)

    def remove_previous_training(self) -> None:
        """Remove checkpoints and curves of an earlier training from OUTPUT_DIR; nothing else there is touched.

        To be called when this training is ready to start, weights loaded: a mistake in the config costs nothing then.
        """
        if not comm.is_main_process():
            return
        folder = Path(self.cfg.OUTPUT_DIR)
        for path in [*find_training(self.cfg.OUTPUT_DIR), *folder.glob("events.out.tfevents.*")]:
            path.unlink()
        # Open for appending by now.
        if (folder / "metrics.json").exists():
            os.truncate(folder / "metrics.json", 0)

    def flush_metrics(self) -> None:
        """Log the losses so far; every process must call it. Raises FloatingPointError where one is not finite."""
        self._trainer.flush_metrics()

    def build_hooks(self) -> list:
        cfg = self.cfg
        ret = [
            hooks.IterationTimer(),
            # Sets the rates of the next iteration, which the warm-up then overrides before that iteration starts.
            hooks.LRScheduler(self.optimizer, self.scheduler),
            WarmupHook(self._warmup, self.optimizer, self.scheduler),
            EMAHook(self._ema, self._bare_model) if self._ema else None,
            # Before the evaluation: if that fails, the weights are there to find out why.
            CheckpointHook(self.checkpointer, cfg.SOLVER.CHECKPOINT_PERIOD),
        ]
        if cfg.DATASETS.TEST:
            ret.append(EvalHook(cfg.TEST.EVAL_PERIOD, self._evaluate))
            ret.append(BestCheckpointHook(self.checkpointer, _best_metric(cfg)))
        self._interrupt = InterruptHook(self.checkpointer)
        ret.append(self._interrupt)
        if comm.is_main_process():
            # Last, so that everything put into the storage above is written.
            ret.append(hooks.PeriodicWriter(self.build_writers(), period=_LOG_PERIOD))
        return ret

    def _evaluate(self) -> OrderedDict[str, Any]:
        with self._ema.applied_to(self._bare_model) if self._ema else nullcontext():
            _broadcast_from_main(self._bare_model)
            try:
                results = self.test(self.cfg, self._bare_model, should_stop=self._should_stop_evaluation)
            except StopEvaluation:
                logger.info("Evaluation left out after Ctrl-C.")
                if self.iter >= self.max_iter:
                    raise KeyboardInterrupt from None
                return OrderedDict()
        self._last_eval_results = results
        return _finite_only(results)

    def _should_stop_evaluation(self) -> bool:
        # Several processes would have to agree, or one would wait for the other's results.
        return self._interrupt.requested and comm.get_world_size() == 1

    def train(self) -> OrderedDict[str, Any] | None:
        """Train from ``start_iter`` to ``max_iter``; returns the last evaluation's results, None without any.

        Differs from ``TrainerBase.train`` in that a user's mistake and Ctrl-C are not logged with a traceback.
        """
        epochs = self.max_iter / self.iters_per_epoch
        logger.info(
            f"Training on {len(self._dataset_dicts)} images, iterations {self.start_iter} to {self.max_iter}: "
            f"{epochs:.1f} epochs of {self.iters_per_epoch} iterations of {self.cfg.SOLVER.IMS_PER_BATCH} images"
        )
        self.iter = self.start_iter
        self._trainer.data_loader = self.build_train_loader(
            self.cfg, self._dataset_dicts, seed=self._seed, start_iter=self.start_iter
        )
        with EventStorage(self.start_iter) as self.storage:
            try:
                self.before_train()
                for iteration in range(self.start_iter, self.max_iter):
                    self.iter = iteration
                    self.before_step()
                    self.run_step()
                    self.after_step()
                self.iter = self.max_iter
            except (UserError, KeyboardInterrupt):
                raise
            except Exception:
                logger.exception("Exception during training:")
                raise
            finally:
                self.after_train()
        return self._last_eval_results

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seed": self._seed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._seed = state_dict["seed"]

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
    def build_train_loader(cls, cfg, dataset_dicts, *, seed, start_iter):
        return build_train_loader(cfg, dataset_dicts, seed=seed, start_iter=start_iter)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg, dataset_name, class_names=None):
        return COCOBoxEvaluator(
            dataset_name, class_names=class_names, output_dir=os.path.join(cfg.OUTPUT_DIR, "inference", dataset_name)
        )

    @classmethod
    def test(
        cls, cfg, model, *, class_names: list[str] | None = None, should_stop: Callable[[], bool] = lambda: False
    ) -> OrderedDict[str, Any]:
        """Evaluate ``model``'s present weights on DATASETS.TEST, one view per image.

        Wrap the model (:func:`wrap_for_inference`) for test-time augmentation, which takes about twice the time and is
        left out while training.

        Args:
            class_names: the model's classes, where they are not the data sets'.
            should_stop: asked before every image.

        Returns:
            {"bbox": {"AP": ..., "AP75": ..., ...}} in percent; with several data sets, that by data set name.

        Raises:
            StopEvaluation: ``should_stop`` said yes.
        """
        results = OrderedDict()
        for name in cfg.DATASETS.TEST:
            evaluator = cls.build_evaluator(cfg, name, class_names)
            loader = _StoppableLoader(cls.build_test_loader(cfg, name), should_stop)
            results[name] = inference_on_dataset(model, loader, evaluator)
        return next(iter(results.values())) if len(results) == 1 else results


class StopEvaluation(Exception):
    """An evaluation was asked to stop; there are no results."""


class _StoppableLoader:
    def __init__(self, loader, should_stop: Callable[[], bool]):
        self._loader = loader
        self._should_stop = should_stop

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self):
        for batch in self._loader:
            if self._should_stop():
                raise StopEvaluation
            yield batch


def _best_metric(cfg) -> str:
    """The name under which TEST.BEST_METRIC is stored: with several data sets, by default the first one's."""
    metric, names = cfg.TEST.BEST_METRIC, list(cfg.DATASETS.TEST)
    if len(names) > 1 and not metric.startswith(tuple(f"{name}/" for name in names)):
        metric = f"{names[0]}/{metric}"
    score = metric.rpartition("bbox/")[2]
    known = [*METRICS, *(f"{m}-{c}" for m in CLASS_METRICS for c in MetadataCatalog.get(names[0]).thing_classes)]
    if "bbox/" not in metric or score not in known:
        raise UserError(
            f"TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}; the choices are bbox/ and one of {', '.join(METRICS)}, or "
            f"such as AP75-{MetadataCatalog.get(names[0]).thing_classes[0]}."
        )
    return metric


def _describe(cfg) -> dict[str, Any]:
    """What a lone weights file needs to be usable: config, class names, original category ids, as plain values."""
    metadata = MetadataCatalog.get(cfg.DATASETS.TRAIN[0])
    return {
        "config": describe_config(cfg),
        "class_names": [str(name) for name in metadata.thing_classes],
        "category_ids": original_category_ids(metadata),
    }


@torch.no_grad()
def _broadcast_from_main(model: nn.Module) -> None:
    # BN statistics are each process's own; what is evaluated must be what the main process saves.
    if comm.get_world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)


def _finite_only(results: dict[str, Any]) -> dict[str, Any]:
    # A class without boxes scores NaN, which metrics.json cannot hold.
    return OrderedDict(
        (key, _finite_only(value) if isinstance(value, dict) else value)
        for key, value in results.items()
        if isinstance(value, dict) or math.isfinite(value)
    )
