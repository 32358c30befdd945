"""The head of the YOLOv5 family: one convolution per level."""

import math
from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from ..build import YOLO_HEAD_REGISTRY

# A new head expects 8 objects in an image of this side, and a probability of 0.6 shared by all classes.
_PRIOR_OBJECTS = 8
_PRIOR_IMAGE_SIZE = 640
_PRIOR_CLASS_PROB = 0.6


@YOLO_HEAD_REGISTRY.register()
class YOLOHead(nn.Module):
    """A 1x1 convolution per level to (x, y, w, h, objectness, classes) for every anchor.

    The biases of objectness and classes start from a prior (Lin et al., "Focal Loss", ICCV 2017, Sec. 3.3).
    """

    @configurable
    def __init__(self, *, in_channels: Sequence[int], strides: Sequence[int], num_anchors: int, num_classes: int):
        """
        Args:
            in_channels, strides: of each level, finest first.
            num_anchors: per cell.
        """
        super().__init__()
        self.num_anchors = num_anchors
        self.num_outputs = 5 + num_classes
        #: What a new class output starts from: the logit of its share of a probability, finite also for one class.
        self.class_prior_bias = math.log(_PRIOR_CLASS_PROB / (num_classes - 0.99999))
        self.predictors = nn.ModuleList(
            nn.Conv2d(channels, num_anchors * self.num_outputs, kernel_size=1) for channels in in_channels
        )
        for predictor, stride in zip(self.predictors, strides, strict=True):
            self._add_prior(predictor, stride)

    @classmethod
    def from_config(cls, cfg, input_shape: list[ShapeSpec]):
        return {
            "in_channels": [shape.channels for shape in input_shape],
            "strides": [shape.stride for shape in input_shape],
            "num_anchors": len(cfg.MODEL.YOLO.ANCHORS[0]),
            "num_classes": cfg.MODEL.YOLO.NUM_CLASSES,
        }

    @torch.no_grad()
    def _add_prior(self, predictor: nn.Conv2d, stride: int) -> None:
        bias = predictor.bias.view(self.num_anchors, self.num_outputs)
        bias[:, 4] += math.log(_PRIOR_OBJECTS / (_PRIOR_IMAGE_SIZE / stride) ** 2)
        bias[:, 5:] += self.class_prior_bias

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """
        Args:
            features: per level (N, in_channels, H, W).

        Returns:
            per level (N, num_anchors, H, W, 5 + num_classes), raw; a view of the convolution's output.
        """
        predictions = []
        for predictor, feature in zip(self.predictors, features, strict=True):
            raw = predictor(feature)
            predictions.append(raw.unflatten(1, (self.num_anchors, self.num_outputs)).permute(0, 1, 3, 4, 2))
        return predictions
