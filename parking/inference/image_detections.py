"""The detections in one image, as :class:`.detector.Detector` returns them."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np

from parking.structures.detections import Detections, make_id_column
from parking.utils.errors import UserError
from parking.visualization.drawing import BoxDrawer, encode_image, save_image

# Longest side in pixels of a picture in a notebook; the file of the notebook stores the picture, so keep it small.
_MAX_NOTEBOOK_SIDE = 1280


class Detection(NamedTuple):
    """One detection; ``box`` is (4,) float32 XYXY in pixels of the original image."""

    box: np.ndarray
    score: float
    class_id: int
    class_name: str


@dataclass(frozen=True, eq=False, repr=False)
class ImageDetections:
    """N detections in one image, the best score first.

    Iterating yields one :class:`Detection` after the other, and an integer index returns one. A mask, a slice or a list
    of indices returns the selected detections as another ``ImageDetections``.

    Attributes:
        boxes: (N, 4) float32, (x1, y1, x2, y2) in pixels of the original image, from its upper left corner.
        scores: (N,) float32, 0..1.
        class_ids: (N,) int64, indices into ``thing_classes``.
        thing_classes: names of all classes that the model knows.
        category_ids: for each of ``thing_classes`` its id in the COCO json of the data set.
        image_source: the image (see :attr:`image`), or a function that returns it.
    """

    boxes: np.ndarray
    scores: np.ndarray
    class_ids: np.ndarray
    thing_classes: Sequence[str]
    category_ids: Sequence[int]
    image_source: np.ndarray | Callable[[], np.ndarray]

    @classmethod
    def from_instances(cls, instances, *, min_score: float, **fields) -> "ImageDetections":
        """Make an ``ImageDetections`` from a model's output, without detections that score less than ``min_score``.

        Args:
            instances: detectron2's ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``.
            fields: the attributes of this class that ``instances`` do not hold.
        """
        instances = instances[instances.scores >= min_score].to("cpu")
        return cls(
            boxes=instances.pred_boxes.tensor.float().numpy(),
            scores=instances.scores.float().numpy(),
            class_ids=instances.pred_classes.long().numpy(),
            **fields,
        )

    @property
    def image(self) -> np.ndarray:
        """The (H, W, 3) uint8 RGB image, not copied; if the detector was given a file, each access reads the file.

        Raises:
            UserError: the file can no longer be read.
        """
        return self.image_source() if callable(self.image_source) else self.image_source

    @property
    def class_names(self) -> list[str]:
        """The class name of each of the N detections."""
        return [self.thing_classes[i] for i in self.class_ids]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, rows) -> "Detection | ImageDetections":
        if isinstance(rows, int | np.integer):
            class_id = int(self.class_ids[rows])
            return Detection(self.boxes[rows], float(self.scores[rows]), class_id, self.thing_classes[class_id])
        # Replace an empty list, which numpy turns into an array of floats and then rejects as indices.
        rows = rows if isinstance(rows, slice) or len(rows) else slice(0)
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], class_ids=self.class_ids[rows])

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.class_names).most_common())
        return f"<ImageDetections: {counts or 'none'}>"

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Return COCO results: for each detection a dict of ``image_id``, ``category_id``, ``bbox`` and ``score``.

        ``bbox`` is [x, y, width, height] in pixels of the original image, rounded to 0.001; ``category_id`` is one of
        ``category_ids``; ``score`` is rounded to 6 decimals.
        """
        corners = self.boxes.astype(np.float64)
        found = Detections.from_columns(
            [image_id] * len(self),
            make_id_column(self.category_ids)[self.class_ids],
            np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1),
            self.scores,
        )
        return found.round().to_coco_results()

    def to_supervision(self):
        """Return a ``supervision.Detections`` with ``xyxy``, ``confidence``, ``class_id`` and ``data["class_name"]``.

        Raises:
            ImportError: the package supervision, which only this method needs, is not installed.
        """
        try:
            import supervision
        except ModuleNotFoundError as e:
            raise ImportError(
                f"to_supervision() needs the package supervision, but {e.name} is not installed: "
                f"`pip install supervision`.",
                name=e.name,
            ) from e
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            confidence=self.scores.copy(),
            class_id=self.class_ids.copy(),
            data={"class_name": np.array(self.class_names, dtype=str)},
        )

    def draw(self, *, display_names: Sequence[str] | None = None, max_side: int | None = None) -> np.ndarray:
        """Return a copy of :attr:`image`, (H, W, 3) uint8 RGB, with the boxes, their class names and scores.

        Args:
            display_names: names to write instead of ``thing_classes``, one for each; the colours stay the same.
            max_side: longest side in pixels to which a larger picture is reduced before the boxes are drawn.

        Raises:
            UserError: the image file can no longer be read, or no installed font can draw the names.
        """
        drawer = BoxDrawer(self.thing_classes, display_names)
        return drawer.draw(self.image, self.boxes, self.class_ids, self.scores, max_side=max_side)

    def save(self, path: str | os.PathLike, *, display_names: Sequence[str] | None = None) -> None:
        """Write the picture that :meth:`draw` returns to ``path``, whose ending (.jpg, .png, ...) names the format.

        The folder is made if needed.

        Raises:
            UserError: :meth:`draw` raises it, or the file cannot be written.
        """
        picture = self.draw(display_names=display_names)
        try:
            save_image(picture, path)
        except cv2.error as e:
            raise UserError(f"The picture '{path}' cannot be written: end its name in .jpg or .png.") from e

    def _repr_png_(self) -> bytes:
        """Return a PNG for notebooks: reduced to 1280 pixels before the boxes are drawn, so that names are legible."""
        return encode_image(self.draw(max_side=_MAX_NOTEBOOK_SIDE))
