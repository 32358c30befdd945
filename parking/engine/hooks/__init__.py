"""One hook for each thing that happens around an iteration."""

from .checkpoints import BestCheckpointHook, CheckpointHook
from .early_stopping import EarlyStoppingHook
from .evaluation import EvalHook, Evaluations
from .interrupt import InterruptHook, StopRequest
from .optimization import EMAHook, WarmupHook
from .pictures import PictureHook, put_pictures
from .time_budget import TimeBudgetHook
from .unreadable_images import UnreadableImagesHook

__all__ = [
    "BestCheckpointHook",
    "CheckpointHook",
    "EMAHook",
    "EarlyStoppingHook",
    "EvalHook",
    "Evaluations",
    "InterruptHook",
    "PictureHook",
    "StopRequest",
    "TimeBudgetHook",
    "UnreadableImagesHook",
    "WarmupHook",
    "put_pictures",
]
