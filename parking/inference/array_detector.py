"""Models behind one call, for pictures that are in memory."""

from collections.abc import Sequence

import numpy as np
from detectron2.structures import Instances
from torch import nn

from parking.data.dataset_mapper import TestDatasetMapper
from parking.modeling import DetectionFusion

from .runner import inference_settings


class ArrayDetector:
    """Calls one model, or several whose detections are fused, on pictures."""

    def __init__(self, cfgs: Sequence, models: Sequence[nn.Module]):
        """
        Args:
            cfgs: of each model; the first one says how several are fused.
            models: in eval mode, from :func:`.predictor.build_inference_model`, of the same classes in the same order.
        """
        self._cfgs = list(cfgs)
        self._models = list(models)
        self._mappers = [TestDatasetMapper(cfg) for cfg in cfgs]
        self._fuse = DetectionFusion(cfgs[0]) if len(self._models) > 1 else None

    def __call__(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """
        Args:
            images: each (H, W, 3) uint8 RGB.

        Returns:
            For each its detections on the CPU, by descending score, ``pred_boxes`` in its pixels.
        """
        opinions = []
        for cfg, model, mapper in zip(self._cfgs, self._models, self._mappers, strict=True):
            with inference_settings(cfg, len(images)):
                outputs = model([mapper.prepare(image) for image in images])
            opinions.append([output["instances"].to("cpu") for output in outputs])
        return opinions[0] if self._fuse is None else self._fuse(opinions)
