"""Training: everything put together."""

from .launch import launch
from .run import list_results, run_evaluation, run_training
from .setup import setup_training
from .trainer import Trainer

__all__ = ["Trainer", "launch", "list_results", "run_evaluation", "run_training", "setup_training"]
