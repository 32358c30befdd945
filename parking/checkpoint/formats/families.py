"""The published families of models, and which of our configs a model of each family and size has."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from torch import Tensor

_STEM = "backbone.bottom_up.stem.conv.weight"
_FOURTH_STAGE = "backbone.bottom_up.dark6."
_YOLOV5_SIZES = {
    (channels, has_four_levels): size + "6" * has_four_levels
    for channels, size in ((16, "n"), (32, "s"), (48, "m"), (64, "l"), (80, "x"))
    for has_four_levels in (False, True)
}


class Family(NamedTuple):
    """A published family of models that differ only in size.

    Attributes:
        name: name of the family in messages.
        head: MODEL.HEAD.NAME of the family's models.
        config: config file below ``configs/`` for training on other classes; "{}" stands for the size.
        coco_config: config file for the published weights with COCO's classes, likewise.
        sizes: maps the number of output channels of the first convolution, and whether the model has four levels, to
            the name of the size.
        widths: maps each config key whose value may differ from ``config`` to the tensor whose number of rows is the
            value.
    """

    name: str
    head: str
    config: str
    coco_config: str
    sizes: Mapping[tuple[int, bool], str]
    widths: Mapping[str, str] = MappingProxyType({})


YOLOV5 = Family("YOLOv5", "AnchorHead", "yolov5/{}.yaml", "coco/yolov5{}.yaml", _YOLOV5_SIZES)
YOLOV5U = Family(
    "YOLOv5u",
    "DistributionHead",
    "yolov5u/{}.yaml",
    "coco/yolov5{}u.yaml",
    _YOLOV5_SIZES,
    # In published models, the width of the class branches depends on the number of classes; the config's may differ.
    {"MODEL.DISTRIBUTION_HEAD.CLASS_CHANNELS": "head.class_branches.0.0.conv.weight"},
)
YOLOX = Family(
    "YOLOX",
    "YOLOXHead",
    "yolox/{}.yaml",
    "coco/yolox_{}.yaml",
    {(16, False): "nano", (24, False): "tiny", (32, False): "s", (48, False): "m", (64, False): "l", (80, False): "x"},
)
FAMILIES = (YOLOV5, YOLOV5U, YOLOX)


def find_size(family: Family, state: Mapping[str, Tensor]) -> str | None:
    """The size, such as "n" or "x6", of a model of ``family`` whose tensors are ``state``; None if unknown."""
    if _STEM not in state or not state[_STEM].dim():
        return None
    has_four_levels = any(name.startswith(_FOURTH_STAGE) for name in state)
    return family.sizes.get((len(state[_STEM]), has_four_levels))
