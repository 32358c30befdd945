"""Boxes for a list of images: files to hand in, and pictures to look at."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators, inference_on_dataset
from torch import nn
from tqdm import tqdm

from parking.data.build import build_inference_loader
from parking.data.image_io import read_image
from parking.evaluation.writer import ResultsWriter
from parking.utils.errors import UserError
from parking.visualization.contact_sheet import contact_sheet
from parking.visualization.drawing import BoxDrawer, save_image

# A picture is drawn no larger than this, so that tags stay readable and files small.
_MAX_PICTURE_SIDE = 1920
_SHEET_COLUMNS = 3
_SHEET_TILE_WIDTH = 640


@dataclass(frozen=True)
class InferenceReport:
    """What a run did.

    Attributes:
        files: paths by what they hold: "predictions", "images", and where asked for "submission", "visualizations".
        num_images: images that were predicted.
        num_boxes: boxes found in them.
        unreadable: a sentence for each image that could not be read.
    """

    files: dict[str, str]
    num_images: int
    num_boxes: int
    unreadable: list[str] = field(default_factory=list)


def predict_images(
    cfg,
    model: nn.Module,
    images: Sequence[dict],
    *,
    output_dir: str,
    category_ids: Sequence[int],
    with_submission: bool = False,
    drawer: "PictureWriter | None" = None,
) -> InferenceReport:
    """Run ``model`` over ``images`` and write what it finds below ``output_dir``, with a progress bar.

    Args:
        model: in eval mode, from :func:`build_inference_model`.
        images: from :func:`parking.data.datasets.images.list_images`.
        category_ids: the original id of each of the model's classes.
        with_submission: also write ``submission.json``, of at most TEST.SUBMISSION_MB.
        drawer: also draw the images it was made for.
    """
    batches = _ReadableBatches(build_inference_loader(cfg, list(images)))
    writer = ResultsWriter(
        output_dir=output_dir,
        category_ids=category_ids,
        images=[{"image_id": image["image_id"], "file_name": image["relative_path"]} for image in images],
        with_submission=with_submission,
        max_bytes=int(cfg.TEST.SUBMISSION_MB * 1e6),
    )
    # The bar says how far it is; detectron2's own lines would break it up.
    d2_logger = logging.getLogger("detectron2.evaluation.evaluator")
    level = d2_logger.level
    d2_logger.setLevel(logging.WARNING)
    try:
        results = inference_on_dataset(model, batches, DatasetEvaluators([writer, drawer] if drawer else [writer]))
    finally:
        d2_logger.setLevel(level)
    files = {
        name: results[name] for name in ("predictions", "images", "submission", "visualizations") if name in results
    }
    return InferenceReport(
        files=files,
        num_images=len(images) - len(batches.unreadable),
        num_boxes=results["num_boxes"],
        unreadable=batches.unreadable,
    )


class _ReadableBatches:
    """A loader's batches with a progress bar, those of unreadable images set aside."""

    def __init__(self, loader):
        self._loader = loader
        self.unreadable: list[str] = []

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        for batch in tqdm(self._loader, desc="predicting", unit="image", dynamic_ncols=True):
            self.unreadable += [inputs["error"] for inputs in batch if "error" in inputs]
            readable = [inputs for inputs in batch if "error" not in inputs]
            if readable:
                yield readable


class PictureWriter(DatasetEvaluator):
    """Draws the detections of some images into ``visualizations/``, and all of them onto ``overview.png`` there."""

    def __init__(self, images: Sequence[dict], *, output_dir: str, class_names: Sequence[str], min_score: float):
        """
        Args:
            images: those to draw, as for :func:`predict_images`.
            min_score: boxes below it are not drawn, 0..1.

        Raises:
            UserError: no font can draw the class names.
        """
        self._names = {image["image_id"]: image["relative_path"] for image in images}
        self._folder = Path(output_dir, "visualizations")
        self._drawer = BoxDrawer(class_names)
        self._min_score = min_score
        self._drawn: dict[str, np.ndarray] = {}

    def reset(self) -> None:
        self._drawn = {}

    def process(self, inputs, outputs) -> None:
        for image_input, output in zip(inputs, outputs, strict=True):
            name = self._names.get(image_input["image_id"])
            if name is None:
                continue
            instances = output["instances"].to("cpu")
            instances = instances[instances.scores >= self._min_score]
            image = read_image(image_input["file_name"])
            found = (instances.pred_boxes.tensor.numpy(), instances.pred_classes.numpy(), instances.scores.numpy())
            self._save(self._draw(image, *found, max_side=_MAX_PICTURE_SIDE), name)
            # Drawn again at its own size: tags of a shrunk picture could not be read.
            self._drawn[name] = self._draw(image, *found, max_side=_SHEET_TILE_WIDTH)

    def _draw(self, image, boxes, classes, scores, *, max_side: int) -> np.ndarray:
        scale = min(1.0, max_side / max(image.shape[:2]))
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        return self._drawer.draw(image, boxes * scale, classes, scores)

    def _save(self, picture: np.ndarray, name: str) -> None:
        # Pictures of different folders go into one: the folders' names keep them apart.
        save_image(picture, self._folder / f"{Path(name).with_suffix('').as_posix().replace('/', '__')}.png")

    def evaluate(self) -> dict[str, str]:
        if not self._drawn:
            return {}
        sheet = contact_sheet(
            list(self._drawn.values()), list(self._drawn), columns=_SHEET_COLUMNS, tile_width=_SHEET_TILE_WIDTH
        )
        save_image(sheet, self._folder / "overview.png")
        return {"visualizations": str(self._folder)}


def names_and_ids(weights) -> tuple[list[str], list[int]]:
    """Class names and original category ids that ``weights`` carry. Raises UserError where they carry none."""
    if not weights.class_names or not weights.category_ids:
        raise UserError(
            f"weights {weights.path} carry no class names and category ids, so their boxes have no meaning."
        )
    return weights.class_names, weights.category_ids
