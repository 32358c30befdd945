"""The distribution head: two branches per level, no anchors and no objectness.

Shape legend: N images, L levels of H x W cells, P cells of all levels, R bins of a box side, C classes, K claims
(pairs of a box and a prediction, see :mod:`..task_aligned`).
"""

import math
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from torch import Tensor, nn

from parking.layers import ConvNormAct

from ..base import DENSE_HEAD_REGISTRY, ClassRows, DenseHead, DensePredictions, list_cells, make_grid
from ..task_aligned import TaskAlignedAssigner
from .losses import Assignment, DistributionLoss

# The biases of a new head make it expect 5 objects in an image of 640 x 640 pixels. The bias of the bins is as
# published; it is the same for all bins, so that no bin is preferred.
_PRIOR_OBJECTS = 5
_PRIOR_IMAGE_SIZE = 640
_PRIOR_BOX_BIAS = 1.0
_MIN_BOX_CHANNELS = 16
_MAX_CLASS_CHANNELS = 100


@DENSE_HEAD_REGISTRY.register()
class DistributionHead(DenseHead):
    """A head with a branch for boxes and one for classes on each level, each of two 3x3 and one 1x1 convolution.

    A cell predicts for each side of a box a distribution over R distances from its centre, and a score for each class.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        class_channels: int = 0,
        norm: str = "BN",
        assigner: TaskAlignedAssigner,
        loss: DistributionLoss,
    ):
        """
        Args:
            in_channels, strides: number of channels and stride of each level, finest first.
            class_channels: width of the class branches; 0: the published width, which depends on ``num_classes``.
            norm: "BN" or "SyncBN".
            loss: the loss, whose box coder the head also uses to decode.
        """
        super().__init__()
        self.strides = list(strides)
        self.assigner = assigner
        self.loss = loss
        self.box_coder = loss.box_coder
        # Bias of the class outputs on each level; it makes a new head expect _PRIOR_OBJECTS in an image.
        self._class_priors = [
            math.log(_PRIOR_OBJECTS / num_classes / (_PRIOR_IMAGE_SIZE / stride) ** 2) for stride in strides
        ]
        num_outputs = 4 * self.box_coder.num_bins
        box_channels = max(_MIN_BOX_CHANNELS, in_channels[0] // 4, num_outputs)
        class_channels = class_channels or max(in_channels[0], min(num_classes, _MAX_CLASS_CHANNELS))
        self.box_branches = nn.ModuleList(
            _make_branch(channels, box_channels, num_outputs, norm) for channels in in_channels
        )
        self.class_branches = nn.ModuleList(
            _make_branch(channels, class_channels, num_classes, norm) for channels in in_channels
        )
        for boxes, classes, prior in zip(self.box_branches, self.class_branches, self._class_priors, strict=True):
            nn.init.constant_(boxes[-1].bias, _PRIOR_BOX_BIAS)
            nn.init.constant_(classes[-1].bias, prior)

    @classmethod
    def from_config(cls, cfg, input_shape: list[ShapeSpec]):
        head, strides = cfg.MODEL.DISTRIBUTION_HEAD, [shape.stride for shape in input_shape]
        return {
            "in_channels": [shape.channels for shape in input_shape],
            "strides": strides,
            "num_classes": cfg.MODEL.YOLO.NUM_CLASSES,
            "class_channels": head.CLASS_CHANNELS,
            "norm": cfg.MODEL.YOLO.NORM,
            "assigner": TaskAlignedAssigner(
                alpha=head.ASSIGNER.ALPHA,
                beta=head.ASSIGNER.BETA,
                num_candidates=head.ASSIGNER.CANDIDATES,
                # The assigner enlarges boxes with sides shorter than this, because a tiny box may contain no point.
                min_side=strides[min(1, len(strides) - 1)],
            ),
            "loss": DistributionLoss(cfg),
        }

    def forward(self, features: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """
        Args:
            features: per level (N, in_channels, H, W).

        Returns:
            for each level box logits (N, 4 R, H, W), which begin with all bins of the left side, followed by top, right
            and bottom, and class logits (N, C, H, W).
        """
        return [
            (boxes(feature), classes(feature))
            for boxes, classes, feature in zip(self.box_branches, self.class_branches, features, strict=True)
        ]

    def decode(self, raw: list[tuple[Tensor, Tensor]]) -> DensePredictions:
        """Decode predictions, ordered by level, row and column."""
        # Make the bins of a cell contiguous, because a softmax over contiguous values is 15 times as fast on a CPU.
        logits, scores = (
            torch.cat([list_cells(level) for level in levels], dim=1) for levels in zip(*raw, strict=True)
        )
        points, strides = self._find_points(raw)
        boxes = self.box_coder.decode(logits, points) * strides
        sizes = tuple(level.shape[2] * level.shape[3] for level, _ in raw)
        # Give no ``upper_bound``: finding the largest score takes as long here as in the postprocessing.
        return DensePredictions(boxes, scores.float().sigmoid(), sizes)

    def _find_points(self, raw: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Return the centres (P, 2) of all cells, x and y in strides, and their strides (P, 1) in pixels."""
        centers = [make_grid(logits).flatten(0, 1) + 0.5 for logits, _ in raw]
        strides = [level.new_full((len(level), 1), s) for level, s in zip(centers, self.strides, strict=True)]
        return torch.cat(centers), torch.cat(strides)

    def losses(
        self, raw: list[tuple[Tensor, Tensor]], gt_instances: list[Instances], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        points, strides = self._find_points(raw)
        return self.loss(raw, self._assign(raw, gt_instances, points * strides), points, strides)

    @torch.no_grad()
    def _assign(self, raw: list[tuple[Tensor, Tensor]], gt_instances: list[Instances], points: Tensor) -> Assignment:
        """Assign a batch's predictions to boxes, image by image, because predictions and overlaps take much memory."""
        parts = []
        for i, instances in enumerate(gt_instances):
            predictions = self.decode([(boxes[i : i + 1], classes[i : i + 1]) for boxes, classes in raw])
            gt_boxes, gt_classes = instances.gt_boxes.tensor.float(), instances.gt_classes
            found = self.assigner(predictions.boxes[0], predictions.scores[0], points, gt_boxes, gt_classes)
            parts.append(
                Assignment(
                    torch.full_like(found.predictions, i),
                    found.predictions,
                    found.targets,
                    gt_boxes[found.gt_index],
                    gt_classes[found.gt_index],
                )
            )
        return Assignment(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {
            f"class_branches.{level}.2.{name}": ClassRows(groups=1, before=0, prior=prior)
            for level, bias in enumerate(self._class_priors)
            for name, prior in (("weight", 0.0), ("bias", bias))
        }


def _make_branch(in_channels: int, channels: int, num_outputs: int, norm: str) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(in_channels, channels, 3, norm=norm),
        ConvNormAct(channels, channels, 3, norm=norm),
        nn.Conv2d(channels, num_outputs, kernel_size=1),
    )
