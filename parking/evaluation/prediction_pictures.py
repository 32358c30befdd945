"""Draw what a model finds in a few images of a data set."""

import os
from typing import Any

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.structures import BoxMode
from detectron2.utils import comm

from parking.visualization.contact_sheet import contact_sheet, fit_side
from parking.visualization.drawing import BoxDrawer

_KEY = "prediction_pictures"
_SIDE = 480
# Boxes with a lower score are not drawn.
_MIN_SCORE = 0.25
# A row shows two images, each drawn once with its annotations and once with the predictions.
_COLUMNS = 4


class PredictionPictures(DatasetEvaluator):
    """Draws predictions beside the annotations, for images spread evenly over a data set.

    The images are spread, because consecutive frames of a video look alike. Use this in ``DatasetEvaluators``, beside
    an evaluator of scores; :func:`pop_pictures` takes the pictures out of the joint results.
    """

    def __init__(self, dataset_name: str, *, max_images: int = 8):
        """
        Args:
            dataset_name: registered data set; the model's classes are its ``thing_classes``.
            max_images: at least 1.
        """
        self._drawer = BoxDrawer(MetadataCatalog.get(dataset_name).thing_classes)
        dataset_dicts = DatasetCatalog.get(dataset_name)
        num_images = min(max_images, len(dataset_dicts))
        chosen = (dataset_dicts[i * len(dataset_dicts) // num_images] for i in range(num_images))
        self._records = {record["image_id"]: record for record in chosen}
        self.reset()

    def reset(self):
        self._tiles: dict[Any, tuple[np.ndarray, np.ndarray]] = {}

    def process(self, inputs, outputs):
        """Draw the images of a batch that are among the chosen ones.

        Args:
            inputs: list of dicts with "image_id" and "image", the resized (3, h, w) uint8 RGB tensor.
            outputs: list of dicts with "instances", whose boxes are in pixels of the original image.
        """
        for image, output in zip(inputs, outputs, strict=True):
            record = self._records.get(image["image_id"])
            if record is not None:
                pixels = fit_side(image["image"].permute(1, 2, 0).cpu().numpy(), _SIDE)
                instances = output["instances"].to("cpu")
                self._tiles[image["image_id"]] = (
                    self._draw_annotations(pixels, record, instances.image_size),
                    self._draw_predictions(pixels, instances),
                )

    def _draw_annotations(self, pixels, record, size):
        annotations = [a for a in record.get("annotations", ()) if not a.get("iscrowd", 0)]
        boxes = [BoxMode.convert(list(a["bbox"]), a["bbox_mode"], BoxMode.XYXY_ABS) for a in annotations]
        return self._drawer.draw(pixels, boxes, [a["category_id"] for a in annotations], size=size)

    def _draw_predictions(self, pixels, instances):
        kept = instances[instances.scores >= _MIN_SCORE]
        return self._drawer.draw(
            pixels,
            kept.pred_boxes.tensor.detach().float().numpy(),
            kept.pred_classes.numpy(),
            kept.scores.detach().float().numpy(),
            size=kept.image_size,
        )

    def evaluate(self) -> dict[str, np.ndarray]:
        """Return a dict with the picture, for :func:`pop_pictures`; {} if none of the images to draw was processed.

        Every process must call this; all but the main process get {}.
        """
        drawn = {image_id: pair for part in comm.gather(self._tiles) for image_id, pair in part.items()}
        if not drawn:
            return {}
        tiles, titles = [], []
        for image_id in filter(drawn.__contains__, self._records):
            tiles += drawn[image_id]
            titles += [
                os.path.basename(self._records[image_id]["file_name"]),
                f"predicted, score ≥ {_MIN_SCORE:g}",
            ]
        return {_KEY: contact_sheet(tiles, titles, columns=_COLUMNS, tile_width=_SIDE)}


def pop_pictures(results: dict[str, Any]) -> dict[str, np.ndarray]:
    """Remove the pictures of :class:`PredictionPictures` from an evaluation's results, and return them by name.

    Args:
        results: {"bbox": ..., ...}, or a dict of these by data set name; only the scores stay in it.

    Returns:
        Pictures, (H, W, 3) uint8 RGB, by their name for TensorBoard: "val/predictions", or "val/predictions/NAME" for
        the data set NAME.
    """
    pictures = {}
    if _KEY in results:
        pictures["val/predictions"] = results.pop(_KEY)
    for name, scores in results.items():
        if isinstance(scores, dict) and _KEY in scores:
            pictures[f"val/predictions/{name}"] = scores.pop(_KEY)
    return pictures
