"""The detector, which connects backbone, head and postprocessor.

Shape legend: N images, H x W pixels.
"""

import math
from collections.abc import Sequence

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone
from detectron2.modeling.meta_arch import DenseDetector
from detectron2.structures import ImageList, Instances
from torch import Tensor

from parking.utils.constants import PAD_VALUE
from parking.utils.errors import UserError

from ..backbone import build_backbone
from ..dense_heads import DenseHead, DensePredictions, build_dense_head
from ..postprocessing import YOLOPostprocessor


@META_ARCH_REGISTRY.register()
class YOLO(DenseDetector):
    """A detector made of a backbone, a dense head and a postprocessor; it is called as detectron2's models are.

    Inputs are dicts with "image" (3, H, W) RGB, 0..255. In training, they also have "instances" with gt_boxes and
    gt_classes. In inference, they may have "height" and "width", the size to which the detections are scaled.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        head: DenseHead,
        head_in_features: Sequence[str],
        postprocessor: YOLOPostprocessor,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ):
        """
        Args:
            head_in_features: names of the backbone's features that the head reads, finest first.
        """
        super().__init__(backbone, head, list(head_in_features), pixel_mean=pixel_mean, pixel_std=pixel_std)
        self.postprocessor = postprocessor

    @classmethod
    def from_config(cls, cfg):
        if cfg.MODEL.YOLO.NUM_CLASSES < 1:
            raise UserError(
                f"MODEL.YOLO.NUM_CLASSES is {cfg.MODEL.YOLO.NUM_CLASSES}: the model needs the number of classes; 0 can "
                f"only be replaced where the training set is known."
            )
        backbone = build_backbone(cfg)
        shapes = backbone.output_shape()
        in_features = cfg.MODEL.YOLO.IN_FEATURES
        missing = [name for name in in_features if name not in shapes]
        if missing:
            raise UserError(f"MODEL.YOLO.IN_FEATURES names {missing}, but the backbone gives {list(shapes)}.")
        return {
            "backbone": backbone,
            "head": build_dense_head(cfg, [shapes[name] for name in in_features]),
            "head_in_features": in_features,
            "postprocessor": YOLOPostprocessor(cfg),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def size_divisibility(self) -> int:
        """Images are padded to sides that are multiples of this many pixels, so that all levels have whole cells."""
        shapes = self.backbone.output_shape()
        strides = [shapes[name].stride for name in self.head_in_features]
        return math.lcm(max(self.backbone.size_divisibility, 1), *strides)

    def normalize(self, images: Tensor) -> Tensor:
        """Convert images (..., 3, H, W) of 0..255 to the values that the network reads."""
        return (images - self.pixel_mean) / self.pixel_std

    def preprocess_image(self, batched_inputs: list[dict]) -> ImageList:
        """Batch and normalise the images; each is padded with gray at the right and the bottom to whole strides."""
        images = ImageList.from_tensors(
            # The CPU does not wait for the upload to the GPU if the images are in pinned memory.
            [inputs["image"].to(self.device, non_blocking=True) for inputs in batched_inputs],
            self.size_divisibility,
            pad_value=PAD_VALUE,
        )
        return ImageList(self.normalize(images.tensor), images.image_sizes)

    def forward_training(self, images: ImageList, features, predictions, gt_instances: list[Instances]):
        return self.head.losses(predictions, gt_instances, tuple(images.tensor.shape[-2:]))

    def forward_inference(self, images: ImageList, features, predictions) -> list[Instances]:
        return self.postprocessor(self.head.decode(predictions), images.image_sizes)

    def predict(self, images: Tensor) -> DensePredictions:
        """Predict boxes and scores for ``images`` (N, 3, H, W), which are normalised and padded."""
        features = self.backbone(images)
        return self.head.decode(self.head([features[name] for name in self.head_in_features]))
