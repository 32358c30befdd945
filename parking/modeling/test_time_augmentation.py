"""Detection from several views of one image."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from detectron2.modeling.postprocessing import detector_postprocess
from torch import Tensor, nn

from .meta_arch import YOLO

# Of the padding around a shrunk view, in gray levels: 0.447 where the network reads 0..1.
_PAD_VALUE = 0.447 * 255


class YOLOWithTTA(nn.Module):
    """A :class:`YOLO` that looks at each image in several sizes, some mirrored, and joins all views before one NMS.

    The coarsest level of the first view and the finest level of the last view are left out: large objects are for the
    small views, and small objects for the large one.
    """

    def __init__(
        self, model: YOLO, *, scales: Sequence[float] = (1.0, 0.83, 0.67), flips: Sequence[bool] = (False, True, False)
    ):
        """
        Args:
            model: in eval mode when this is called.
            scales: of the views, relative to the image; the first is the largest and the last the smallest.
            flips: whether each view is mirrored left to right.
        """
        super().__init__()
        if len(scales) != len(flips) or len(scales) < 2:
            raise ValueError(f"needs two or more views, each with a scale and a flip: {scales}, {flips}")
        self.model = model
        self.scales = tuple(scales)
        self.flips = tuple(flips)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """The contract of :meth:`YOLO.forward` in eval mode. Images are worked on one by one."""
        results = []
        for inputs in batched_inputs:
            images = self.model.preprocess_image([inputs])
            detections = self.model.postprocessor(self.predict(images.tensor), images.image_sizes)
            height, width = images.image_sizes[0]
            size = inputs.get("height", height), inputs.get("width", width)
            results.append({"instances": detector_postprocess(detections[0], *size)})
        return results

    def predict(self, images: Tensor) -> Tensor:
        """
        Args:
            images: (N, 3, H, W), normalised and padded.

        Returns:
            (N, P, 5 + C): the decoded predictions of all views, mapped back to ``images``.
        """
        views = [self._predict_view(images, *view) for view in zip(self.scales, self.flips, strict=True)]
        views[0] = views[0][:-1]
        views[-1] = views[-1][1:]
        return torch.cat([level for view in views for level in view], dim=1)

    def _predict_view(self, images: Tensor, scale: float, flip: bool) -> list[Tensor]:
        view = images.flip(-1) if flip else images
        levels = self.model.predict_levels(self._resize(view, scale))
        for level in levels:
            level[..., :4] /= scale
            if flip:
                level[..., 0] = images.shape[-1] - level[..., 0]
        return levels

    def _resize(self, images: Tensor, scale: float) -> Tensor:
        """Resize to the floor of the scaled size, then pad to what the scaled size needs in whole strides."""
        if scale == 1:
            return images
        divisor = self.model.backbone.size_divisibility
        height, width = images.shape[-2:]
        size = int(height * scale), int(width * scale)
        padded = [math.ceil(side * scale / divisor) * divisor for side in (height, width)]
        gray = self.model.normalize(images.new_full((1, images.shape[1], 1, 1), _PAD_VALUE))
        canvas = gray.repeat(len(images), 1, *padded)
        canvas[..., : size[0], : size[1]] = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return canvas
