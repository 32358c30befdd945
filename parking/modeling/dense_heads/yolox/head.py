"""The head of YOLOX: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv 2107.08430.

Shape legend: N images, H x W cells of a level, P predictions of an image (one for each cell of all levels), C classes,
T ground truth boxes of a batch.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.structures import Instances
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torchvision.ops import box_convert

from parking.layers import ConvNormAct, conv3x3

from ..base import DENSE_HEAD_REGISTRY, ClassRows, DenseHead, DensePredictions, list_cells, make_grid
from ..task_aligned import TaskAlignedAssigner
from .assigner import SimOTAAssigner
from .box_coder import YOLOXBoxCoder
from .losses import Assignment, PointOutputs, YOLOXLoss

# The bias of objectness and classes in a new head, which gives each a probability of 0.01.
_PRIOR = -math.log(99)
# Parameters of task-aligned assignment, as in the published training of the distribution head.
_ALPHA = 0.5
_BETA = 6.0
_CANDIDATES = 10


@DENSE_HEAD_REGISTRY.register()
class YOLOXHead(DenseHead):
    """The head of YOLOX, with two branches per level: one for classes, one for boxes and objectness.

    A 1x1 convolution gives all levels the same width; then each branch has two 3x3 convolutions. Every cell makes one
    prediction; there are no anchors.
    """

    @configurable
    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        strides: Sequence[int],
        num_classes: int,
        depthwise: bool = False,
        norm: str = "BN",
        assigner: SimOTAAssigner | TaskAlignedAssigner,
        loss: YOLOXLoss,
    ):
        """
        Args:
            in_channels, strides: number of channels and stride of each level, finest first. All branches are as wide as
                the finest level.
            depthwise: whether each 3x3 convolution is replaced by a depthwise and a pointwise one.
            norm: "BN" or "SyncBN".
        """
        super().__init__()
        width = in_channels[0]
        self.strides = list(strides)

        def branch() -> nn.Sequential:
            return nn.Sequential(*(conv3x3(width, width, depthwise=depthwise, norm=norm) for _ in range(2)))

        self.stems = nn.ModuleList(ConvNormAct(channels, width, norm=norm) for channels in in_channels)
        self.class_branches = nn.ModuleList(branch() for _ in strides)
        self.box_branches = nn.ModuleList(branch() for _ in strides)
        self.class_predictors = nn.ModuleList(nn.Conv2d(width, num_classes, 1) for _ in strides)
        self.box_predictors = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in strides)
        self.objectness_predictors = nn.ModuleList(nn.Conv2d(width, 1, 1) for _ in strides)
        for predictor in (*self.class_predictors, *self.objectness_predictors):
            nn.init.constant_(predictor.bias, _PRIOR)
        self.box_coder = YOLOXBoxCoder()
        self.assigner = assigner
        self.loss = loss
        self._l1_begins: int | None = None

    @classmethod
    def from_config(cls, cfg, input_shape: list[ShapeSpec]):
        strides = [shape.stride for shape in input_shape]
        if cfg.MODEL.YOLOX_HEAD.ASSIGNER == "TaskAligned":
            # The assigner enlarges boxes with sides shorter than this, because a tiny box may contain no point.
            min_side = strides[min(1, len(strides) - 1)]
            assigner = TaskAlignedAssigner(alpha=_ALPHA, beta=_BETA, num_candidates=_CANDIDATES, min_side=min_side)
        else:
            assigner = SimOTAAssigner(num_levels=len(strides))
        return {
            "in_channels": [shape.channels for shape in input_shape],
            "strides": strides,
            "num_classes": cfg.MODEL.YOLO.NUM_CLASSES,
            "depthwise": cfg.MODEL.YOLO.DEPTHWISE,
            "norm": cfg.MODEL.YOLO.NORM,
            "assigner": assigner,
            "loss": YOLOXLoss(cfg),
        }

    def forward(self, features: list[Tensor]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """
        Args:
            features: per level (N, in_channels, H, W).

        Returns:
            for each level raw boxes (N, 4, H, W), objectness (N, 1, H, W) and classes (N, C, H, W).
        """
        outputs = []
        for i, (stem, feature) in enumerate(zip(self.stems, features, strict=True)):
            hidden = stem(feature)
            classes = self.class_predictors[i](self.class_branches[i](hidden))
            branch = self.box_branches[i](hidden)
            outputs.append((self.box_predictors[i](branch), self.objectness_predictors[i](branch), classes))
        return outputs

    def decode(self, raw: list[tuple[Tensor, Tensor, Tensor]]) -> DensePredictions:
        """Decode predictions, ordered by level, row and column.

        A score is the objectness times the class probability, so the objectness is its upper bound.
        """
        outputs = self._join_levels(raw)
        objectness = outputs.objectness.float().sigmoid()
        scores = outputs.class_logits.float().sigmoid() * objectness[..., None]
        return DensePredictions(self._decode_boxes(outputs), scores, outputs.level_sizes, upper_bound=objectness)

    def _join_levels(self, raw: list[tuple[Tensor, Tensor, Tensor]]) -> PointOutputs:
        deltas, objectness, classes = (
            torch.cat([list_cells(level) for level in levels], dim=1) for levels in zip(*raw, strict=True)
        )
        cells = [make_grid(level).flatten(0, 1) for level, _, _ in raw]
        strides = [torch.full_like(c[:, :1], stride) for c, stride in zip(cells, self.strides, strict=True)]
        sizes = tuple(len(level) for level in cells)
        return PointOutputs(deltas, objectness[..., 0], classes, torch.cat(cells), torch.cat(strides), sizes)

    def _decode_boxes(self, outputs: PointOutputs) -> Tensor:
        """The predicted boxes (N, P, 4), XYXY in pixels."""
        boxes = self.box_coder.decode(outputs.deltas, outputs.cells, outputs.strides)
        return box_convert(boxes, "cxcywh", "xyxy")

    def losses(
        self, raw: list[tuple[Tensor, Tensor, Tensor]], gt_instances: list[Instances], image_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        outputs = self._join_levels(raw)
        return self.loss(outputs, self._assign(outputs, gt_instances), with_l1=self._is_l1_on())

    @torch.no_grad()
    def _assign(self, outputs: PointOutputs, gt_instances: list[Instances]) -> Assignment:
        """Assign the predictions of a batch to boxes, image by image, because overlaps take much memory."""
        boxes = self._decode_boxes(outputs)
        points = (outputs.cells + 0.5) * outputs.strides
        nearness = {"strides": outputs.strides} if isinstance(self.assigner, SimOTAAssigner) else {}
        parts = []
        for i, instances in enumerate(gt_instances):
            scores = outputs.class_logits[i].float().sigmoid() * outputs.objectness[i].float().sigmoid()[:, None]
            gt_boxes, gt_classes = instances.gt_boxes.tensor.float(), instances.gt_classes
            found = self.assigner(boxes[i], scores, points, gt_boxes, gt_classes, **nearness)
            gt_boxes, gt_classes = gt_boxes[found.gt_index], gt_classes[found.gt_index]
            image = torch.full_like(found.predictions, i)
            parts.append(Assignment(image, found.predictions, gt_boxes, gt_classes, found.targets, found.is_assigned))
        return Assignment(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def strong_augmentation_ends(self, iteration: int | None) -> None:
        self._l1_begins = iteration

    def _is_l1_on(self) -> bool:
        if self._l1_begins is None or self.loss.l1_gain == 0:
            return False
        return get_event_storage().iter >= self._l1_begins

    def class_rows(self) -> Mapping[str, ClassRows]:
        return {
            f"class_predictors.{level}.{name}": ClassRows(groups=1, before=0, prior=prior)
            for level in range(len(self.strides))
            for name, prior in (("weight", 0.0), ("bias", _PRIOR))
        }
