"""Boxes for a list of images: files to hand in, and pictures to look at."""

import logging
from collections.abc import Iterator, Mapping, Sequence
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
from parking.evaluation.submission_options import OptionNames, SubmissionOptions, make_submission_options
from parking.evaluation.writer import ResultsWriter
from parking.visualization.colors import class_colors
from parking.visualization.contact_sheet import contact_sheet
from parking.visualization.drawing import BoxDrawer, save_image

# A picture is drawn no larger than this, so that tags stay readable and files small.
_MAX_PICTURE_SIDE = 1920
# The overview shows the first ones only: every picture is held in memory until it is written.
_MAX_SHEET_PICTURES = 30
_SHEET_COLUMNS = 3
_SHEET_TILE_WIDTH = 640

logger = logging.getLogger(__name__)


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


def get_submission_options(cfg, classes: Mapping[str, int]) -> SubmissionOptions:
    """Those of TEST.SUBMISSION_*, checked; UserError if one is wrong.

    Args:
        classes: category id by class name, of the model's classes.
    """
    names = ("SUBMISSION_MB", "SUBMISSION_MAX_PER_IMAGE", "SUBMISSION_CLASS_FLOORS", "SUBMISSION_SPACING")
    return make_submission_options(
        max_size_mb=cfg.TEST.SUBMISSION_MB,
        max_per_image=cfg.TEST.SUBMISSION_MAX_PER_IMAGE,
        class_floors=cfg.TEST.SUBMISSION_CLASS_FLOORS,
        spacing=cfg.TEST.SUBMISSION_SPACING,
        classes=classes,
        names=OptionNames(*(f"TEST.{name}" for name in names)),
    )


def predict_images(
    cfg,
    model: nn.Module,
    images: Sequence[dict],
    *,
    output_dir: str,
    category_ids: Sequence[int],
    submission: SubmissionOptions | None = None,
    pictures: "PictureWriter | None" = None,
) -> InferenceReport:
    """Run ``model`` over ``images`` and write what it finds below ``output_dir``, with a progress bar.

    Args:
        model: in eval mode, from :func:`build_inference_model`.
        images: from :func:`parking.data.datasets.images.list_images`.
        category_ids: the original id of each of the model's classes.
        submission: how to write ``submission.json``, too; None: not, and an earlier run's is removed.
        pictures: also draw the images it was made for, if they can be read.
    """
    batches = _ReadableBatches(build_inference_loader(cfg, list(images)))
    writer = ResultsWriter(
        output_dir=output_dir,
        category_ids=category_ids,
        images=[{"image_id": image["image_id"], "file_name": image["relative_path"]} for image in images],
        submission=submission,
    )
    evaluators = [writer] if pictures is None else [writer, pictures]
    # The bar says how far it is; detectron2's own lines would break it up.
    d2_logger = logging.getLogger("detectron2.evaluation.evaluator")
    level = d2_logger.level
    d2_logger.setLevel(logging.WARNING)
    try:
        results = inference_on_dataset(model, batches, DatasetEvaluators(evaluators))
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
    """Draws the detections of some images into the folder ``visualizations``.

    The subfolders of the images are kept: ``visualizations/<relative path>.png``, ``day/a.jpg.png`` for ``day/a.jpg``.
    The first 30 pictures also appear together on ``visualizations/overview.png``.
    """

    def __init__(
        self,
        images: Sequence[dict],
        *,
        output_dir: str,
        class_names: Sequence[str],
        display_names: Sequence[str] | None = None,
        min_score: float,
    ):
        """
        Args:
            images: those to draw, as for :func:`predict_images`.
            output_dir: where ``visualizations`` is made.
            class_names: the model's classes, which determine the colours.
            display_names: what the tags say instead of ``class_names``, for each of them.
            min_score: boxes below it are not drawn, 0..1.

        Raises:
            UserError: no font can draw the names.
        """
        self._names = {image["image_id"]: image["relative_path"] for image in images}
        self._folder = Path(output_dir, "visualizations")
        self._drawer = BoxDrawer(class_names if display_names is None else display_names, class_colors(class_names))
        self._min_score = min_score
        self.reset()

    def reset(self) -> None:
        self._tiles: dict[str, np.ndarray] = {}
        self._num_drawn = 0

    def process(self, inputs, outputs) -> None:
        for image_input, output in zip(inputs, outputs, strict=True):
            name = self._names.get(image_input["image_id"])
            if name is None:
                continue
            instances = output["instances"].to("cpu")
            instances = instances[instances.scores >= self._min_score]
            image = read_image(image_input["file_name"])
            found = (instances.pred_boxes.tensor.numpy(), instances.pred_classes.numpy(), instances.scores.numpy())
            # The ending is added, not replaced: a.jpg and a.png may lie side by side.
            save_image(self._draw(image, *found, max_side=_MAX_PICTURE_SIDE), self._folder / f"{name}.png")
            self._num_drawn += 1
            if len(self._tiles) < _MAX_SHEET_PICTURES:
                # Drawn again at its own size: tags of a shrunk picture could not be read.
                self._tiles[name] = self._draw(image, *found, max_side=_SHEET_TILE_WIDTH)

    def _draw(self, image, boxes, classes, scores, *, max_side: int) -> np.ndarray:
        height, width = image.shape[:2]
        scale = min(1.0, max_side / max(height, width))
        if scale < 1:
            new_width, new_height = max(1, round(width * scale)), max(1, round(height * scale))
            image = cv2.resize(image, (new_width, new_height), interpolation=cv2.INTER_AREA)
            boxes = boxes * np.array([new_width / width, new_height / height] * 2)
        return self._drawer.draw(image, boxes, classes, scores)

    def evaluate(self) -> dict[str, str]:
        """Write the overview. Returns {"visualizations": folder}, or {} where nothing was drawn."""
        if not self._tiles:
            return {}
        if self._num_drawn > len(self._tiles):
            logger.info("overview.png shows the first %d of %d pictures", len(self._tiles), self._num_drawn)
        sheet = contact_sheet(
            list(self._tiles.values()), list(self._tiles), columns=_SHEET_COLUMNS, tile_width=_SHEET_TILE_WIDTH
        )
        save_image(sheet, self._folder / "overview.png")
        return {"visualizations": str(self._folder)}
