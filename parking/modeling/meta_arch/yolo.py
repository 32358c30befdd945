"""The detector: it only connects its parts.

Shape legend: N images, A anchors of a level, C classes, P predictions of an image (all levels, anchors and cells).
"""

import math
from collections.abc import Sequence

import torch
from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_anchor_generator
from detectron2.modeling.meta_arch import DenseDetector
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn

from parking.utils.constants import PAD_VALUE
from parking.utils.errors import UserError

from ..backbone import build_backbone
from ..dense_heads import build_yolo_head
from ..dense_heads.anchor import RatioAssigner, YOLOAnchorGenerator, YOLOBoxCoder, YOLOLoss, build_assigner
from ..postprocessing import YOLOPostprocessor


@META_ARCH_REGISTRY.register()
class YOLO(DenseDetector):
    """The YOLOv5 family (releases 6 and 7) with three or four levels, in detectron2's contract for models.

    Input: dicts with "image" (3, H, W) RGB, 0..255, for training "instances" with
    gt_boxes and gt_classes, else optionally "height" and "width", the size that the detections shall be in.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: nn.Module,
        head_in_features: Sequence[str],
        anchor_generator: YOLOAnchorGenerator,
        assigner: RatioAssigner,
        loss: YOLOLoss,
        postprocessor: YOLOPostprocessor,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        """
        Args:
            head_in_features: features of the backbone, finest first, for which head and anchors are made.
        """
        super().__init__(backbone, head, list(head_in_features), pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.anchor_generator = anchor_generator
        self.box_coder = YOLOBoxCoder()
        self.assigner = assigner
        self.loss = loss
        self.postprocessor = postprocessor

    @classmethod
    def from_config(cls, cfg):
        _check_config(cfg)
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        in_features = cfg.MODEL.YOLO.IN_FEATURES
        missing = [name for name in in_features if name not in shapes]
        if missing:
            raise UserError(f"MODEL.YOLO.IN_FEATURES names {missing}, but the backbone gives {list(shapes)}.")
        head_shapes = [shapes[name] for name in in_features]
        anchor_generator = build_anchor_generator(cfg, head_shapes)
        return {
            "backbone": backbone,
            "head": build_yolo_head(cfg, head_shapes),
            "head_in_features": in_features,
            "anchor_generator": anchor_generator,
            "assigner": build_assigner(cfg),
            "loss": YOLOLoss(cfg),
            "postprocessor": YOLOPostprocessor(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def size_divisibility(self) -> int:
        """In pixels: the sides of images are padded to multiples of it, so that every level has whole cells."""
        return math.lcm(max(self.backbone.size_divisibility, 1), *self.anchor_generator.strides)

    def normalize(self, images: Tensor) -> Tensor:
        """(..., 3, H, W) of 0..255 as the network reads them."""
        return (images - self.pixel_mean) / self.pixel_std

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Batch the images, each at the top left of a gray canvas in whole strides, then normalise all of it."""
        images = ImageList.from_tensors(
            # Of images in pinned memory, the GPU need not be waited for.
            [inputs["image"].to(self.device, non_blocking=True) for inputs in batched_inputs],
            self.size_divisibility,
            pad_value=PAD_VALUE,
        )
        return ImageList(self.normalize(images.tensor), images.image_sizes)

    def forward_training(
        self, images: ImageList, features: list[Tensor], predictions: list[Tensor], gt_instances: list[Instances]
    ) -> dict[str, Tensor]:
        gt_boxes = torch.cat([instances.gt_boxes.tensor for instances in gt_instances])
        gt_classes = torch.cat([instances.gt_classes for instances in gt_instances])
        counts = torch.tensor([len(instances) for instances in gt_instances])
        gt_images = torch.arange(len(counts)).repeat_interleave(counts).to(gt_boxes.device)
        assignments = self.assigner(
            gt_boxes,
            gt_images,
            self.anchor_generator.anchors,
            self.anchor_generator.strides,
            [prediction.shape[2:4] for prediction in predictions],
        )
        return self.loss(predictions, gt_classes, assignments, image_size=images.tensor.shape[-2:])

    def forward_inference(
        self, images: ImageList, features: list[Tensor], predictions: list[Tensor]
    ) -> list[Instances]:
        return self.postprocessor(torch.cat(self.decode(predictions), dim=1), images.image_sizes)

    def predict(self, images: Tensor) -> Tensor:
        """Decoded predictions (N, P, 5 + C) of images (N, 3, H, W) that are normalised and padded.

        cx, cy, w, h are pixels of ``images``, then follow probabilities; ordered by level (finest first), anchor, row,
        column.
        """
        return torch.cat(self.predict_levels(images), dim=1)

    def predict_levels(self, images: Tensor) -> list[Tensor]:
        """As :meth:`predict`, level by level."""
        features = self.backbone(images)
        return self.decode(self.head([features[name] for name in self.head_in_features]))

    def decode(self, predictions: list[Tensor]) -> list[Tensor]:
        """Raw (N, A, H, W, 5 + C) of each level to decoded (N, A * H * W, 5 + C), in float32."""
        generator = self.anchor_generator
        grids = generator([prediction.shape[2:4] for prediction in predictions])
        decoded = []
        for raw, cells, anchors, stride in zip(predictions, grids, generator.anchors, generator.strides, strict=True):
            boxes = self.box_coder.decode(raw[..., :4], cells, anchors[:, None, None], stride)
            decoded.append(torch.cat([boxes, raw[..., 4:].float().sigmoid()], dim=-1).flatten(1, 3))
        return decoded


def _check_config(cfg) -> None:
    yolo = cfg.MODEL.YOLO
    if yolo.NUM_CLASSES < 1:
        raise UserError(
            f"MODEL.YOLO.NUM_CLASSES is {yolo.NUM_CLASSES}: the model needs the number of classes; 0 can only be "
            f"replaced where the training set is known."
        )
    if len(yolo.LOSS.OBJ_LEVEL_WEIGHTS) != len(yolo.IN_FEATURES):
        raise UserError(
            f"MODEL.YOLO.LOSS.OBJ_LEVEL_WEIGHTS is {list(yolo.LOSS.OBJ_LEVEL_WEIGHTS)}, but MODEL.YOLO.IN_FEATURES "
            f"has {len(yolo.IN_FEATURES)} levels: give one weight for each."
        )
