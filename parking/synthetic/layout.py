"""Where the stalls of a lot are, which ground an object covers, and which of two objects hides the other."""

from dataclasses import dataclass
from itertools import combinations

import numpy as np

STALL = (2.5, 5.0)


@dataclass(frozen=True)
class Lot:
    """A parking lot: stalls, and the aisle in which the camera's car stands.

    Attributes:
        kind: "facing" if the camera looks across the aisle at a row of stalls, "along" if it looks down the aisle
            between two rows.
        edge: metres from the camera's car to the front line of the stalls.
        stalls: (N, 4), for each stall x and y of the centre, yaw of a car that drove in forwards, and kind (0: plain,
            1: for the disabled, 2: for electric cars).
    """

    kind: str
    edge: float
    stalls: tuple[tuple[float, float, float, int], ...]

    def walls(self) -> tuple[float, float]:
        """Return the half width and the depth, in metres, of the area between the walls."""
        return (16.0, self.edge + 11.0) if self.kind == "facing" else (self.edge + 6.5, 34.0)


def make_lot(rng: np.random.Generator, kind: str) -> Lot:
    shift, stalls = rng.uniform(-1.2, 1.2), []
    special = {int(k): int(rng.integers(1, 3)) for k in rng.integers(0, 12, 2)} if rng.random() < 0.7 else {}
    if kind == "facing":
        edge = rng.uniform(4.6, 7.0)
        for row, yaw in ((0, 0.0), (1, np.pi)):
            for k in range(12):
                kind_of_stall = special.get(k, 0) if row == 0 else 0
                stalls.append((shift + (k - 5.5) * STALL[0], edge + (row + 0.5) * STALL[1], yaw, kind_of_stall))
    else:
        edge = rng.uniform(2.7, 3.6)
        for side in (-1, 1):
            for k in range(11):
                y = 2.6 + shift + (k + 0.5) * STALL[0]
                kind_of_stall = special.get(k, 0) if side > 0 else 0
                stalls.append((side * (edge + STALL[1] / 2), y, -side * np.pi / 2, kind_of_stall))
    return Lot(kind, edge, tuple(stalls))


def footprint(x: float, y: float, yaw: float, width: float, length: float) -> np.ndarray:
    """Return the corners (4, 2), counter-clockwise, of the rectangle that an object covers on the ground."""
    return place(np.array([(width, -length), (width, length), (-width, length), (-width, -length)]) / 2, x, y, yaw)


def place(points: np.ndarray, x: float, y: float, yaw: float) -> np.ndarray:
    """Transform `points` (N, 2) from the frame of an object at (x, y) with heading `yaw` to the world."""
    s, c = np.sin(yaw), np.cos(yaw)
    return points @ np.array([[c, s], [-s, c]]) + (x, y)


def _axes(*rectangles: np.ndarray) -> np.ndarray:
    edges = np.concatenate([np.array([r[1] - r[0], r[2] - r[1]]) for r in rectangles])
    return edges / np.linalg.norm(edges, axis=1, keepdims=True)


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Return whether two rectangles (4, 2) overlap or touch, by the separating axis theorem."""
    axes = _axes(a, b)
    on_a, on_b = axes @ a.T, axes @ b.T
    return bool(((on_a.max(1) >= on_b.min(1)) & (on_b.max(1) >= on_a.min(1))).all())


def hides(a: np.ndarray, b: np.ndarray, eye: np.ndarray) -> bool:
    """Return whether `a` may hide `b` from `eye`: some line separates `b` from both `a` and `eye`.

    If no line separates `a` from `b`, the nearer one may hide the other.
    """
    axes = _axes(a, b)
    on_a, on_b, on_eye = axes @ a.T, axes @ b.T, axes @ eye
    a_first, b_first = on_b.min(1) - on_a.max(1), on_a.min(1) - on_b.max(1)
    gap = np.maximum(a_first, b_first)
    best = int(gap.argmax())
    if gap[best] < 0:
        return bool(np.linalg.norm(a.mean(0) - eye) < np.linalg.norm(b.mean(0) - eye))
    if a_first[best] > 0:
        return bool(on_eye[best] < (on_a[best].max() + on_b[best].min()) / 2)
    return bool(on_eye[best] > (on_b[best].max() + on_a[best].min()) / 2)


def painters_order(footprints: list[np.ndarray], eye: np.ndarray) -> list[int]:
    """Sort the objects from back to front; return their indices.

    If objects hide each other in a circle, the farthest comes first.
    """
    left = list(range(len(footprints)))
    distance = [float(np.linalg.norm(f.mean(0) - eye)) for f in footprints]
    hidden_by: dict[int, set[int]] = {i: set() for i in left}
    for i, j in combinations(left, 2):
        front, back = (i, j) if hides(footprints[i], footprints[j], eye) else (j, i)
        hidden_by[back].add(front)
    order = []
    while left:
        # The next object to draw must hide no other object that is left.
        free = [i for i in left if not any(i in hidden_by[j] for j in left)] or left
        pick = max(free, key=distance.__getitem__)
        order.append(pick)
        left.remove(pick)
    return order
