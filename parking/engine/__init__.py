"""Training and inference: everything put together."""

from .launch import launch
from .predictor import build_inference_model, build_model, wrap_for_inference
from .setup import choose_weights, find_config_and_weights, setup_logging, setup_training
from .trainer import Trainer

__all__ = [
    "Trainer",
    "build_inference_model",
    "build_model",
    "choose_weights",
    "find_config_and_weights",
    "launch",
    "setup_logging",
    "setup_training",
    "wrap_for_inference",
]
