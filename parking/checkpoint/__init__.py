"""Saving, finding and safely loading weights."""

from .checkpointer import Checkpointer, find_training
from .loading import check_all_fit, load_weights
from .weights import Weights, check_weights_path, describe_origin, find_weights, read_weights, write_weights

__all__ = [
    "Checkpointer",
    "Weights",
    "check_all_fit",
    "check_weights_path",
    "describe_origin",
    "find_training",
    "find_weights",
    "load_weights",
    "read_weights",
    "write_weights",
]
