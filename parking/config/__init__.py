"""Configuration: detectron2's keys that this project reads, and our own."""

from .checks import Task
from .config import CfgNode, get_cfg, get_typed, typed_keys
from .defaults import add_parking_config

__all__ = ["CfgNode", "Task", "add_parking_config", "get_cfg", "get_typed", "typed_keys"]
