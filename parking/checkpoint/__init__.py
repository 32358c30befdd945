"""Saving, finding and safely loading weights."""

from .checkpointer import Checkpointer, find_training
from .weights import Weights, find_weights, load_weights, read_weights

__all__ = ["Checkpointer", "Weights", "find_training", "find_weights", "load_weights", "read_weights"]
