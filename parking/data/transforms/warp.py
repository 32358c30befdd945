"""Transform images by affine and perspective maps, and choose the boxes to keep."""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from fvcore.transforms.transform import Transform

from parking.utils.constants import PAD_VALUE

# A mapped box is kept if its sides in pixels are above _MIN_SIDE, its aspect ratio is below _MAX_ASPECT, and its area
# is above _MIN_AREA_RATIO times the original area times the square of the map's scale.
_MIN_SIDE = 2.0
_MAX_ASPECT = 100.0
_MIN_AREA_RATIO = 0.1


class WarpTransform(Transform):
    """Map an image by a 3 x 3 matrix and fill the rest of the output with gray.

    Args:
        h, w: size of the input in pixels.
        new_h, new_w: size of the output in pixels.
        matrix: float (3, 3); maps homogeneous (x, y, 1) of the input to the output, both in absolute coordinates (not
            pixel indices: the centre of the top-left pixel is at (0.5, 0.5)).
        scale: the factor by which the matrix enlarges lengths, which :func:`find_box_candidates` needs.
    """

    def __init__(self, h: int, w: int, new_h: int, new_w: int, matrix: np.ndarray, scale: float = 1.0):
        super().__init__()
        self._set_attributes(locals())

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        if np.array_equal(self.matrix, np.eye(3)) and (self.h, self.w) == (self.new_h, self.new_w):
            return img
        # Shift by half a pixel, because for OpenCV, the centre of the top-left pixel is at (0, 0).
        matrix = _translate(-0.5, -0.5) @ self.matrix @ _translate(0.5, 0.5)
        options = {"dsize": (self.new_w, self.new_h), "flags": cv2.INTER_LINEAR, "borderValue": (PAD_VALUE,) * 3}
        if np.array_equal(matrix[2], [0, 0, 1]):
            return cv2.warpAffine(img, matrix[:2], **options)
        return cv2.warpPerspective(img, matrix, **options)

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        """Map (N, 2) points (x, y) in absolute pixels; points on or beyond the horizon become NaN."""
        mapped = np.column_stack([coords, np.ones(len(coords))]) @ self.matrix.T
        depth = mapped[:, 2:]
        return mapped[:, :2] / np.where(depth > 0, depth, np.nan)

    def apply_box(self, box: np.ndarray) -> np.ndarray:
        """Return (N, 4) XYXY_ABS boxes around the mapped corners of boxes, not clipped.

        A box with a corner on or beyond the horizon of a perspective has no finite hull and becomes all zeros.
        """
        return np.nan_to_num(super().apply_box(box), nan=0.0)

    @property
    def is_upright(self) -> bool:
        """Whether the map only scales and moves, so that upright rectangles stay upright."""
        (a, b, _), (c, d, _), bottom = self.matrix
        return b == c == 0 and a > 0 and d > 0 and np.array_equal(bottom, [0, 0, 1])

    def paint(self, img: np.ndarray, corner: tuple[int, int], out: np.ndarray) -> None:
        """Map a part of the input image into the output image; only if the map ``is_upright``.

        Args:
            img: (h, w, C), the part.
            corner: (x, y) of its top-left corner in the input.
            out: (new_h, new_w, C), the output, changed at pixels whose centre lies on the part. The part's outer
                pixels are repeated at its borders, whereas :meth:`apply_image` mixes them with their neighbours.
        """
        h, w = img.shape[:2]
        x0, y0, x1, y1 = self.find_pixels(np.array([*corner, corner[0] + w, corner[1] + h]))
        if x0 >= x1 or y0 >= y1:
            return
        matrix = _translate(-x0 - 0.5, -y0 - 0.5) @ self.matrix @ _translate(corner[0] + 0.5, corner[1] + 0.5)
        target = out[y0:y1, x0:x1]
        flags, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
        cv2.warpAffine(img, matrix[:2], (x1 - x0, y1 - y0), dst=target, flags=flags, borderMode=border)

    def find_pixels(self, box: np.ndarray) -> tuple[int, int, int, int]:
        """Return x0, y0, x1, y1 (exclusive) of the output pixels whose centres lie in the mapped ``box`` (XYXY_ABS).

        There are none (x0 >= x1 or y0 >= y1) if the box lies outside the output. Boxes that touch share no pixel.
        """
        mapped = np.ceil(self.apply_box(box.reshape(1, 4).astype(float))[0] - 0.5)
        x0, y0, x1, y1 = np.clip(mapped, 0, [self.new_w, self.new_h] * 2).astype(int).tolist()
        return x0, y0, x1, y1


@dataclass(frozen=True)
class RandomPerspective:
    """Draws random affine and perspective maps from an image to an output of another size.

    A map scales and rotates about the centre of the image, shears, adds perspective, and moves the centre to 0.5 +-
    ``translate`` of the output, in this order.

    Attributes:
        size: height and width in pixels of the output.
        degrees: rotation in +-degrees.
        translate: +-parts of the output's sides.
        scale: below 1; the factor of enlargement lies in 1 +- ``scale``.
        shear: along x and along y, each in +-degrees.
        perspective: +-1/pixel, along x and along y.
    """

    size: tuple[int, int]
    degrees: float = 0.0
    translate: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    perspective: float = 0.0

    def draw(self, h: int, w: int, rng: np.random.Generator) -> WarpTransform:
        """Draw a transform for an image of (h, w) pixels."""
        new_h, new_w = self.size
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        scale = rng.uniform(1 - self.scale, 1 + self.scale)
        shear_x, shear_y = np.tan(np.radians(rng.uniform(-self.shear, self.shear, 2)))
        perspective_x, perspective_y = rng.uniform(-self.perspective, self.perspective, 2)
        offset_x, offset_y = rng.uniform(0.5 - self.translate, 0.5 + self.translate, 2)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        matrix = (
            _translate(offset_x * new_w, offset_y * new_h)
            @ np.array([[1, 0, 0], [0, 1, 0], [perspective_x, perspective_y, 1]])
            @ np.array([[1, shear_x, 0], [shear_y, 1, 0], [0, 0, 1]])
            @ np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
            @ _translate(-w / 2, -h / 2)
        )
        return WarpTransform(h, w, new_h, new_w, matrix, scale)


def clip_boxes(boxes: np.ndarray, h: int, w: int) -> np.ndarray:
    """Clip (N, 4) XYXY_ABS boxes to an image of (h, w) pixels; returns a new array."""
    return np.clip(boxes, 0, [w, h, w, h])


def find_box_candidates(original: np.ndarray, mapped: np.ndarray, scale: float) -> np.ndarray:
    """Find the boxes that are still worth training on after a map.

    Args:
        original: (N, 4) XYXY_ABS before the map.
        mapped: (N, 4) XYXY_ABS after it, clipped to the image.
        scale: enlargement by the map.

    Returns:
        bool (N,): True if both sides are above 2 pixels, the longer side is less than 100 times the shorter, and the
        area is above a tenth of the original area at the map's scale.
    """
    w, h = mapped[:, 2] - mapped[:, 0], mapped[:, 3] - mapped[:, 1]
    original_area = (original[:, 2] - original[:, 0]) * (original[:, 3] - original[:, 1])
    large = (w > _MIN_SIDE) & (h > _MIN_SIDE)
    slim = np.maximum(w, h) < _MAX_ASPECT * np.minimum(w, h)
    return large & slim & (w * h > _MIN_AREA_RATIO * scale**2 * original_area)


def _translate(x: float, y: float) -> np.ndarray:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1]], dtype=np.float64)
