from detectron2.layers import ShapeSpec
from detectron2.utils.registry import Registry
from torch import nn

YOLO_HEAD_REGISTRY = Registry("YOLO_HEAD")
YOLO_HEAD_REGISTRY.__doc__ = """
Registry for heads of :class:`parking.modeling.YOLO`.

The registered object is called with `obj(cfg, input_shape)`, the list of the levels' :class:`ShapeSpec`, finest first,
and maps the list of features (N, C_l, H_l, W_l) to a list of predictions (N, A, H_l, W_l, 5 + num_classes): raw x, y,
w, h, objectness and class logits.
"""


def build_yolo_head(cfg, input_shape: list[ShapeSpec]) -> nn.Module:
    """The head that ``cfg.MODEL.YOLO.HEAD.NAME`` names."""
    return YOLO_HEAD_REGISTRY.get(cfg.MODEL.YOLO.HEAD.NAME)(cfg, input_shape)
