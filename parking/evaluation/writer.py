"""Writing what a model finds in images without annotations."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from parking.evaluation.detections import write_coco_results
from parking.evaluation.prediction_collector import PredictionCollector, to_detections
from parking.evaluation.submission import DEFAULT_MAX_BYTES, write_submission
from parking.utils.files import open_atomic

logger = logging.getLogger(__name__)


class ResultsWriter(PredictionCollector):
    """Writes predictions to files; the only evaluator that inference needs.

    - ``predictions.json``: COCO results with the data set's own category ids;
    - ``images.json``: a list of {"id", "file_name"} of all images, also of those without boxes;
    - ``submission.json``, if asked for: see :func:`parking.evaluation.submission.write_submission`.
    """

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike,
        category_ids: Sequence[int],
        images: Sequence[dict],
        with_submission: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ):
        """
        Args:
            output_dir: where the files go; made if needed.
            category_ids: the data set's own category id of every contiguous class.
            images: one dict with "image_id" and "file_name" (as it shall stand in ``images.json``) per image; their
                order is that of the boxes in ``predictions.json``.
            with_submission: whether to write ``submission.json``.
            max_bytes: limit of its size.
        """
        super().__init__()
        self._output_dir = Path(output_dir)
        self._category_ids = list(category_ids)
        self._images = [{"id": image["image_id"], "file_name": image["file_name"]} for image in images]
        self._with_submission = with_submission
        self._max_bytes = max_bytes

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
        write_coco_results(detections, paths["predictions"])
        with open_atomic(paths["images"]) as file:
            # A name that is not UTF-8 holds lone surrogates; a backslash escape of one is what JSON wants, too.
            file.write(json.dumps(self._images, ensure_ascii=False, indent=0).encode(errors="backslashreplace"))
        results = {"predictions": paths["predictions"], "images": paths["images"], "num_boxes": len(detections)}
        if self._with_submission:
            report = write_submission(detections, paths["submission"], max_bytes=self._max_bytes)
            _log_report(report, paths["submission"])
            results.update(submission=paths["submission"], submission_report=report)
        return results


def _log_report(report, path):
    lowest = f", scores from {report.threshold:.4f}" if report.num_kept else ""
    logger.info("%s: %d boxes%s, %.2f MB", path, report.num_kept, lowest, report.num_bytes / 1e6)
    if report.num_left_out:
        logger.info(
            "%d boxes that score lowest did not fit; from %.4f on all did", report.num_left_out, report.threshold
        )
    if report.num_invalid:
        logger.info("%d boxes are too small or score too low (below 0.00005) for the format", report.num_invalid)
