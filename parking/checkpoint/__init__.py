"""Saving, finding and safely loading weights."""

from .checkpointer import FINISHED, SECONDS_USED, UNREADABLE_IMAGES, Checkpointer, find_training, remove_training
from .last_checkpoint import find_last_checkpoint
from .loading import check_all_fit, find_misfits, load_weights
from .values import find_not_finite
from .weights import Weights, describe_origin, distinct_names, find_weights, read_weights, write_weights

__all__ = [
    "FINISHED",
    "SECONDS_USED",
    "UNREADABLE_IMAGES",
    "Checkpointer",
    "Weights",
    "check_all_fit",
    "describe_origin",
    "distinct_names",
    "find_last_checkpoint",
    "find_misfits",
    "find_not_finite",
    "find_training",
    "find_weights",
    "load_weights",
    "read_weights",
    "remove_training",
    "write_weights",
]
