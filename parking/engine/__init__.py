"""Training and inference: everything put together."""

from .launch import launch
from .predictor import build_inference_model, build_model, wrap_for_inference
from .setup import check_output_dir, find_config_and_weights, resolve_device, resolve_num_classes, setup_training
from .trainer import Trainer

__all__ = [
    "Trainer",
    "build_inference_model",
    "build_model",
    "check_output_dir",
    "find_config_and_weights",
    "launch",
    "resolve_device",
    "resolve_num_classes",
    "setup_training",
    "wrap_for_inference",
]
