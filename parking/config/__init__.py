"""Configuration: detectron2's keys that this project reads, and our own."""

from .config import CfgNode, get_cfg
from .defaults import add_parking_config

__all__ = ["CfgNode", "add_parking_config", "get_cfg"]
