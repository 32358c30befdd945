"""The configuration: its keys, the values that they allow, and the translation of configs of older versions."""

from .checks import Task
from .config import CfgNode, get_cfg, get_typed, typed_keys

__all__ = ["CfgNode", "Task", "get_cfg", "get_typed", "typed_keys"]
