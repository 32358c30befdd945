"""Published names of the tensors of every size, and state dicts under these names."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from parking.config import get_cfg
from parking.modeling import YOLO

SIZES = [size + levels for levels in ("", "6") for size in "nsmlx"]
YOLOX_DEPTHS = {"nano": 1, "tiny": 1, "s": 1, "m": 2, "l": 3, "x": 4}
BINS = torch.arange(16.0).view(1, 16, 1, 1)
YOLOX_STEM = "backbone.backbone.stem.conv.conv.weight"
# What stands where in the flat list of layers. Positions that are not listed have no tensors.
_P5 = {"conv": [0, 1, 3, 5, 7, 10, 14, 18, 21], "c3": [2, 4, 6, 8, 13, 17, 20, 23], "sppf": 9, "head": 24}
_P6 = {
    "conv": [0, 1, 3, 5, 7, 9, 12, 16, 20, 24, 27, 30],
    "c3": [2, 4, 6, 8, 10, 15, 19, 23, 26, 29, 32],
    "sppf": 11,
    "head": 33,
}
# Bottlenecks of the backbone's C3 blocks at depth 1, by position; those of the neck have 3.
_REPEATS_P5 = {2: 3, 4: 6, 6: 9, 8: 3}
_REPEATS_P6 = {**_REPEATS_P5, 10: 3}
_DEPTHS = {"n": 0.33, "s": 0.33, "m": 0.67, "l": 1.0, "x": 1.33}
_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def make_state(config: str, device: str) -> dict[str, Tensor]:
    """The tensors of a new model for 80 classes; `config` is a path such as yolov5/n."""
    cfg = get_cfg()
    cfg.merge_from_file(str(Path(__file__).resolve().parents[3] / f"configs/{config}.yaml"))
    cfg.MODEL.YOLO.NUM_CLASSES = 80
    cfg.MODEL.DEVICE = device
    with torch.device(device):
        return YOLO(cfg).state_dict()


def _conv(prefix: str) -> list[str]:
    return [f"{prefix}.conv.weight", *(f"{prefix}.bn.{name}" for name in _NORM)]


def _yolov5_body(size: str) -> list[str]:
    layers, repeats = (_P6, _REPEATS_P6) if size.endswith("6") else (_P5, _REPEATS_P5)
    prefixes = [f"model.{i}" for i in layers["conv"]]
    for i in layers["c3"]:
        prefixes += [f"model.{i}.{name}" for name in ("cv1", "cv2", "cv3")]
        for k in range(max(round(repeats.get(i, 3) * _DEPTHS[size[0]]), 1)):
            prefixes += [f"model.{i}.m.{k}.cv1", f"model.{i}.m.{k}.cv2"]
    prefixes += [f"model.{layers['sppf']}.{name}" for name in ("cv1", "cv2")]
    return [key for prefix in prefixes for key in _conv(prefix)]


def yolov5_keys(size: str) -> list[str]:
    head, num_levels = ("model.33", 4) if size.endswith("6") else ("model.24", 3)
    levels = [f"{head}.m.{level}.{name}" for level in range(num_levels) for name in ("weight", "bias")]
    return [*_yolov5_body(size), *levels, f"{head}.anchors"]


def yolov5u_keys(size: str) -> list[str]:
    head, num_levels = ("model.33", 4) if size.endswith("6") else ("model.24", 3)
    keys = _yolov5_body(size)
    for prefix in [f"{head}.{branch}.{level}" for branch in ("cv2", "cv3") for level in range(num_levels)]:
        keys += [*_conv(f"{prefix}.0"), *_conv(f"{prefix}.1"), f"{prefix}.2.weight", f"{prefix}.2.bias"]
    return [*keys, f"{head}.dfl.conv.weight"]


def yolox_keys(size: str) -> list[str]:
    def conv3x3(prefix):
        return [*_conv(f"{prefix}.dconv"), *_conv(f"{prefix}.pconv")] if size == "nano" else _conv(prefix)

    def csp(prefix, repeats):
        keys = [key for i in (1, 2, 3) for key in _conv(f"{prefix}.conv{i}")]
        for k in range(repeats):
            keys += _conv(f"{prefix}.m.{k}.conv1") + conv3x3(f"{prefix}.m.{k}.conv2")
        return keys

    depth, dark, neck = YOLOX_DEPTHS[size], "backbone.backbone.dark", "backbone."
    keys = _conv("backbone.backbone.stem.conv")
    for stage, times in ((2, 1), (3, 3), (4, 3), (5, 1)):
        keys += conv3x3(f"{dark}{stage}.0") + csp(f"{dark}{stage}.{2 if stage == 5 else 1}", times * depth)
    keys += _conv(f"{dark}5.1.conv1") + _conv(f"{dark}5.1.conv2")
    for name in ("lateral_conv0", "reduce_conv1"):
        keys += _conv(neck + name)
    for name in ("bu_conv1", "bu_conv2"):
        keys += conv3x3(neck + name)
    for name in ("C3_p4", "C3_p3", "C3_n3", "C3_n4"):
        keys += csp(neck + name, depth)
    for level in range(3):
        keys += _conv(f"head.stems.{level}")
        for branch in ("cls", "reg"):
            keys += conv3x3(f"head.{branch}_convs.{level}.0") + conv3x3(f"head.{branch}_convs.{level}.1")
        for part in ("cls", "reg", "obj"):
            keys += [f"head.{part}_preds.{level}.weight", f"head.{part}_preds.{level}.bias"]
    return keys


def as_published(layout: ModuleType, keys: Iterable[str], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the tensors of one of our models the published ``keys``: the reverse of ``layout.from_published``."""
    forms = {YOLOX_STEM: torch.zeros(1, 12, 3, 3)}
    probes = {key: BINS if key.endswith(".dfl.conv.weight") else forms.get(key, torch.zeros(1, 1, 1)) for key in keys}
    names, left_out = layout.from_published(probes)
    assert names.keys() == state.keys()
    published = dict(zip([key for key in probes if key not in left_out], map(state.get, names), strict=True))
    for key, tensor in published.items():
        if key.endswith(".anchors"):
            published[key] = tensor / (8 * 2.0 ** torch.arange(len(tensor), device=tensor.device).view(-1, 1, 1))
    if YOLOX_STEM in published:
        channels, color, y, row, x, column = range(6)
        groups = (published[YOLOX_STEM] / 255).flip(1).unflatten(3, (3, 2)).unflatten(2, (3, 2))
        published[YOLOX_STEM] = groups.permute(channels, column, row, color, y, x).reshape(-1, 12, 3, 3)
    return {**published, **{key: probes[key] for key in left_out}}
