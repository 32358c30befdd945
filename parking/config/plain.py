"""Configs as nested plain values."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from .config import CfgNode


def describe_config(cfg: CfgNode) -> dict[str, Any]:
    """``cfg`` as nested plain values for a weights file, without the device of this run."""
    config = yaml.safe_load(cfg.dump())
    del config["MODEL"]["DEVICE"]
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of nested mappings with its keys joined by dots, such as ("SOLVER.EMA.DECAY", 0.9999)."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
