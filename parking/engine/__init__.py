"""Training and evaluation: the trainer, its hooks, stages, resuming, and the launch of several processes."""

from .launch import launch
from .run import list_results, run_evaluation, run_training
from .setup import setup_training
from .trainer import Trainer

__all__ = ["Trainer", "launch", "list_results", "run_evaluation", "run_training", "setup_training"]
