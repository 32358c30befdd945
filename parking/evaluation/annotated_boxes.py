"""The annotated boxes of a json as a training or evaluation has them; needs neither torch nor detectron2."""

import logging
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from parking.data.checking.annotation_inspection import Annotations, collect_annotations, inspect_boxes
from parking.data.checking.findings import (
    KINDS,
    Finding,
    list_counts,
    stop_if_needed,
)
from parking.data.datasets.json_io import get_list, paused_gc
from parking.evaluation.coco_scores import make_annotations
from parking.utils.text import printable

logger = logging.getLogger(__name__)


def read_boxes(
    content: Mapping[str, Any],
    path: str,
    records: Sequence[Mapping],
    *,
    listed: Collection,
    class_ids: Mapping[int, int],
    policy: str = "strict",
    may_repair: bool = True,
) -> Annotations:
    """The boxes on ``records``, under the same rules as in a data set of DATASETS.COCO: clipped, left out, or refused.

    What was mended or left out is logged.

    Args:
        content: of a COCO-like json.
        path: its file, for messages.
        records: images with ``image_id`` and ``file_name``, and ``height`` and ``width`` where they are known; nothing
            is outside of the others.
        listed: the ids of all images in the json.
        class_ids: contiguous class by category id; no other category may occur.
        policy: DATASETS.POLICY.
        may_repair: whether the user can choose another policy.

    Returns:
        The annotations, in the order of ``records``, to which their ``rows`` refer.

    Raises:
        UserError: naming the first annotation that stops under ``policy``.
    """
    findings: list[Finding] = []
    rows = {record["image_id"]: row for row, record in enumerate(records)}
    unlimited = {"height": math.inf, "width": math.inf}
    with paused_gc():
        entries = get_list(content, "annotations", path)
        annotations, _ = collect_annotations(entries, class_ids, rows, listed, findings)
        sized = [{**unlimited, **record} for record in records]
        annotations = inspect_boxes(annotations, entries, sized, findings, policy)
    stop_if_needed(path, findings, policy, may_repair=may_repair)
    notable = [finding for finding in findings if KINDS[finding.kind].severity != "note"]
    if notable:
        lines = "\n".join(list_counts(notable, policy))
        logger.warning("Found in %s (see tools/check_data.py):\n%s", printable(path), lines)
    return annotations.take(annotations.rows.argsort(kind="stable"))


def make_ground_truth(annotations: Annotations, ranks: Mapping[int, int], num_classes: int) -> dict:
    """The COCO json that :func:`.coco_scores.score_boxes` takes; its categories are the contiguous classes.

    Args:
        ranks: of all images, by the ``rows`` that annotations have.
    """
    return {
        "images": [{"id": rank} for rank in ranks.values()],
        "annotations": make_annotations(
            image_ids=[ranks[row] for row in annotations.rows.tolist()],
            category_ids=annotations.classes.tolist(),
            boxes=annotations.boxes,
            areas=annotations.areas.tolist(),
            crowd=annotations.crowd.tolist(),
        ),
        "categories": [{"id": i, "name": str(i)} for i in range(num_classes)],
    }
