"""The result for one image in Python, convertible to COCO results, supervision and pictures."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import cv2
import numpy as np

from parking.structures.detections import Detections, make_id_column
from parking.utils.errors import UserError
from parking.visualization.colors import class_colors
from parking.visualization.contact_sheet import limit_side
from parking.visualization.drawing import BoxDrawer, encode_image, save_image

# Longer side in pixels of a picture in a notebook: the file of the notebook contains the picture.
_MAX_NOTEBOOK_SIDE = 1280


class Detection(NamedTuple):
    """One of :class:`ImageDetections`: ``box`` is (4,) float32 XYXY in pixels of the original image."""

    box: np.ndarray
    score: float
    class_id: int
    class_name: str


@dataclass(frozen=True, eq=False, repr=False)
class ImageDetections:
    """N detections in one image, the best score first.

    Iterating gives each :class:`Detection`, and so does indexing with one number. A mask, a slice or several indices
    give the selected ones as ``ImageDetections``.

    Attributes:
        boxes: (N, 4) float32, (x1, y1, x2, y2) in pixels of the original image, from its upper left corner.
        scores: (N,) float32, 0..1.
        class_ids: (N,) int64, indices into ``thing_classes``.
        thing_classes: names of all classes that the model knows.
        category_ids: the id of each of ``thing_classes`` in the json files of its data set.
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
        """What a model found with a score of at least ``min_score``.

        Args:
            instances: detectron2's ``Instances`` with ``pred_boxes``, ``scores`` and ``pred_classes``.
            fields: the other attributes.
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
        """The (H, W, 3) uint8 RGB image, not a copy; if a file was given, it is read each time.

        Raises:
            UserError: the file cannot be read any more.
        """
        return self.image_source() if callable(self.image_source) else self.image_source

    @property
    def class_names(self) -> list[str]:
        """The N class names of the detections."""
        return [self.thing_classes[i] for i in self.class_ids]

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detection]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, rows) -> "Detection | ImageDetections":
        if isinstance(rows, int | np.integer):
            class_id = int(self.class_ids[rows])
            return Detection(self.boxes[rows], float(self.scores[rows]), class_id, self.thing_classes[class_id])
        # numpy turns an empty list into floats, which cannot be indices.
        rows = rows if isinstance(rows, slice) or len(rows) else slice(0)
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], class_ids=self.class_ids[rows])

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in Counter(self.class_names).most_common())
        return f"<ImageDetections: {counts or 'none'}>"

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """COCO results, one dict a detection: ``image_id``, ``category_id``, ``bbox`` and ``score``.

        ``bbox`` is [x, y, width, height] in pixels of the original image, to 0.001; ``category_id`` is one of
        ``category_ids``; the score has 6 places.
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
        """A ``supervision.Detections`` with ``xyxy``, ``confidence``, ``class_id`` and ``data["class_name"]``.

        Raises:
            ImportError: the package supervision is not installed; nothing else here needs it.
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

    def draw(self, *, display_names: Sequence[str] | None = None) -> np.ndarray:
        """Return a copy of :attr:`image`, (H, W, 3) uint8 RGB, with the boxes, their class names and scores.

        Args:
            display_names: what to write instead of each of ``thing_classes``; the colours stay.

        Raises:
            UserError: the file cannot be read any more, or no installed font can draw the names.
        """
        return self._draw(display_names)

    def save(self, path: str | os.PathLike, *, display_names: Sequence[str] | None = None) -> None:
        """Write :meth:`draw` to ``path``, in the format of its ending (.jpg, .png, ...); its folder is made.

        Raises:
            UserError: what :meth:`draw` raises, or the file cannot be written.
        """
        picture = self.draw(display_names=display_names)
        try:
            save_image(picture, path)
        except cv2.error as e:
            raise UserError(f"The picture '{path}' cannot be written: end its name in .jpg or .png.") from e

    def _repr_png_(self) -> bytes:
        """:meth:`draw` for a notebook; the image is reduced to 1280 pixels first, so that the names stay readable."""
        return encode_image(self._draw(max_side=_MAX_NOTEBOOK_SIDE))

    def _draw(self, display_names: Sequence[str] | None = None, max_side: int | None = None) -> np.ndarray:
        names = self.thing_classes if display_names is None else display_names
        drawer = BoxDrawer(names, class_colors(self.thing_classes))
        image = self.image
        reduced = limit_side(image, max_side)
        return drawer.draw(reduced, self.boxes, self.class_ids, self.scores, size=image.shape[:2])
