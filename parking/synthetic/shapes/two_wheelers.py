"""Motorcycle, kickboard (stand-up electric scooter) and bicycle, parked without a rider."""

import numpy as np

from parking.synthetic.mesh import LAMP, PAINT, Mesh, MeshBuilder, circle, mirrored_ring, scaled
from parking.synthetic.shapes.cars import CHROME, HEADLAMP, RUBBER, TAILLAMP

BIKE_PAINTS = ((206, 36, 42), (30, 110, 200), (240, 240, 240), (34, 150, 90), (250, 160, 30), (120, 200, 210))
SCOOTER_PAINTS = ((60, 220, 130), (250, 220, 40), (120, 80, 220), (250, 250, 250))
MOTOR_PAINTS = ((190, 26, 32), (28, 60, 140), (30, 30, 34), (232, 232, 230))


def build_bicycle(rng: np.random.Generator) -> Mesh:
    """Build a bicycle with a diamond frame on thin wheels of 68 cm."""
    mesh, paint = MeshBuilder(), BIKE_PAINTS[rng.integers(len(BIKE_PAINTS))]
    radius, base = 0.34, 0.52
    for y in (base, -base):
        _thin_wheel(mesh, y, radius, tyre=0.024, spokes=8)
    crank, seat, head = (0, -0.06, 0.29), (0, -0.2, 0.82), (0, 0.37, 0.84)
    rear, front = (0, -base, radius), (0, base, radius)
    low_head = (0, 0.41, 0.68)
    for a, b in ((crank, seat), (crank, low_head), ((0, -0.18, 0.76), head), (seat, rear), (crank, rear)):
        mesh.tube(a, b, 0.026, paint)
    mesh.tube(low_head, front, 0.022, scaled(CHROME, 0.9))
    mesh.tube(low_head, (0, 0.34, 0.98), 0.026, paint)
    mesh.path([(-0.29, 0.26, 1.0), (-0.12, 0.36, 0.99), (0.12, 0.36, 0.99), (0.29, 0.26, 1.0)], 0.019, (60, 60, 64))
    mesh.tube(seat, (0, -0.22, 0.94), 0.018, CHROME)
    mesh.tube((0, -0.32, 0.96), (0, -0.08, 0.95), 0.07, (34, 32, 32), 0.035)
    mesh.part(0)
    mesh.disc((0.05, *crank[1:]), (1, 0, 0), 0.1, (70, 72, 76))
    mesh.disc((-0.05, *crank[1:]), (-1, 0, 0), 0.1, (70, 72, 76))
    mesh.tube((0.07, -0.06, 0.29), (0.07, 0.06, 0.17), 0.018, (50, 50, 54))
    mesh.tube((-0.07, -0.06, 0.29), (-0.07, -0.18, 0.41), 0.018, (50, 50, 54))
    if rng.random() < 0.6:
        mesh.box((0, 0.62, 0.86), (0.34, 0.26, 0.22), (150, 140, 120), taper=1.12, layer=0)
    return mesh.build()


def build_kickboard(rng: np.random.Generator) -> Mesh:
    """Build a kickboard: a deck on two small wheels, and a tall stem with a handlebar."""
    mesh, paint = MeshBuilder(), SCOOTER_PAINTS[rng.integers(len(SCOOTER_PAINTS))]
    for y in (0.46, -0.48):
        mesh.cylinder((0, y, 0.12), (1, 0, 0), 0.12, 0.07, RUBBER, cap=(120, 122, 126))
    mesh.box((0, -0.06, 0.17), (0.2, 0.8, 0.09), paint, PAINT, top=(46, 46, 50), layer=1)
    mesh.tube((0, -0.42, 0.2), (0, -0.58, 0.27), 0.06, paint)
    mesh.tube((0, 0.36, 0.2), (0, 0.44, 0.3), 0.06, paint)
    mesh.tube((0, 0.46, 0.14), (0, 0.44, 0.34), 0.055, (50, 50, 54))
    mesh.tube((0, 0.44, 0.3), (0, 0.3, 1.1), 0.045, paint)
    mesh.tube((0, 0.3, 1.08), (0, 0.29, 1.17), 0.05, (40, 40, 44))
    mesh.tube((-0.27, 0.27, 1.15), (0.27, 0.27, 1.15), 0.026, (36, 36, 40))
    for side in (-1, 1):
        mesh.tube((side * 0.16, 0.27, 1.15), (side * 0.28, 0.26, 1.15), 0.036, (24, 24, 26))
    mesh.ball((0, 0.36, 0.98), 0.05, HEADLAMP, material=LAMP)
    mesh.ball((0, -0.6, 0.28), 0.035, TAILLAMP, material=LAMP)
    return mesh.build()


def build_motorcycle(rng: np.random.Generator) -> Mesh:
    """Build a delivery scooter with fat wheels, a step-through body, a long seat and, mostly, a box behind."""
    mesh, paint = MeshBuilder(), MOTOR_PAINTS[rng.integers(len(MOTOR_PAINTS))]
    radius = 0.28
    for y in (0.66, -0.62):
        _fat_wheel(mesh, y, radius)
    mesh.tube((0, -0.5, 0.34), (0, 0.2, 0.3), 0.13, (54, 54, 58))
    _hull(
        mesh,
        [(0.36, 0.10, 0.30, 0.40), (-0.1, 0.15, 0.28, 0.46), (-0.4, 0.18, 0.36, 0.76), (-0.95, 0.1, 0.56, 0.80)],
        paint,
    )
    _hull(mesh, [(0.56, 0.18, 0.46, 0.94), (0.44, 0.2, 0.36, 0.98), (0.34, 0.14, 0.30, 0.96)], paint)
    mesh.tube((0.09, 0.66, radius), (0.07, 0.48, 0.86), 0.035, CHROME)
    mesh.tube((-0.09, 0.66, radius), (-0.07, 0.48, 0.86), 0.035, CHROME)
    _hull(mesh, [(0.92, 0.07, 0.44, 0.56), (0.66, 0.09, 0.54, 0.64), (0.42, 0.07, 0.46, 0.6)], scaled(paint, 0.9))
    _hull(mesh, [(0.02, 0.12, 0.74, 0.84), (-0.4, 0.16, 0.76, 0.88), (-0.8, 0.13, 0.78, 0.9)], (34, 32, 34))
    mesh.path([(-0.36, 0.3, 1.1), (-0.14, 0.42, 1.06), (0.14, 0.42, 1.06), (0.36, 0.3, 1.1)], 0.03, (40, 40, 44))
    for side in (-1, 1):
        mesh.tube((side * 0.24, 0.38, 1.08), (side * 0.3, 0.4, 1.26), 0.012, (50, 50, 54))
        mesh.ball((side * 0.31, 0.39, 1.3), 0.065, (50, 52, 58))
    mesh.tube((0, 0.46, 1.0), (0, 0.5, 1.02), 0.12, scaled(paint, 0.9))
    mesh.ball((0, 0.58, 1.0), 0.095, HEADLAMP, material=LAMP)
    mesh.ball((0, -0.98, 0.68), 0.06, TAILLAMP, material=LAMP)
    mesh.tube((0.17, -0.3, 0.3), (0.19, -0.86, 0.38), 0.055, CHROME)
    if rng.random() < 0.65:
        colour = ((200, 40, 40), (250, 250, 250), (60, 190, 190), (40, 44, 50))[rng.integers(4)]
        mesh.box((0, -0.74, 1.07), (0.46, 0.46, 0.42), colour, PAINT, top=scaled(colour, 1.06), layer=0)
    return mesh.build()


def _thin_wheel(mesh: MeshBuilder, y: float, radius: float, tyre: float, spokes: int) -> None:
    mesh.path(circle((0, y, radius), (1, 0, 0), radius - tyre, 18), tyre, RUBBER, closed=True)
    ends = circle((0, y, radius), (1, 0, 0), radius - 2 * tyre, spokes)
    for end in ends[: spokes // 2]:
        across = 2 * np.array([0, y, radius]) - end
        mesh.tube(end, across, 0.006, (170, 172, 176))
    mesh.tube((-0.04, y, radius), (0.04, y, radius), 0.035, CHROME)


def _fat_wheel(mesh: MeshBuilder, y: float, radius: float) -> None:
    mesh.part(0)
    for side in (-1, 1):
        mesh.disc((side * 0.03, y, radius), (side, 0, 0), radius * 0.66, (120, 122, 128))
        mesh.disc((side * 0.035, y, radius), (side, 0, 0), radius * 0.3, CHROME, decal=1)
    mesh.path(circle((0, y, radius), (1, 0, 0), radius - 0.06, 16), 0.06, RUBBER, closed=True)


def _hull(mesh: MeshBuilder, sections, colour) -> None:
    """Add a part that joins octagonal `sections` from front to back, each given as (y, half width, low, high)."""
    mesh.part(0)
    rings = []
    for y, half, low, high in sections:
        cut = (high - low) * 0.25
        right = [(half * 0.6, low), (half, low + cut), (half, high - cut), (half * 0.6, high)]
        rings.append(mirrored_ring(right, y))
    mesh.loft(rings, colour, PAINT)
