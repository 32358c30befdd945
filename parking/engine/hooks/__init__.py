"""One hook for each thing that happens around an iteration."""

from .checkpoints import BestCheckpointHook, CheckpointHook
from .early_stopping import EarlyStoppingHook
from .evaluation import EvalHook
from .interrupt import InterruptHook
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
    "InterruptHook",
    "PictureHook",
    "TimeBudgetHook",
    "UnreadableImagesHook",
    "WarmupHook",
    "put_pictures",
]
