"""Draw the predictions on images, with the annotations beside them if there are any."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from parking.data.image_io import UnreadableImageError, read_listed_image
from parking.evaluation.annotations_file import AnnotationsFile
from parking.structures.detections import Detections
from parking.utils.files import explaining_write_errors
from parking.utils.marks import OutputFolder
from parking.visualization.contact_sheet import contact_sheet
from parking.visualization.drawing import BoxDrawer, encode_image

# Longest side of a picture in pixels; on a screen, the tags of a larger picture would be too small to read.
_MAX_PICTURE_SIDE = 1920
# The overview shows only this many pictures, because all of them are held in memory until it is written.
_MAX_SHEET_PICTURES = 30
_SHEET_COLUMNS = 3
_SHEET_TILE_WIDTH = 640

logger = logging.getLogger(__name__)

#: Name of the folder of the pictures, inside the folder of the results.
FOLDER_NAME = "visualizations"


class PictureWriter:
    """Draws boxes on images and writes the pictures to the folder ``visualizations``.

    A picture is named after the relative path of its image: ``visualizations/day/a.jpg.png`` for ``day/a.jpg``. The
    first 30 pictures also appear together on ``visualizations/overview.png``. An image with annotations is shown twice,
    with its annotations on the left and the predictions on the right.
    """

    def __init__(
        self,
        *,
        output_dir: str,
        classes: Mapping[str, int],
        display_names: Sequence[str] | None = None,
        min_score: float,
        ground_truth: AnnotationsFile | None = None,
    ):
        """
        Args:
            output_dir: folder in which ``visualizations`` is made.
            classes: category id by class name; the order of the classes determines their colours.
            display_names: names to draw instead, one for each class.
            min_score: 0..1; predictions that score less are not drawn.
            ground_truth: annotations to draw beside the predictions.
        """
        self._folder = OutputFolder(output_dir)
        self._drawer = BoxDrawer(list(classes), display_names)
        self._class_indices = {category_id: i for i, category_id in enumerate(classes.values())}
        self._min_score = min_score
        self._ground_truth = ground_truth
        self._written: set[str] = set()

    def draw(self, images: Sequence[dict], detections: Detections) -> str | None:
        """Draw ``images`` and their ``detections``, with a progress bar; skip images that cannot be read.

        Args:
            images: dicts with ``image_id``, ``file_name`` and ``relative_path``.

        Returns:
            The path of the folder, or None if nothing was drawn.
        """
        tiles: dict[str, np.ndarray] = {}
        num_drawn = 0
        by_image = zip(images, detections.split([image["image_id"] for image in images]), strict=True)
        for image, found in tqdm(by_image, "drawing", len(images), unit="image", dynamic_ncols=True):
            try:
                pixels = read_listed_image(image)
            except UnreadableImageError:
                continue  # the prediction has already reported this image
            found, name = found[found.scores >= self._min_score], image["relative_path"]
            picture = self._draw(image["image_id"], pixels, found, max_side=_MAX_PICTURE_SIDE)
            # Add the ending instead of replacing it, because a.jpg and a.png may lie side by side.
            self._save(picture, f"{name}.png")
            num_drawn += 1
            if len(tiles) < _MAX_SHEET_PICTURES:
                # Draw again at the size of a tile, because the tags of a shrunken picture would be unreadable.
                tiles[name] = self._draw(image["image_id"], pixels, found, max_side=_SHEET_TILE_WIDTH)
        if not tiles:
            return None
        if num_drawn > len(tiles):
            logger.info("overview.png shows the first %d of %d pictures", len(tiles), num_drawn)
        columns, width = _SHEET_COLUMNS, _SHEET_TILE_WIDTH
        if self._ground_truth is not None:  # a tile holds two pictures, annotations and predictions
            columns, width = columns // 2, 2 * width
        self._save(contact_sheet(list(tiles.values()), list(tiles), columns=columns, tile_width=width), "overview.png")
        return str(self._folder.root / FOLDER_NAME)

    def count_earlier(self) -> int:
        """Count the pictures in the folder that an earlier run drew and this run did not replace."""
        paths = Path(self._folder.root, FOLDER_NAME).rglob("*.png")
        names = {path.relative_to(self._folder.root).as_posix() for path in paths}
        return sum(self._folder.is_ours(name) for name in names - self._written)

    def check(self, images: Sequence[dict]) -> None:
        """Raise a UserError if the pictures of ``images`` would replace a file that this product did not write."""
        names = [*(image["relative_path"] for image in images), "overview"]
        self._folder.check((f"{FOLDER_NAME}/{name}.png" for name in names), by_size=True)

    def _save(self, picture, name: str) -> None:
        name = f"{FOLDER_NAME}/{name}"
        with explaining_write_errors(), self._folder.open(name) as file:
            file.write(encode_image(picture))
        self._written.add(name)

    def _draw(self, image_id, pixels, found: Detections, *, max_side: int) -> np.ndarray:
        predicted = self._draw_boxes(pixels, found, found.scores, max_side=max_side)
        if self._ground_truth is None or image_id not in self._ground_truth:
            return predicted
        annotated = self._draw_boxes(pixels, self._ground_truth.boxes_of(image_id), None, max_side=max_side)
        side = max(annotated.shape[:2])
        return contact_sheet([annotated, predicted], ["annotated", "predicted"], columns=2, tile_width=side)

    def _draw_boxes(self, image, found: Detections, scores, *, max_side: int) -> np.ndarray:
        classes = [self._class_indices[i] for i in found.category_ids.tolist()]
        return self._drawer.draw(image, found.corners, classes, scores, max_side=max_side)
