"""Whether a training may go on where an earlier one stopped."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from parking.utils.errors import UserError

# What may differ between the two: where things are and how fast they go (which a time budget is about, and which, on a
# GPU without SEED, may change the last bits). A key stands for all below it. Whether the data are the same is told by
# themselves, not by their path.
_MAY_DIFFER = (
    "OUTPUT_DIR",
    "CUDNN_BENCHMARK",
    "DATALOADER.NUM_WORKERS",
    "DATASETS.ROOT",
    "DATASETS.COCO",
    "DATASETS.ALLOW_OUTSIDE",
    "INPUT.CACHE",
    "INPUT.CACHE_DIR",
    "INPUT.CACHE_GB",
    "MODEL.DEVICE",
    "MODEL.WEIGHTS",
    "MODEL.YOLO.CLASS_MAP",
    "MODEL.YOLO.ANCHORS_FROM_WEIGHTS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINTS_TO_KEEP",
    "SOLVER.MAX_HOURS",
    "TEST.DTYPE",
    "TEST.FALLBACKS",
    "TEST.FUSION",
    "TEST.IMS_PER_BATCH",
    "TEST.SUBMISSION_MB",
    "TEST.SUBMISSION_MAX_PER_IMAGE",
    "TEST.SUBMISSION_CLASS_FLOORS",
    "TEST.SUBMISSION_SPACING",
)


def check_same_recipe(config: Mapping[str, Any], earlier: Mapping[str, Any], *, output_dir: str) -> None:
    """Raise a UserError that names the first key in which a training's config differs from the earlier one.

    Args:
        config, earlier: nested plain values. A key that only one of them has is not compared: it is of another version.
        output_dir: of the training, for the message.
    """
    values = dict(flatten(earlier))
    # A cache of raw pixels changes nothing; one of JPEG does, where it is used.
    lossy = config.get("INPUT", {}).get("CACHE_FORMAT") == "jpeg"
    allowed_keys = [key for key in _MAY_DIFFER if not (lossy and key == "INPUT.CACHE")]
    for key, value in flatten(config):
        may_differ = any(key == allowed or key.startswith(f"{allowed}.") for allowed in allowed_keys)
        if not may_differ and key in values and values[key] != value:
            raise UserError(
                f"--resume: {key} is {value!r}, but the training in {output_dir} began with {values[key]!r}, and would "
                f"not be what an uninterrupted one is; set it back, or start anew with --overwrite."
            )


def digest_dataset(dataset_dicts: list[dict]) -> str:
    """A text that differs when images, their order, sizes or boxes do; where the files are does not matter."""
    digest = hashlib.sha256()
    for record in dataset_dicts:
        boxes = [[*map(float, a["bbox"]), a["category_id"], a.get("iscrowd", 0)] for a in record.get("annotations", ())]
        fields = [os.path.basename(record["file_name"]), str(record["image_id"]), record["height"], record["width"]]
        digest.update(json.dumps([fields, boxes]).encode())
    return digest.hexdigest()


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested mappings under their keys joined by dots."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
