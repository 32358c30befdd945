"""Compute COCO's box scores on a registered data set, in an evaluator for detectron2."""

import logging
import os
from collections.abc import Sequence

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from parking.data.datasets.coco import original_category_ids
from parking.structures.detections import Detections
from parking.structures.instances import drop_not_finite, to_detections
from parking.utils.class_names import find_classes, shown_name
from parking.utils.errors import UserError
from parking.utils.marks import OutputFolder
from parking.utils.text import printable

from .coco_results import COCO_RESULTS_START, write_coco_results
from .scorer import CLASS_METRICS, BoxScores, score_boxes
from .truth import make_truth

logger = logging.getLogger(__name__)

#: Name of the file with the predictions, in the folder of an evaluation's results.
RESULTS_NAME = "coco_instances_results.json"


class COCOBoxEvaluator(DatasetEvaluator):
    """Computes box AP and AR as COCO defines them (cocodataset.org/#detection-eval), over a registered data set.

    The ground truth is what ``DatasetCatalog`` returns, which may be a part of a json file. Whatever
    ``TEST.DETECTIONS_PER_IMAGE`` is, at most 1, 10 or 100 boxes of an image and class count, as COCO defines. An image
    that was not processed counts as one in which nothing was found; an image that was processed twice counts once.

    Attributes:
        scores: matches and curves of the last :meth:`evaluate`, on the main process; None before.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        class_names: Sequence[str] | None = None,
        output_dir: str | os.PathLike | None = None,
    ):
        """
        Args:
            dataset_name: registered data set, with ``thing_classes`` in its metadata.
            class_names: the model's classes, if they are not the data set's in the same order. Boxes of a class that
                the data set does not have are left out.
            output_dir: where to write ``coco_instances_results.json`` (COCO results), if at all; the folder is made.
        """
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._class_names = list(metadata.thing_classes)
        self._category_ids = original_category_ids(metadata)
        self._output_dir = output_dir
        # The category id of each class of the model; None if the data set does not have the class.
        self._predicted_ids = self._category_ids
        if class_names is not None:
            found = zip(find_classes(self._class_names, class_names), self._category_ids, strict=True)
            ids = {name: category_id for name, category_id in found if name is not None}
            # If two classes of the model have the same name, the first counts, as in infer.py --annotations.
            self._predicted_ids = [ids.pop(name, None) for name in class_names]
        self.reset()

    def process(self, inputs, outputs):
        """Keep the detections of a batch until :meth:`evaluate` scores them.

        Args:
            inputs: list of dicts with "image_id".
            outputs: list of dicts with "instances", which have ``pred_boxes`` in pixels of the original image,
                ``scores`` and ``pred_classes``.

        Raises:
            ValueError: a predicted class is not among those of the model.
        """
        for image, output in zip(inputs, outputs, strict=True):
            image_id = image["image_id"]
            self._found[image_id] = to_detections(image_id, output["instances"], self._predicted_ids)

    def leave_out(self, image_id: int | str) -> None:
        """Score as if the data set did not have this image, because it cannot be read."""
        self._left_out.add(image_id)

    def reset(self):
        self._found: dict[int | str, Detections] = {}
        self._left_out: set[int | str] = set()
        self.scores: BoxScores | None = None

    def _write(self, detections: Detections) -> None:
        folder = OutputFolder(self._output_dir, option="OUTPUT_DIR")
        folder.adopt_unmarked(RESULTS_NAME, start=COCO_RESULTS_START)
        path = os.path.join(self._output_dir, RESULTS_NAME)
        try:
            write_coco_results(detections, path, option="OUTPUT_DIR")
        except UserError as e:
            # A training must go on even if somebody edited the file of an earlier evaluation.
            logger.warning("The predictions on %s were not written: %s", printable(self._dataset_name), e)
        else:
            logger.info("Wrote the predictions on %s to %s", self._dataset_name, path)

    def evaluate(self) -> dict:
        """Score all detections since the last :meth:`reset`. Every process must call this; all but the main one get {}.

        Returns:
            {"bbox": {metric: percent}} with :data:`.scorer.METRICS` and, for each class, "AP-<class>",
            "AP50-<class>" and "AP75-<class>". A score is nan if the data set has no box for it.

        Raises:
            ValueError: an image was processed that the data set does not have.
        """
        comm.synchronize()
        found = {image_id: boxes for part in comm.gather(self._found) for image_id, boxes in part.items()}
        left_out = set().union(*comm.gather(self._left_out))
        if not comm.is_main_process():
            return {}
        if left_out:
            logger.warning("%d images of %s are left out of the scores.", len(left_out), self._dataset_name)
        truth = _make_truth(DatasetCatalog.get(self._dataset_name), self._category_ids).without_images(left_out)
        if unknown := found.keys() - set(truth.image_ids) - left_out:
            raise ValueError(f"image {min(unknown, key=str)!r} was processed, but is not in {self._dataset_name}")
        num_missing = len(truth.image_ids) - len(found)
        if num_missing > 0:
            logger.warning("%d images were not processed; all their boxes count as not found.", num_missing)
        # Put the detections into the order of the data set, which does not depend on the batches.
        parts = [Detections.from_columns([], [], [], []), *(found[i] for i in truth.image_ids if i in found)]
        detections = drop_not_finite(Detections.concatenate(parts))
        if self._output_dir:
            self._write(detections)
        if not truth.num_boxes.any():
            logger.warning("%s has no annotated boxes; all its scores are nan.", self._dataset_name)
        self.scores = score_boxes(truth, detections)
        results, per_class = self.scores.summarize(), self.scores.summarize_classes()
        self._log(results, per_class, truth.num_boxes)
        for name, scores in zip(self._class_names, per_class.tolist(), strict=True):
            results.update({f"{metric}-{name}": score for metric, score in zip(CLASS_METRICS, scores, strict=True)})
        return {"bbox": results}

    def _log(self, results, per_class, num_boxes):
        small_table = create_small_table(results)
        rows = [
            (shown_name(name), *scores, num)
            for name, scores, num in zip(self._class_names, per_class.tolist(), num_boxes.tolist(), strict=True)
        ]
        table = tabulate(
            rows,
            headers=("class", *CLASS_METRICS, "boxes"),
            tablefmt="pipe",
            floatfmt=".2f",
            missingval="nan",
            disable_numparse=[0],
        )
        name = printable(self._dataset_name)
        logger.info("Box scores on %s, percent:\n%s", name, small_table)
        logger.info("Box scores on %s by class, percent:\n%s", name, table)


def _make_truth(dataset_dicts, category_ids):
    annotations = [(row, a) for row, record in enumerate(dataset_dicts) for a in record.get("annotations", ())]
    boxes = np.array([a["bbox"] for _, a in annotations], dtype=np.float64).reshape(-1, 4)
    modes = np.array([a["bbox_mode"] for _, a in annotations], dtype=np.int64)
    for mode in np.unique(modes).tolist():
        boxes[modes == mode] = BoxMode.convert(boxes[modes == mode], BoxMode(mode), BoxMode.XYWH_ABS)
    return make_truth(
        [record["image_id"] for record in dataset_dicts],
        category_ids,
        rows=[row for row, _ in annotations],
        classes=[a["category_id"] for _, a in annotations],
        boxes=boxes,
        areas=[a.get("area") for _, a in annotations],
        crowd=[bool(a.get("iscrowd", 0)) for _, a in annotations],
    )
