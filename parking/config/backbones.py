"""Keys that a config has only while MODEL.BACKBONE.NAME names a backbone that reads them.

detectron2's backbones read their own keys, and not those of this project's backbone. Any other backbone, which a user
may register, can read this project's keys.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode as CN

from parking.utils.constants import RESNET, RESNET_FPN, RETINANET_FPN

# Groups of keys in MODEL, with defaults for a training that starts from random weights. The keys of deformable
# convolutions, which detectron2 computes only on GPUs, are left out.
_GROUPS: Mapping[str, Mapping[str, Any]] = {
    "BACKBONE": {
        # How many stages stay untrained: 1 is the stem, 2 is stem and res2. detectron2's default, 2, suits its weights.
        "FREEZE_AT": 0,
    },
    "RESNETS": {
        "DEPTH": 50,
        # Stages that return features, finest first: "stem" (stride 4), "res2" (4), "res3" (8), "res4" (16), "res5" (32)
        "OUT_FEATURES": ["res3", "res4", "res5"],
        # More than 1 makes a ResNeXt.
        "NUM_GROUPS": 1,
        # "BN", "SyncBN" or "GN". Not detectron2's FrozenBN: it never learns, and random weights need norms that do.
        "NORM": "BN",
        "WIDTH_PER_GROUP": 64,
        # Whether the stride of a bottleneck is in its first (1x1) convolution, or in the 3x3 one.
        "STRIDE_IN_1X1": True,
        # 2 keeps the stride of res5 at 16.
        "RES5_DILATION": 1,
        "RES2_OUT_CHANNELS": 256,
        "STEM_OUT_CHANNELS": 64,
    },
    "FPN": {
        # Stages that the pyramid joins, finest first, up to res5; its outputs are p3 of res3, p4 of res4, ...
        "IN_FEATURES": ["res3", "res4", "res5"],
        "OUT_CHANNELS": 256,
        # "" for none, "BN", "SyncBN" or "GN".
        "NORM": "",
        # "sum" or "avg" of a finer and a coarser level.
        "FUSE_TYPE": "sum",
    },
}
_GROUPS_OF: Mapping[str, Sequence[str]] = {
    RESNET: ("BACKBONE", "RESNETS"),
    RESNET_FPN: tuple(_GROUPS),
    RETINANET_FPN: tuple(_GROUPS),
}
#: Full keys that only detectron2's backbones read.
BACKBONE_KEYS = frozenset(f"MODEL.{group}.{key}" for group, defaults in _GROUPS.items() for key in defaults)
#: Full keys, with defaults in ``defaults.py``, that detectron2's backbones do not read.
CSP_DARKNET_KEYS = frozenset(
    {
        "MODEL.CSP_DARKNET.OUT_FEATURES",
        "MODEL.PAFPN.IN_FEATURES",
        "MODEL.YOLO.DEPTH_MULTIPLE",
        "MODEL.YOLO.WIDTH_MULTIPLE",
        "MODEL.YOLO.NORM",
    }
)


def fit_keys_to_backbone(cfg: CN, defaults: CN) -> None:
    """Add missing keys that ``cfg.MODEL.BACKBONE.NAME`` reads, and remove keys of other backbones.

    Args:
        defaults: a config with the values for :data:`CSP_DARKNET_KEYS`.
    """
    name = cfg.MODEL.BACKBONE.NAME
    for group, values in _GROUPS.items():
        for key, value in values.items():
            _fit_key(cfg, f"MODEL.{group}.{key}", copy.copy(value), is_read=group in _GROUPS_OF.get(name, ()))
    for full_key in CSP_DARKNET_KEYS:
        _, group, key = full_key.split(".")
        _fit_key(cfg, full_key, copy.deepcopy(defaults.MODEL[group][key]), is_read=name not in _GROUPS_OF)


def _fit_key(cfg: CN, full_key: str, default: Any, *, is_read: bool) -> None:
    _, group, key = full_key.split(".")
    if is_read:
        cfg.MODEL.setdefault(group, type(cfg)()).setdefault(key, default)
    elif group in cfg.MODEL:
        cfg.MODEL[group].pop(key, None)
        if not cfg.MODEL[group]:
            del cfg.MODEL[group]


def suggest_backbone(full_key: str) -> str | None:
    """Advice for a key or group that a config lacks; None if it is not one of this module."""

    def is_in(keys: Iterable[str]) -> bool:
        return any(f"{key}.".startswith(f"{full_key}.") for key in keys)

    if is_in(CSP_DARKNET_KEYS):
        return "MODEL.BACKBONE.NAME is one of detectron2's backbones, which do not read it: leave it out."
    if not is_in(BACKBONE_KEYS):
        return None
    group = full_key.split(".")[1]
    names = [name for name, groups in _GROUPS_OF.items() if group in groups]
    return f"only detectron2's backbones read it: set MODEL.BACKBONE.NAME to {' or '.join(names)}, or leave it out."
