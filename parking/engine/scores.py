"""Find the scores that steer a training in the results of an evaluation."""

import math
from collections.abc import Mapping
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.events import EventStorage

from parking.evaluation.scorer import CLASS_METRICS, METRICS
from parking.utils.class_names import find_classes
from parking.utils.errors import UserError
from parking.utils.text import printable


def best_metric(cfg) -> str:
    """Return the name of the score TEST.BEST_METRIC in the event storage.

    If there are several data sets and TEST.BEST_METRIC names none of them, the score of the first one is meant.

    Raises:
        UserError: there is no such score.
    """
    metric, names = cfg.TEST.BEST_METRIC, list(cfg.DATASETS.TEST)
    if len(names) > 1 and not metric.startswith(tuple(f"{name}/" for name in names)):
        metric = f"{names[0]}/{metric}"
    # Split at the first "bbox/" and then at the first hyphen, because the name of a class may contain both, too.
    head, _, score = metric.partition("bbox/")
    kind, hyphen, typed = score.partition("-")
    (found,) = find_classes([typed], MetadataCatalog.get(names[0]).thing_classes)
    if kind in CLASS_METRICS and hyphen and found is not None:
        return f"{head}bbox/{kind}-{found}"
    if "bbox/" not in metric or score not in METRICS:
        raise UserError(
            f"TEST.BEST_METRIC is {cfg.TEST.BEST_METRIC!r}; the choices are bbox/ and one of {', '.join(METRICS)}, or "
            f"such as AP75-{printable(MetadataCatalog.get(names[0]).thing_classes[0])}."
        )
    return metric


def find_last_score(storage: EventStorage, metric: str) -> float:
    """Return the score ``metric`` of the evaluation after the present iteration; nan if it has no such score.

    A score that cannot be computed, such as that of a class without boxes, is not stored. The latest stored score is
    then that of an earlier evaluation, which does not count.
    """
    value, iteration = storage.latest().get(metric, (math.nan, -1))
    return float(value) if iteration == storage.iter else math.nan


def class_ap_of(results: Mapping[str, Any], class_names: list[str]) -> list[float]:
    """Return the AP of each class, 0..1, in the first evaluated data set; nan for a class that has no boxes there."""
    while results and "bbox" not in results:
        results = next(iter(results.values()))
    return [results["bbox"][f"AP-{name}"] / 100 for name in class_names] if results else []


def finite_only(results: dict[str, Any]) -> dict[str, Any]:
    """Copy nested scores without those that are NaN (classes without boxes), because metrics.json cannot hold NaN."""
    return {
        key: finite_only(value) if isinstance(value, dict) else value
        for key, value in results.items()
        if isinstance(value, dict) or math.isfinite(value)
    }
