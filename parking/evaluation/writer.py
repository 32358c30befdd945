"""Writing what a model finds in images without annotations."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from parking.evaluation.detections import Detections, write_coco_results
from parking.evaluation.prediction_collector import PredictionCollector, to_detections
from parking.evaluation.submission import write_submission
from parking.evaluation.submission_options import SubmissionOptions
from parking.utils.files import open_atomic

logger = logging.getLogger(__name__)


class ResultsWriter(PredictionCollector):
    """Writes predictions to files; the only evaluator that inference needs.

    - ``predictions.json``: COCO results with the data set's own category ids;
    - ``images.json``: a list of {"id", "file_name"} of all images, also of those without boxes;
    - ``submission.json``, if asked for: see :func:`parking.evaluation.submission.write_submission`. It is what the same
      options make of ``predictions.json``. Otherwise one that an earlier run left is removed: it would be handed in for
      this run's.
    """

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike,
        category_ids: Sequence[int],
        images: Sequence[dict],
        submission: SubmissionOptions | None = None,
    ):
        """
        Args:
            output_dir: where the files go; made if needed.
            category_ids: the data set's own category id of every contiguous class.
            images: one dict with "image_id" and "file_name" (as it shall stand in ``images.json``) per image; their
                order is that of the boxes in ``predictions.json``.
            submission: how to write ``submission.json``; None: not at all.
        """
        super().__init__()
        self._output_dir = Path(output_dir)
        self._category_ids = list(category_ids)
        self._images = [{"id": image["image_id"], "file_name": image["file_name"]} for image in images]
        self._submission = submission

    def evaluate(self) -> dict:
        """Write the files. Every process must call it; all but the main one get {}.

        Returns:
            dict: "predictions" and "images" (paths), "num_boxes" and, if asked for, "submission" (path) and
            "submission_report" (:class:`~parking.evaluation.submission.SubmissionReport`).

        Raises:
            ValueError: a prediction is of an image or class that the constructor was not told of.
        """
        predictions = self.gather()
        if predictions is None:
            return {}
        ordered = {image["id"]: predictions.pop(image["id"]) for image in self._images if image["id"] in predictions}
        if predictions:
            raise ValueError(f"there is a prediction for image {next(iter(predictions))!r}, which was not announced")
        detections = to_detections(ordered, self._category_ids)

        paths = {name: str(self._output_dir / f"{name}.json") for name in ("predictions", "images", "submission")}
        self._remove_submission(paths["submission"])
        write_coco_results(detections, paths["predictions"])
        with open_atomic(paths["images"]) as file:
            # A name that is not UTF-8 holds lone surrogates; a backslash escape of one is what JSON wants, too.
            file.write(json.dumps(self._images, ensure_ascii=False, indent=0).encode(errors="backslashreplace"))
        results = {"predictions": paths["predictions"], "images": paths["images"], "num_boxes": len(detections)}
        if self._submission is not None:
            report = write_submission(_round(detections), paths["submission"], **self._submission._asdict())
            first, *more = report.describe()
            logger.info("%s: %s", paths["submission"], first)
            for line in more:
                logger.info("%s", line)
            results.update(submission=paths["submission"], submission_report=report)
        return results

    def _remove_submission(self, path: str) -> None:
        # Also if a new one comes: between the two, the old one would lie beside predictions that it was not made of.
        try:
            os.remove(path)
        except FileNotFoundError:
            return
        if self._submission is None:
            logger.warning("Removed %s: an earlier run wrote it, and this one writes none.", path)


def _round(detections):
    """The values as ``predictions.json`` has them, so that cutting it again gives the same file."""
    columns = (detections.boxes.round(3), detections.scores.round(6))
    return Detections(detections.image_ids, detections.category_ids, *columns)
