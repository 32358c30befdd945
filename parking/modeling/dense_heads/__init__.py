"""Dense heads, a folder for each; importing this package fills ``DENSE_HEAD_REGISTRY``."""

from .anchor import AnchorHead
from .base import DENSE_HEAD_REGISTRY, ClassRows, DenseHead, DensePredictions, build_dense_head, iter_raw

__all__ = [
    "DENSE_HEAD_REGISTRY",
    "AnchorHead",
    "ClassRows",
    "DenseHead",
    "DensePredictions",
    "build_dense_head",
    "iter_raw",
]
