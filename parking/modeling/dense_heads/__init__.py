"""Dense heads, each in a folder of its own; importing this package adds them to ``DENSE_HEAD_REGISTRY``."""

from .anchor import AnchorHead
from .base import DENSE_HEAD_REGISTRY, ClassRows, DenseHead, DensePredictions, build_dense_head, iter_raw
from .distribution import DistributionHead
from .task_aligned import TaskAlignedAssigner, TaskAlignment
from .yolox import YOLOXHead

__all__ = [
    "DENSE_HEAD_REGISTRY",
    "AnchorHead",
    "ClassRows",
    "DenseHead",
    "DensePredictions",
    "DistributionHead",
    "TaskAlignedAssigner",
    "TaskAlignment",
    "YOLOXHead",
    "build_dense_head",
    "iter_raw",
]
