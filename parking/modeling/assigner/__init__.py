"""Assigners; importing this package fills ``ASSIGNER_REGISTRY``."""

from .build import ASSIGNER_REGISTRY, LevelAssignment, build_assigner
from .ratio_assigner import RatioAssigner

__all__ = ["ASSIGNER_REGISTRY", "LevelAssignment", "RatioAssigner", "build_assigner"]
