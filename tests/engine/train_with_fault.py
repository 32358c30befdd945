"""``tools/train_net.py`` with a ``MODEL.META_ARCHITECTURE FaultyYOLO``, which fails as FAULT in the environment says.

A script of its own, because processes that are spawned run it again and so know the model, too.
"""

import importlib
import os
import sys
from pathlib import Path

from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage

from parking.modeling.meta_arch import YOLO
from parking.utils.cli import run_tool

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))


@META_ARCH_REGISTRY.register()
class FaultyYOLO(YOLO):
    """FAULT is "raise 5": the last process fails in iteration 5; or "nan 2,3": the losses of 2 and 3 are NaN."""

    def forward(self, batched_inputs):
        losses = super().forward(batched_inputs)
        kind, _, iterations = os.environ["FAULT"].partition(" ")
        if self.training and get_event_storage().iter in map(int, iterations.split(",")):
            if kind == "nan":
                return {**losses, "loss_box": losses["loss_box"] * float("nan")}
            if comm.get_rank() == comm.get_world_size() - 1:
                raise ValueError("this is the fault")
        return losses


if __name__ == "__main__":
    run_tool(importlib.import_module("train_net").run)
