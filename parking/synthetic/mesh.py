"""Low-poly models: flat faces and round tubes in metres.

Object frame: x to the right, y ahead, z up, origin on the ground below the centre. Colours are RGB, 0..255.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

MATTE, PAINT, GLASS, LAMP = range(4)

Colour = Sequence[float]


@dataclass(frozen=True)
class Mesh:
    """A 3D object made of F primitives with V vertices in all.

    A primitive of three or more vertices is a face (counter-clockwise seen from outside), one of two vertices is a
    tube, and one of a single vertex is a ball.

    Attributes:
        vertices: (V, 3) metres.
        starts, counts: (F,) index of each primitive's first vertex, and number of its vertices.
        colours: (F, 3) RGB.
        radii: (F, 2) metres, at a tube's two ends; 0 for faces.
        materials, layers, parts, decals: (F,). Primitives are drawn in order of layer, then of part (far to near), then
            of decal level, then of depth. A part must be convex, or nearly so.
    """

    vertices: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    colours: np.ndarray
    radii: np.ndarray
    materials: np.ndarray
    layers: np.ndarray
    parts: np.ndarray
    decals: np.ndarray

    def mirrored_in_ground(self) -> "Mesh":
        """Return the mirror image of this mesh below z = 0; the outer sides of its faces stay outside."""
        flipped = self.vertices * (1.0, 1.0, -1.0)
        reversed_order = np.concatenate(
            [np.arange(s + c - 1, s - 1, -1) for s, c in zip(self.starts, self.counts, strict=True)]
        )
        return replace(self, vertices=flipped[reversed_order], radii=self.radii[:, ::-1])


class MeshBuilder:
    """Builds a mesh: `part` begins a part in a layer, and the methods below add primitives to the latest part."""

    def __init__(self):
        self._points, self._rows = [], []
        self._layer = self._part = 0

    def part(self, layer: int) -> None:
        self._part += 1
        self._layer = layer

    def face(self, points, colour: Colour, material: int = MATTE, decal: int = 0) -> None:
        self._add(points, colour, (0.0, 0.0), material, decal)

    def tube(self, start, end, radius, colour: Colour, end_radius=None) -> None:
        """Add a round rod as a new part, because parts are drawn from far to near."""
        self._part += 1
        self._add([start, end], colour, (radius, radius if end_radius is None else end_radius), MATTE, 0)

    def ball(self, centre, radius, colour: Colour, material: int = MATTE) -> None:
        self._part += 1
        self._add([centre], colour, (radius, radius), material, 0)

    def path(self, points, radius, colour: Colour, closed=False) -> None:
        """Add rods along a polyline."""
        points = [np.asarray(p, float) for p in points]
        pairs = zip(points, points[1:] + points[:1] if closed else points[1:], strict=False)
        for a, b in pairs:
            self.tube(a, b, radius, colour)

    def box(self, centre, size, colour: Colour, material=MATTE, *, layer: int, top: Colour | None = None, taper=1.0):
        """Add an upright box as a new part; its top rectangle is `taper` times as large as its base."""
        self.part(layer)
        (cx, cy, cz), (w, d, h) = centre, np.asarray(size, float) / 2
        base = np.array([(w, -d), (w, d), (-w, d), (-w, -d)]) + (cx, cy)
        roof = np.array([(w, -d), (w, d), (-w, d), (-w, -d)]) * taper + (cx, cy)
        self.stack([(base, cz - h), (roof, cz + h)], colour, material, top=top)

    def stack(self, rings: Iterable, colour: Colour, material: int = MATTE, top: Colour | None = None) -> list:
        """Add walls between horizontal outlines, from low to high, and a roof.

        Args:
            rings: the outlines [(points (n, 2), z), ...].

        Returns:
            list: for each level, the walls as quads (4, 3). Their corners, seen from outside, are lower left, lower
                right, upper right, upper left.
        """
        rings = [np.column_stack([xy, np.full(len(xy), z)]) for xy, z in rings]
        levels = []
        for low, high in pairwise(rings):
            following = zip(low, np.roll(low, -1, axis=0), np.roll(high, -1, axis=0), high, strict=True)
            quads = [np.array(corners) for corners in following]
            for quad in quads:
                self.face(quad, colour, material)
            levels.append(quads)
        self.face(rings[-1], colour if top is None else top, material)
        return levels

    def loft(self, rings: Sequence[np.ndarray], colour: Colour, material: int = MATTE, bands=None) -> None:
        """Add a skin that joins cross-sections from front to back, and a cap at both ends.

        Args:
            rings: the cross-sections (n, 3), clockwise seen from the front.
            bands: maps the index of an edge of the cross-sections to the colour of the skin along this edge, if other
                than `colour`.
        """
        bands = bands or {}
        n = len(rings[0])
        for front, back in pairwise(rings):
            for i in range(n):
                j = (i + 1) % n
                self.face([front[j], back[j], back[i], front[i]], bands.get(i, colour), material)
        self.face(rings[0][::-1], colour, material)
        self.face(rings[-1], colour, material)

    def disc(self, centre, axis, radius, colour, decal: int = 0, sides=14) -> None:
        """Add a flat disc, which is visible only from the side that `axis` points to."""
        self.face(circle(centre, axis, radius, sides), colour, MATTE, decal)

    def cylinder(self, centre, axis, radius, length, colour, cap: Colour | None = None) -> None:
        """Add a cylinder as a new part in layer 0."""
        self.part(0)
        sides = 12
        half = np.asarray(axis, float) * length / 2
        near = circle(np.asarray(centre) + half, axis, radius, sides)
        far = circle(np.asarray(centre) - half, axis, radius, sides)
        for i in range(sides):
            j = (i + 1) % sides
            self.face([far[i], far[j], near[j], near[i]], colour)
        self.face(near, cap or colour)
        self.face(far[::-1], cap or colour)

    def build(self) -> Mesh:
        counts = np.array([len(p) for p in self._points])
        colours, radii, materials, layers, parts, decals = zip(*self._rows, strict=True)
        _, parts = np.unique(np.array(parts), return_inverse=True)
        return Mesh(
            vertices=np.concatenate(self._points),
            starts=np.concatenate([[0], np.cumsum(counts)[:-1]]),
            counts=counts,
            colours=np.array(colours, float),
            radii=np.array(radii, float),
            materials=np.array(materials),
            layers=np.array(layers),
            parts=parts,
            decals=np.array(decals),
        )

    def _add(self, points, colour, radii, material, decal):
        self._points.append(np.asarray(points, float).reshape(-1, 3))
        self._rows.append((tuple(colour), radii, material, self._layer, self._part, decal))


def circle(centre, axis, radius, sides) -> np.ndarray:
    """Return points (sides, 3) of a circle, counter-clockwise seen from where the unit vector `axis` points to."""
    axis = np.asarray(axis, float)
    u = np.cross((0.0, 0.0, 1.0) if abs(axis[2]) < 0.9 else (1.0, 0.0, 0.0), axis)
    u /= np.linalg.norm(u)
    angle = np.arange(sides) * (2 * np.pi / sides)
    ring = np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * np.cross(axis, u)
    return np.asarray(centre, float) + radius * ring


def mirrored_ring(right: Sequence[tuple[float, float]], y: float) -> np.ndarray:
    """Mirror the `right` half of a cross-section at `y`, points (x, z) from low to high; return both halves (2n, 3)."""
    return np.array([(x, y, z) for x, z in [*right, *((-x, z) for x, z in reversed(right))]])


def inset(quad: np.ndarray, left: float, right: float, low: float, high: float) -> np.ndarray:
    """Cut a smaller quad from `quad` (counter-clockwise from lower left); the limits are fractions of its sides."""
    a, b, c, d = np.asarray(quad, float)

    def at(u, v):
        return (a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v

    return np.array([at(left, low), at(right, low), at(right, high), at(left, high)])


def mix(colour: Colour, other: Colour, share: float) -> tuple[float, ...]:
    """Mix two colours; `share` (0..1) is the share of `other`."""
    return tuple(a * (1 - share) + b * share for a, b in zip(colour, other, strict=True))


def scaled(colour: Colour, factor: float) -> tuple[float, ...]:
    return tuple(min(c * factor, 255.0) for c in colour)
