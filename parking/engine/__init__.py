"""Training and inference: everything put together."""

from .launch import launch
from .predictor import build_inference_model, build_model, wrap_for_inference
from .run import list_results, run_evaluation, run_training
from .setup import (
    choose_eval_classes,
    choose_inference_classes,
    choose_weights,
    describe_config,
    find_config_and_weights,
    find_fitting_config,
    setup_logging,
    setup_training,
)
from .trainer import Trainer

__all__ = [
    "Trainer",
    "build_inference_model",
    "build_model",
    "choose_eval_classes",
    "choose_inference_classes",
    "choose_weights",
    "describe_config",
    "find_config_and_weights",
    "find_fitting_config",
    "launch",
    "list_results",
    "run_evaluation",
    "run_training",
    "setup_logging",
    "setup_training",
    "wrap_for_inference",
]
