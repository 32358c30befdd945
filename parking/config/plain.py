"""Convert configs to nested dicts of plain values, and flatten such dicts."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml
from detectron2.config import CfgNode


def describe_config(cfg: CfgNode) -> dict[str, Any]:
    """Convert ``cfg`` to nested plain values for a weights file; leave out MODEL.DEVICE, which differs by machine."""
    config = yaml.safe_load(cfg.dump())
    del config["MODEL"]["DEVICE"]
    return config


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the full key and the value of each leaf of nested mappings, such as ("SOLVER.EMA.DECAY", 0.9999)."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
