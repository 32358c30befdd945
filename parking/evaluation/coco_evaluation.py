"""COCO's box metrics of a registered data set, through faster-coco-eval."""

import logging
import math
import os
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from detectron2.utils.logger import create_small_table
from tabulate import tabulate

from parking.data.datasets.coco import original_category_ids
from parking.evaluation.coco_scores import make_annotations, rank_image_ids, score_boxes
from parking.evaluation.prediction_collector import PredictionCollector, to_detections
from parking.structures.detections import Detections
from parking.utils.class_names import find_classes, shown_name
from parking.utils.errors import UserError
from parking.utils.marks import OutputFolder
from parking.utils.text import printable

from .coco_results import COCO_RESULTS_START, write_coco_results

logger = logging.getLogger(__name__)

#: COCO's twelve numbers, in the order of ``COCOeval.stats``.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
#: What is reported for every class, as ``{metric}-{class name}``.
CLASS_METRICS = ("AP", "AP50", "AP75")
#: The predictions of an evaluation, in the folder of its results.
RESULTS_NAME = "coco_instances_results.json"


class COCOBoxEvaluator(PredictionCollector):
    """Box AP and AR as COCO defines them (cocodataset.org/#detection-eval), over a whole registered data set.

    The ground truth is what ``DatasetCatalog`` gives, which may be a part of a json file. At most 1, 10 and 100 boxes
    per image and class count, COCO's own limits, whatever ``TEST.DETECTIONS_PER_IMAGE`` is. Images without predictions
    count as images where nothing was found.
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
            class_names: the model's classes, where they are not the data set's in its order: boxes of a class that the
                data set does not have are left out.
            output_dir: if given, ``coco_instances_results.json`` (COCO results) goes there; the folder is made.
        """
        super().__init__()
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._class_names = list(metadata.thing_classes)
        self._category_ids = original_category_ids(metadata)
        self._output_dir = output_dir
        self._class_indices = None
        if class_names is not None and list(class_names) != self._class_names:
            found = find_classes(self._class_names, class_names)
            # Of a name that the model has twice, the first class counts, as in infer.py --annotations.
            rows = {name: list(class_names).index(name) for name in found if name is not None}
            self._class_indices = torch.full((len(class_names),), -1)
            for i, name in enumerate(found):
                if name is not None:
                    self._class_indices[rows[name]] = i

    def process(self, inputs, outputs):
        if self._class_indices is not None:
            outputs = [{"instances": self._translate(output["instances"].to("cpu"))} for output in outputs]
        super().process(inputs, outputs)

    def leave_out(self, image_id: int | str) -> None:
        """Score as if the data set did not have this image, which cannot be read."""
        self._left_out.add(image_id)

    def reset(self):
        super().reset()
        self._left_out: set[int | str] = set()

    def _write(self, detections: Detections) -> None:
        folder = OutputFolder(self._output_dir, option="OUTPUT_DIR")
        folder.adopt_unmarked(RESULTS_NAME, start=COCO_RESULTS_START)
        path = os.path.join(self._output_dir, RESULTS_NAME)
        try:
            write_coco_results(detections, path, option="OUTPUT_DIR")
        except UserError as e:
            # A training must not end because somebody edited the file of an earlier evaluation.
            logger.warning("The predictions on %s are not written: %s", printable(self._dataset_name), e)
        else:
            logger.info("Wrote the predictions on %s to %s", self._dataset_name, path)

    def _translate(self, instances: Instances) -> Instances:
        classes = self._class_indices[instances.pred_classes]
        instances = instances[classes >= 0]
        instances.pred_classes = classes[classes >= 0]
        return instances

    def evaluate(self) -> dict:
        """Score everything processed since :meth:`reset`. Every process must call it; all but the main one get {}.

        Returns:
            OrderedDict: {"bbox": {metric: percent}} with :data:`METRICS` and, for each class, "AP-<class>",
            "AP50-<class>" and "AP75-<class>"; nan where there is no ground truth to tell.

        Raises:
            ValueError: a prediction is of an image or class that the data set does not have.
        """
        predictions = self.gather()
        left_out = set().union(*comm.gather(self._left_out))
        if predictions is None:
            return {}
        dataset_dicts = [d for d in DatasetCatalog.get(self._dataset_name) if d["image_id"] not in left_out]
        if left_out:
            logger.warning("%d images of %s were left out of its scores.", len(left_out), self._dataset_name)
        image_ids = rank_image_ids(d["image_id"] for d in dataset_dicts)
        self._check_images(predictions, image_ids)

        if self._output_dir:
            self._write(to_detections(predictions, self._category_ids))

        ground_truth = _build_ground_truth(dataset_dicts, image_ids, self._class_names)
        classes = [a["category_id"] for a in ground_truth["annotations"] if not a["iscrowd"]]
        num_boxes = np.bincount(np.array(classes, dtype=np.int64), minlength=len(self._class_names))
        if classes:
            # As they are written: the scores are those of the file, and of infer.py.
            detections = to_detections(predictions, list(range(len(self._class_names)))).round()
            stats, per_class = score_boxes(ground_truth, detections, image_ids)
        else:
            logger.warning("%s has no annotated boxes: there is nothing to score.", self._dataset_name)
            stats = [math.nan] * len(METRICS)
            per_class = np.full((len(self._class_names), len(CLASS_METRICS)), math.nan)

        results = dict(zip(METRICS, stats, strict=True))
        self._log(results, per_class, num_boxes)
        for name, scores in zip(self._class_names, per_class.tolist(), strict=True):
            results.update({f"{metric}-{name}": score for metric, score in zip(CLASS_METRICS, scores, strict=True)})
        return OrderedDict(bbox=results)

    def _check_images(self, predictions, image_ids):
        unknown = next((i for i in predictions if i not in image_ids), None)
        if unknown is not None:
            raise ValueError(f"there is a prediction for image {unknown!r}, which is not in {self._dataset_name}")
        if len(predictions) < len(image_ids):
            logger.warning(
                "%d of the %d images of %s were not processed: nothing counts as found in them.",
                len(image_ids) - len(predictions),
                len(image_ids),
                self._dataset_name,
            )

    def _log(self, results, per_class, num_boxes):
        small_table = create_small_table({metric: results[metric] for metric in METRICS})
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


def _build_ground_truth(dataset_dicts, image_ids, class_names):
    """A COCO json of ``dataset_dicts`` with ranks for image ids and contiguous category ids."""
    pairs = [(image_ids[record["image_id"]], a) for record in dataset_dicts for a in record.get("annotations", ())]
    boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYWH_ABS) for _, a in pairs]
    annotations = make_annotations(
        image_ids=[rank for rank, _ in pairs],
        category_ids=[a["category_id"] for _, a in pairs],
        boxes=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        areas=[a.get("area") for _, a in pairs],
        crowd=[bool(a.get("iscrowd", 0)) for _, a in pairs],
    )
    return {
        "images": [{"id": image_ids[d["image_id"]], "height": d["height"], "width": d["width"]} for d in dataset_dicts],
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(class_names)],
    }
