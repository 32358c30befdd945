"""Evaluate a model on registered data sets, during training or afterwards."""

import copy
import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from detectron2.evaluation import DatasetEvaluator, inference_context
from detectron2.utils import comm
from detectron2.utils.logger import log_every_n_seconds
from torch import nn

from parking.data.build import build_inference_loader, load_test_dicts
from parking.inference.build import NotFiniteError, inference_dtype, prepare_for_inference, refuse_overflow
from parking.inference.runner import detect_ahead, find_batch_size, inference_settings, own_share, share_plan
from parking.utils.errors import UserError, explaining_out_of_memory

logger = logging.getLogger(__name__)

# Seconds between two progress lines of an evaluation in the log.
_LOG_SECONDS = 30


class StopEvaluation(Exception):
    """Raised by an evaluation that was asked to stop and so has no results."""


def evaluate_dataset(
    cfg,
    model: nn.Module,
    dataset_name: str,
    evaluator: DatasetEvaluator,
    *,
    leave_out: Callable[[int | str], None],
    should_stop: Callable[[], bool] = lambda: False,
    restart: str = "",
) -> dict[str, Any]:
    """Run ``model`` over a registered data set, and let ``evaluator`` score the results.

    All processes must call this. Each works on its share of the images, and the main process gets the scores.

    Args:
        model: is set to eval mode and used as it is.
        leave_out: with DATASETS.POLICY repair, called with the id of each image that cannot be used.
        should_stop: called after each batch; if it returns True, the evaluation stops.
        restart: see :func:`parking.inference.runner.inference_settings`.

    Raises:
        StopEvaluation: ``should_stop`` returned True.
        UserError: memory runs out or, with DATASETS.POLICY strict, an image cannot be used.
        NotFiniteError: one of the processes raised it, see :func:`parking.inference.build.refuse_overflow`.
    """
    evaluator.reset()
    batches = share_plan(cfg, model, load_test_dicts(dataset_name))
    own = own_share(range(len(batches)))
    num_images, num_done = sum(len(batches[i]) for i in own), 0
    overflow: NotFiniteError | None = None
    when = f"in the evaluation on {dataset_name}"
    settings = inference_settings(cfg, find_batch_size(cfg), when, restart=restart)
    try:
        with inference_context(model), settings:
            for batch, found in detect_ahead(model, build_inference_loader(cfg, batches, own)):
                if should_stop():
                    raise StopEvaluation
                for inputs in batch:
                    if "error" in inputs:
                        _leave_out(cfg, inputs, leave_out)
                usable = [inputs for inputs in batch if "error" not in inputs]
                evaluator.process(usable, [{"instances": instances} for instances in found if instances is not None])
                num_done += len(batch)
                log_every_n_seconds(
                    logging.INFO, f"{dataset_name}: {num_done} of {num_images} images", _LOG_SECONDS, name=__name__
                )
    except NotFiniteError as e:
        overflow = e
    # If one process has this error, raise it in all: the others would wait in vain for the results of that process.
    overflow = next(filter(None, comm.all_gather(overflow)), None)
    if overflow is not None:
        raise overflow
    return evaluator.evaluate() or {}


def _leave_out(cfg, inputs: dict, leave_out: Callable[[int | str], None]) -> None:
    if cfg.DATASETS.POLICY != "repair":
        raise UserError(inputs["error"])
    logger.warning("%s It is left out of the evaluation.", inputs["error"])
    leave_out(inputs["image_id"])


def evaluate_copy(
    cfg, model: nn.Module, state_dict: Mapping[str, torch.Tensor], test: Callable[[nn.Module], dict[str, Any]]
) -> dict[str, Any]:
    """Copy ``model``, load the main process's ``state_dict`` into the copy, and return the result of ``test(copy)``.

    The copy computes as with ``--eval-only``: norms are folded into convolutions, and the type is TEST.DTYPE. If
    weights or outputs do not fit into this type, ``test`` is called again in float32. The copy takes as much memory as
    the weights; ``model``, which is being trained, does not change.
    """
    dtype = inference_dtype(cfg)
    try:
        return _evaluate_copy(model, state_dict, dtype, test)
    except NotFiniteError as e:
        if dtype == torch.float32:
            raise
        logger.warning("%s This evaluation is done in float32 instead.", e)
    return _evaluate_copy(model, state_dict, torch.float32, test)


def _evaluate_copy(model, state_dict, dtype, test):
    remedy = "lower SOLVER.IMS_PER_BATCH and start anew with --overwrite"
    with explaining_out_of_memory("while the model is copied for an evaluation", remedy):
        copied = copy.deepcopy(model)
    copied.load_state_dict(state_dict)
    _broadcast_from_main(copied)
    prepare_for_inference(copied, dtype)
    try:
        # If ``dtype`` is float32, do not check the weights: diverged weights must not end a training here, and the
        # evaluation leaves out boxes that are not finite.
        if dtype != torch.float32:
            refuse_overflow(copied, dtype, "the weights in training")
        return test(copied)
    finally:
        del copied
        if torch.cuda.is_available():
            gc.collect()
            # Free the memory that PyTorch has cached for the CUDA streams of the evaluation: training cannot use it.
            torch.cuda.empty_cache()


@torch.no_grad()
def _broadcast_from_main(model: nn.Module) -> None:
    # Batch norm statistics differ between processes. Checkpoints contain those of the main process, so all processes
    # must evaluate with them.
    if comm.get_world_size() > 1:
        for tensor in model.state_dict().values():
            dist.broadcast(tensor, 0)
