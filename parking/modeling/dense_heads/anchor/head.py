"""The head of the YOLOv5 family: anchors, and one convolution per level.

Shape legend: N images, L levels of A anchors each, H x W cells of a level, C classes, T ground truth boxes of a batch.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from parking.layers import upload
from parking.utils.errors import UserError

from ..base import DENSE_HEAD_REGISTRY, ClassRows, DenseHead, DensePredictions, make_grid
from .assigner import RatioAssigner
from .box_coder import YOLOBoxCoder
from .losses import YOLOLoss

# The biases of a new head make it expect 8 objects in an image of 640 x 640 pixels, and class probabilities that sum up
# to 0.6.
_PRIOR_OBJECTS = 8
_PRIOR_IMAGE_SIZE = 640
_PRIOR_CLASS_PROB = 0.6
# An anchor has this many outputs before those for the classes: x, y, w, h, objectness.
_NUM_BOX_OUTPUTS = 5


@DENSE_HEAD_REGISTRY.register()
class AnchorHead(DenseHead):
    """A head of one 1x1 convolution per level, which gives (x, y, w, h, objectness, classes) for every anchor.

    The biases of objectness and classes start from a prior (Lin et al., "Focal Loss", ICCV 2017, Sec. 3.3).

    Attributes:
        anchors: (L, A, 2) buffer, width and height in pixels of the network's input. This buffer is part of the state,
            because weights are only right together with the anchors of their training.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        anchors: Sequence[Sequence[Sequence[float]]],
        anchors_from_weights: bool = True,
        assigner: RatioAssigner,
        loss: YOLOLoss,
    ):
        """
        Args:
            in_channels, strides: number of channels and stride of each level, finest first.
            anchors: L lists of A pairs [width, height] in pixels.
            anchors_from_weights: whether ``anchors`` are replaced by those of a weights file that is loaded.

        Raises:
            UserError: ``anchors`` does not have one list for each level, the lists differ in length, or a side is not
                positive.
        """
        super().__init__()
        self.register_buffer("anchors", _to_tensor(anchors, len(strides)))
        self.strides = list(strides)
        self.anchors_from_weights = anchors_from_weights
        self.num_anchors = self.anchors.shape[1]
        self.num_outputs = _NUM_BOX_OUTPUTS + num_classes
        # Bias that gives each class an equal share of _PRIOR_CLASS_PROB; 0.99999 keeps it finite for a single class.
        self._class_prior = math.log(_PRIOR_CLASS_PROB / (num_classes - 0.99999))
        self.predictors = nn.ModuleList(
            nn.Conv2d(channels, self.num_anchors * self.num_outputs, kernel_size=1) for channels in in_channels
        )
        for predictor, stride in zip(self.predictors, strides, strict=True):
            self._add_prior(predictor, stride)
        self.box_coder = YOLOBoxCoder()
        self.assigner = assigner
        self.loss = loss

    @classmethod
    def from_config(cls, cfg, input_shape: list[ShapeSpec]):
        head = cfg.MODEL.ANCHOR_HEAD
        if len(head.LOSS.OBJ_LEVEL_WEIGHTS) != len(input_shape):
            raise UserError(
                f"MODEL.ANCHOR_HEAD.LOSS.OBJ_LEVEL_WEIGHTS is {list(head.LOSS.OBJ_LEVEL_WEIGHTS)}, but "
                f"MODEL.YOLO.IN_FEATURES has {len(input_shape)} levels: give one weight for each."
            )
        return {
            "in_channels": [shape.channels for shape in input_shape],
            "strides": [shape.stride for shape in input_shape],
            "num_classes": cfg.MODEL.YOLO.NUM_CLASSES,
            "anchors": head.ANCHORS,
            "anchors_from_weights": head.ANCHORS_FROM_WEIGHTS,
            "assigner": RatioAssigner(anchor_ratio=head.ANCHOR_RATIO),
            "loss": YOLOLoss(cfg),
        }

    @torch.no_grad()
    def _add_prior(self, predictor: nn.Conv2d, stride: int) -> None:
        bias = predictor.bias.view(self.num_anchors, self.num_outputs)
        bias[:, 4] += math.log(_PRIOR_OBJECTS / (_PRIOR_IMAGE_SIZE / stride) ** 2)
        bias[:, _NUM_BOX_OUTPUTS:] += self._class_prior

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """
        Args:
            features: per level (N, in_channels, H, W).

        Returns:
            per level raw outputs (N, A, H, W, 5 + C), a view of the convolution's output.
        """
        outputs = []
        for predictor, feature in zip(self.predictors, features, strict=True):
            raw = predictor(feature)
            outputs.append(raw.unflatten(1, (self.num_anchors, self.num_outputs)).permute(0, 1, 3, 4, 2))
        return outputs

    def decode(self, raw: list[Tensor]) -> DensePredictions:
        """Decode predictions, ordered by level, anchor, row and column.

        A score is the objectness times the class probability, so the objectness is its upper bound.
        """
        boxes, scores, objectness = [], [], []
        for level, anchors, stride in zip(raw, self.anchors, self.strides, strict=True):
            decoded = self.box_coder.decode(level[..., :4], make_grid(level), anchors[:, None, None], stride)
            boxes.append(box_convert(decoded, "cxcywh", "xyxy").flatten(1, 3))
            probs = level[..., 4:].float().sigmoid()
            objectness.append(probs[..., 0].flatten(1))
            scores.append((probs[..., 1:] * probs[..., :1]).flatten(1, 3))
        sizes = tuple(level.shape[1] for level in boxes)
        return DensePredictions(
            torch.cat(boxes, dim=1), torch.cat(scores, dim=1), sizes, upper_bound=torch.cat(objectness, dim=1)
        )

    def losses(
        self, raw: list[Tensor], gt_instances: list[Instances], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        gt_boxes = torch.cat([instances.gt_boxes.tensor for instances in gt_instances])
        gt_classes = torch.cat([instances.gt_classes for instances in gt_instances])
        counts = torch.tensor([len(instances) for instances in gt_instances])
        gt_images = upload(torch.arange(len(counts)).repeat_interleave(counts), gt_boxes.device)
        grid_sizes = [level.shape[2:4] for level in raw]
        assignments = self.assigner(gt_boxes, gt_images, self.anchors, self.strides, grid_sizes)
        return self.loss(raw, gt_classes, assignments, image_size=image_size)

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {
            f"predictors.{level}.{name}": ClassRows(self.num_anchors, _NUM_BOX_OUTPUTS, prior)
            for level in range(len(self.predictors))
            for name, prior in (("weight", 0.0), ("bias", self._class_prior))
        }

    def adapt_weights(self, state: dict[str, Tensor]) -> list[str]:
        if "anchors" not in state:
            return []
        if not self.anchors_from_weights:
            state["anchors"] = self.anchors
            return ["the anchors are the config's"]
        if (state["anchors"] <= 0).any():
            raise ValueError(f"head.anchors has an anchor without a size ({state['anchors'].min().item():g} pixels)")
        return []


def _to_tensor(anchors: Sequence[Sequence[Sequence[float]]], num_levels: int) -> Tensor:
    if len(anchors) != num_levels:
        raise UserError(
            f"MODEL.ANCHOR_HEAD.ANCHORS has {len(anchors)} levels, but MODEL.YOLO.IN_FEATURES has {num_levels}: give "
            f"one list of anchors for each."
        )
    try:
        tensor = torch.tensor(anchors, dtype=torch.float32)
    except (TypeError, ValueError):
        tensor = torch.empty(0)
    if tensor.dim() != 3 or tensor.shape[-1] != 2 or not all(w > 0 and h > 0 for level in anchors for w, h in level):
        raise UserError(
            f"MODEL.ANCHOR_HEAD.ANCHORS is {anchors}: every level needs equally many [width, height] of positive "
            f"numbers."
        )
    return tensor
