"""Stroller and shopping cart."""

from itertools import pairwise

import numpy as np

from parking.synthetic.mesh import Mesh, MeshBuilder, mirrored_ring, mix, scaled
from parking.synthetic.shapes.cars import RUBBER

FABRICS = ((40, 160, 160), (232, 96, 120), (132, 112, 186), (60, 90, 150), (230, 150, 90))
HANDLES = ((214, 34, 40), (40, 100, 200), (250, 180, 30), (40, 150, 80))


def build_stroller(rng: np.random.Generator) -> Mesh:
    """Build a stroller: a fabric seat under a round hood, facing ahead (+y), on a frame with four small wheels."""
    mesh, fabric = MeshBuilder(), FABRICS[rng.integers(len(FABRICS))]
    frame = (60, 62, 68)
    for side in (-1, 1):
        x = side * 0.25
        for y, radius in ((0.38, 0.1), (-0.36, 0.14)):
            mesh.cylinder((x, y, radius), (1, 0, 0), radius, 0.06, RUBBER, cap=(200, 202, 206))
        mesh.tube((x, 0.38, 0.12), (x, -0.3, 0.78), 0.02, frame)
        mesh.tube((x, -0.36, 0.14), (x, 0.1, 0.52), 0.02, frame)
        mesh.tube((x, -0.3, 0.78), (x, -0.54, 1.02), 0.02, frame)
    mesh.tube((-0.26, -0.54, 1.02), (0.26, -0.54, 1.02), 0.032, (36, 34, 34))
    mesh.box((0, -0.02, 0.26), (0.42, 0.5, 0.12), (64, 64, 70), layer=0)
    mesh.part(1)
    seat = [(0.36, 0.2, 0.34, 0.42), (0.26, 0.22, 0.36, 0.54), (-0.08, 0.23, 0.38, 0.58), (-0.34, 0.2, 0.56, 0.86)]
    rings = []
    for y, half, low, high in seat:
        right = [(half * 0.7, low), (half, low + 0.05), (half, high - 0.03), (half * 0.8, high)]
        rings.append(mirrored_ring(right, y))
    mesh.loft(rings, fabric)
    mesh.ball((0, -0.02, 0.76), 0.105, (236, 198, 168))
    mesh.tube((0, 0.0, 0.6), (0, 0.2, 0.54), 0.1, mix(fabric, (255, 255, 255), 0.65))
    _hood(mesh, fabric)
    mesh.tube((-0.24, 0.24, 0.66), (0.24, 0.24, 0.66), 0.03, frame)
    return mesh.build()


def _hood(mesh: MeshBuilder, fabric) -> None:
    """Add a hood over the seat: a quarter of a ball, open to the front, in slices of two tones.

    The hood is visible from outside and from inside.
    """
    centre, radius, half = np.array([0, -0.12, 0.70]), 0.36, 0.245
    turns = np.linspace(0.42, 1.08, 6) * np.pi
    for k, (a, b) in enumerate(pairwise(turns)):
        colour = fabric if k % 2 else scaled(fabric, 0.84)
        rows = []
        for turn in (a, b):
            arch = [
                centre + (s * half, radius * np.cos(turn) * w, radius * np.sin(turn) * w)
                for s, w in ((1, 0.72), (0.92, 0.9), (0.5, 1.0), (-0.5, 1.0), (-0.92, 0.9), (-1, 0.72))
            ]
            rows.append(arch)
        mesh.part(1)
        for i in range(5):
            quad = [rows[0][i], rows[1][i], rows[1][i + 1], rows[0][i + 1]]
            mesh.face(quad, scaled(colour, 0.5))
            mesh.face(quad[::-1], colour)
        for i in (0, 5):
            tip = centre + ((1 if i == 0 else -1) * half, 0, 0)
            mesh.face([rows[0][i], rows[1][i], tip], colour)
            mesh.face([tip, rows[1][i], rows[0][i]], colour)


def build_cart(rng: np.random.Generator) -> Mesh:
    """Build a shopping cart: a wire basket, wider and deeper at the handle (-y), on a low frame with castors."""
    mesh, handle = MeshBuilder(), HANDLES[rng.integers(len(HANDLES))]
    steel = (186, 190, 196)
    low = np.array([(0.2, -0.26, 0.52), (0.17, 0.44, 0.58), (-0.17, 0.44, 0.58), (-0.2, -0.26, 0.52)])
    high = np.array([(0.28, -0.4, 0.98), (0.23, 0.52, 0.94), (-0.23, 0.52, 0.94), (-0.28, -0.4, 0.98)])
    for x, y in ((0.24, -0.36), (-0.24, -0.36), (0.2, 0.4), (-0.2, 0.4)):
        mesh.cylinder((x, y, 0.065), (1, 0, 0), 0.065, 0.04, RUBBER, cap=(150, 152, 156))
        mesh.tube((x, y, 0.1), (x, y - 0.02, 0.2), 0.022, scaled(steel, 0.8))
    for side in (-1, 1):
        mesh.path([(side * 0.2, 0.4, 0.2), (side * 0.24, -0.36, 0.2), (side * 0.21, -0.3, 0.54)], 0.024, steel)
    mesh.tube((-0.22, -0.0, 0.2), (0.22, -0.0, 0.2), 0.02, steel)
    if rng.random() < 0.5:
        for k in range(3):
            size = rng.uniform(0.14, 0.24, 3)
            colour = ((226, 190, 120), (90, 170, 90), (230, 240, 246), (210, 80, 60))[rng.integers(4)]
            mesh.box((rng.uniform(-0.08, 0.08), -0.15 + 0.22 * k, 0.56 + size[2] / 2), size, colour, layer=0)
    _basket(mesh, low, high, steel)
    mesh.path(high, 0.018, handle, closed=True)
    mesh.tube((-0.29, -0.5, 1.02), (0.29, -0.5, 1.02), 0.034, handle)
    for side in (-1, 1):
        mesh.tube((side * 0.28, -0.4, 0.98), (side * 0.28, -0.5, 1.02), 0.022, steel)
    return mesh.build()


def _basket(mesh: MeshBuilder, low: np.ndarray, high: np.ndarray, steel) -> None:
    wire = 0.008
    for i, bars in enumerate((9, 5, 9, 5)):
        j = (i + 1) % 4
        for k in range(bars):
            share = k / bars
            a, b = low[i] * (1 - share) + low[j] * share, high[i] * (1 - share) + high[j] * share
            mesh.tube(a, b, wire, steel)
        for share in (0.0, 0.25, 0.5, 0.75):
            a, b = low[i] * (1 - share) + high[i] * share, low[j] * (1 - share) + high[j] * share
            mesh.tube(a, b, wire * 1.2, scaled(steel, 0.92))
    for k in range(1, 5):
        share = k / 5
        a, b = low[0] * (1 - share) + low[1] * share, low[3] * (1 - share) + low[2] * share
        mesh.tube(a, b, wire, scaled(steel, 0.8))
