"""Models behind one call, for pictures that are in memory."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from detectron2.structures import Instances
from torch import nn

from parking.data.dataset_mapper import TestDatasetMapper
from parking.modeling import DetectionFusion

from .runner import detect, inference_settings, run_ahead


class ArrayDetector:
    """Calls one model, or several whose detections are fused, on pictures."""

    def __init__(self, cfgs: Sequence, models: Sequence[nn.Module]):
        """
        Args:
            cfgs: of each model; the first one says how several are fused.
            models: in eval mode, from :func:`.build.build_inference_model`, of the same classes in the same order.
        """
        self._cfgs = list(cfgs)
        self._models = list(models)
        self._mappers = [TestDatasetMapper(cfg) for cfg in cfgs]
        self._fuse = DetectionFusion(cfgs[0]) if len(self._models) > 1 else None

    def __call__(self, images: Sequence[np.ndarray]) -> list[Instances]:
        """
        Args:
            images: each (H, W, 3) uint8 RGB; they are padded to a common size.

        Returns:
            For each its detections on the CPU, by descending score, ``pred_boxes`` in its pixels.
        """
        with inference_settings(self._cfgs[0], len(images)):
            return self._detect(images)

    def detect_ahead(self, batches: Iterable[Sequence[np.ndarray]]) -> Iterator[list[Instances]]:
        """What a call finds in each batch; on a GPU the next batch is begun before, see :func:`.runner.run_ahead`."""
        # Mixed devices work in turn.
        devices = {next(model.parameters()).device for model in self._models}
        device = devices.pop() if len(devices) == 1 else torch.device("cpu")
        with inference_settings(self._cfgs[0], 0):
            for _, found in run_ahead(self._detect, batches, device):
                yield found

    def _detect(self, images: Sequence[np.ndarray]) -> list[Instances]:
        opinions = []
        for model, mapper in zip(self._models, self._mappers, strict=True):
            found = detect(model, [mapper.prepare(image) for image in images])
            opinions.append([instances.to("cpu") for instances in found])
        return opinions[0] if self._fuse is None else self._fuse(opinions)
