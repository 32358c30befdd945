"""What the trainer does with evaluations: stopping one, and reading scores out of it."""

import logging
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.data import MetadataCatalog
from detectron2.utils.events import EventStorage

from parking.evaluation.scorer import CLASS_METRICS, METRICS
from parking.utils.class_names import find_classes
from parking.utils.errors import UserError
from parking.utils.text import printable

logger = logging.getLogger(__name__)


class StopEvaluation(Exception):
    """An evaluation was asked to stop; there are no results."""


class EvaluationLoader:
    """A data loader that can be stopped, and that hands images which cannot be used to someone else than the model."""

    def __init__(self, loader, *, should_stop: Callable[[], bool], leave_out: Callable[[Any], None]):
        """
        Args:
            should_stop: asked before each batch; when it says yes, :class:`StopEvaluation` is raised.
            leave_out: called with the image id of each dict that has an ``error``.
        """
        self._loader = loader
        self._should_stop = should_stop
        self._leave_out = leave_out

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self):
        for batch in self._loader:
            if self._should_stop():
                raise StopEvaluation
            for inputs in batch:
                if "error" in inputs:
                    logger.warning(f"{inputs['error']} It is left out of the evaluation.")
                    self._leave_out(inputs["image_id"])
            usable = [inputs for inputs in batch if "error" not in inputs]
            if usable:
                yield usable


def best_metric(cfg) -> str:
    """The name under which TEST.BEST_METRIC is stored: with several data sets, by default the first one's."""
    metric, names = cfg.TEST.BEST_METRIC, list(cfg.DATASETS.TEST)
    if len(names) > 1 and not metric.startswith(tuple(f"{name}/" for name in names)):
        metric = f"{names[0]}/{metric}"
    # The name of a class may hold anything, also "bbox/" or a hyphen.
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
    """``metric`` of the evaluation after the present iteration; nan where that has no such score.

    A score that cannot be computed, of a class without boxes for example, is not stored, and the storage's latest one
    is then an earlier evaluation's.
    """
    value, iteration = storage.latest().get(metric, (math.nan, -1))
    return float(value) if iteration == storage.iter else math.nan


def class_ap_of(results: Mapping[str, Any], class_names: list[str]) -> list[float]:
    """AP of each class, 0..1, in the first data set that was evaluated; nan where that has no such boxes."""
    while results and "bbox" not in results:
        results = next(iter(results.values()))
    return [results["bbox"][f"AP-{name}"] / 100 for name in class_names] if results else []


def finite_only(results: dict[str, Any]) -> dict[str, Any]:
    """Nested scores without those that are not a number (of a class without boxes), which metrics.json cannot hold."""
    return OrderedDict(
        (key, finite_only(value) if isinstance(value, dict) else value)
        for key, value in results.items()
        if isinstance(value, dict) or math.isfinite(value)
    )
