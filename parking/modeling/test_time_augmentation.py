"""Detection from several views of one image."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import Tensor, nn

from .dense_heads.base import DensePredictions, join_predictions
from .ensemble import DetectionFusion
from .meta_arch import YOLO

# Gray level of the padding around a shrunk view: 0.447 in the network's range of 0..1, here in 0..255.
_PAD_VALUE = 0.447 * 255


class YOLOWithTTA(nn.Module):
    """A :class:`YOLO` that detects objects in several views of each image: other sizes, some of them mirrored.

    Without ``fusion``, the predictions of all views are joined before one NMS, as published. The coarsest level of the
    first view and the finest level of the last view are left out: small views are for large objects, and the large view
    is for small objects. AP of yolov5n on 200 photographs: 0.580.

    With ``fusion``, all views keep all levels, so that more views agree on an object. AP with all levels is 0.592 for
    "wbf" and 0.588 for "soft_nms"; without the two levels it is 0.573 and 0.585.
    """

    def __init__(
        self,
        model: YOLO,
        *,
        scales: Sequence[float] = (1.0, 0.83, 0.67),
        flips: Sequence[bool] = (False, True, False),
        fusion: DetectionFusion | None = None,
    ):
        """
        Args:
            model: must be in eval mode whenever this module is called.
            scales: size of each view, relative to the image; the first is the largest and the last the smallest.
            flips: whether each view is mirrored left to right.
            fusion: fuses the detections of all views, after an NMS of each view. None: the predictions of all views are
                joined before one NMS, as published.
        """
        super().__init__()
        if len(scales) != len(flips) or len(scales) < 2:
            raise ValueError(f"needs two or more views, each with a scale and a flip: {scales}, {flips}")
        self.model = model
        self.scales = tuple(scales)
        self.flips = tuple(flips)
        self.fusion = fusion

    @property
    def size_divisibility(self) -> int:
        """Images are padded to sides that are multiples of this many pixels, as for the model itself."""
        return self.model.size_divisibility

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """Detect objects, with the arguments and results of :meth:`YOLO.forward` in eval mode.

        Images of the same padded shape are processed together. No image is padded to the size of another one, because
        its detections would then depend on the other image.
        """
        results: list[dict] = [{}] * len(batched_inputs)
        for group in self._group_by_padded_shape(batched_inputs):
            images = self.model.preprocess_image([batched_inputs[i] for i in group])
            detections = self._detect(images.tensor, images.image_sizes)
            for i, instances, (height, width) in zip(group, detections, images.image_sizes, strict=True):
                size = batched_inputs[i].get("height", height), batched_inputs[i].get("width", width)
                results[i] = {"instances": detector_postprocess(instances, *size)}
        return results

    def _group_by_padded_shape(self, batched_inputs: list[dict]) -> list[list[int]]:
        divisor = self.model.size_divisibility
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, inputs in enumerate(batched_inputs):
            shape = tuple(math.ceil(side / divisor) for side in inputs["image"].shape[-2:])
            groups.setdefault(shape, []).append(i)
        return list(groups.values())

    def _detect(self, images: Tensor, image_sizes: list[tuple[int, int]]) -> list[Instances]:
        if self.fusion is None:
            return self.model.postprocessor(self.predict(images), image_sizes)
        views = self._predict_views(images)
        return self.fusion([self.model.postprocessor(view, image_sizes) for view in views])

    def predict(self, images: Tensor) -> DensePredictions:
        """Predict all views and join their levels, except the first view's coarsest level and the last view's finest.

        Args:
            images: (N, 3, H, W), normalised and padded.

        Returns:
            The predictions of all views, with boxes in pixels of ``images``.
        """
        views = self._predict_views(images)
        views[0] = views[0].of_levels(0, -1)
        views[-1] = views[-1].of_levels(1)
        return join_predictions(views)

    def _predict_views(self, images: Tensor) -> list[DensePredictions]:
        return [self._predict_view(images, *view) for view in zip(self.scales, self.flips, strict=True)]

    def _predict_view(self, images: Tensor, scale: float, flip: bool) -> DensePredictions:
        view = self.model.predict(self._resize(images.flip(-1) if flip else images, scale))
        boxes = view.boxes / scale
        if flip:
            x1, y1, x2, y2 = boxes.unbind(dim=-1)
            boxes = torch.stack([images.shape[-1] - x2, y1, images.shape[-1] - x1, y2], dim=-1)
        return view._replace(boxes=boxes)

    def _resize(self, images: Tensor, scale: float) -> Tensor:
        """Resize ``images`` to their size times ``scale``, rounded down, then pad them with gray to whole strides."""
        if scale == 1:
            return images
        divisor = self.model.size_divisibility
        height, width = images.shape[-2:]
        size = int(height * scale), int(width * scale)
        padded = [math.ceil(side * scale / divisor) * divisor for side in (height, width)]
        gray = self.model.normalize(images.new_full((1, images.shape[1], 1, 1), _PAD_VALUE))
        canvas = gray.repeat(len(images), 1, *padded)
        canvas[..., : size[0], : size[1]] = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return canvas
