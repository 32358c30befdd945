"""Sedan, taxi, SUV and van: a lofted body, a cabin on top of it, wheels and trim."""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np

from parking.synthetic.mesh import GLASS, LAMP, MATTE, PAINT, Mesh, MeshBuilder, inset, mirrored_ring, mix, scaled

GLASS_COLOUR = (38, 46, 56)
RUBBER, RIM, TRIM, CHROME = (24, 24, 26), (172, 176, 182), (40, 41, 44), (196, 200, 205)
HEADLAMP, TAILLAMP, PLATE = (246, 246, 232), (190, 18, 22), (238, 238, 232)

#: Common car paints, RGB, and their relative frequencies.
PAINTS = (
    ((240, 241, 242), 5),
    ((172, 176, 180), 3),
    ((92, 96, 102), 3),
    ((38, 40, 44), 4),
    ((28, 52, 112), 2),
    ((150, 24, 30), 2),
    ((70, 112, 160), 1),
    ((30, 78, 62), 1),
    ((196, 184, 160), 1),
)


@dataclass(frozen=True)
class CarProfile:
    """The measures of a car in metres; y is 0 in the middle of the car and positive ahead.

    Attributes:
        stations: (y, half width, lower edge, belt height, crown height) of the body's cross-sections, front to back.
        cabin: (front, back, half width) of the cabin at belt height, where its windows begin.
        roof: (front, back, half width) of the roof.
        belt, height: metres above the ground.
        wheel: (radius, y of the front axle, y of the rear axle).
        pillars: positions of the pillars between side windows, as fractions of the cabin's length from its rear.
    """

    stations: tuple
    cabin: tuple
    roof: tuple
    belt: float
    height: float
    wheel: tuple
    pillars: tuple


SEDAN = CarProfile(
    stations=(
        (2.36, 0.66, 0.34, 0.56, 0.60),
        (2.24, 0.82, 0.24, 0.68, 0.73),
        (1.55, 0.91, 0.20, 0.82, 0.90),
        (0.85, 0.93, 0.20, 0.91, 0.99),
        (-1.5, 0.93, 0.20, 0.94, 1.01),
        (-2.1, 0.89, 0.22, 0.95, 1.03),
        (-2.30, 0.82, 0.30, 0.90, 0.97),
        (-2.38, 0.74, 0.36, 0.78, 0.80),
    ),
    cabin=(1.15, -1.85, 0.85),
    roof=(0.22, -1.0, 0.60),
    belt=0.93,
    height=1.46,
    wheel=(0.33, 1.42, -1.40),
    pillars=(0.24, 0.56),
)
SUV = CarProfile(
    stations=(
        (2.28, 0.74, 0.40, 0.82, 0.88),
        (2.18, 0.88, 0.30, 0.94, 1.02),
        (1.35, 0.96, 0.27, 1.04, 1.13),
        (0.95, 0.97, 0.27, 1.08, 1.16),
        (-1.9, 0.97, 0.27, 1.10, 1.16),
        (-2.26, 0.92, 0.34, 1.08, 1.14),
        (-2.34, 0.84, 0.42, 0.98, 1.04),
    ),
    cabin=(1.15, -2.24, 0.90),
    roof=(0.42, -1.98, 0.70),
    belt=1.08,
    height=1.74,
    wheel=(0.39, 1.40, -1.42),
    pillars=(0.27, 0.58),
)
VAN = CarProfile(
    stations=(
        (2.58, 0.74, 0.38, 0.78, 0.84),
        (2.48, 0.90, 0.28, 0.92, 1.00),
        (2.05, 0.97, 0.25, 1.06, 1.16),
        (1.60, 0.98, 0.25, 1.14, 1.24),
        (-2.4, 0.98, 0.25, 1.18, 1.24),
        (-2.56, 0.94, 0.32, 1.16, 1.20),
        (-2.62, 0.88, 0.40, 1.10, 1.14),
    ),
    cabin=(2.02, -2.56, 0.93),
    roof=(1.12, -2.44, 0.76),
    belt=1.16,
    height=2.02,
    wheel=(0.34, 1.72, -1.52),
    pillars=(0.36, 0.66),
)


def pick_paint(rng: np.random.Generator) -> tuple[float, ...]:
    weights = np.array([weight for _, weight in PAINTS], float)
    paint = PAINTS[rng.choice(len(PAINTS), p=weights / weights.sum())][0]
    return scaled(paint, rng.uniform(0.9, 1.05))


def build_sedan(rng: np.random.Generator) -> Mesh:
    return _car(SEDAN, pick_paint(rng)).build()


def build_suv(rng: np.random.Generator) -> Mesh:
    mesh = _car(SUV, pick_paint(rng), cladding=TRIM)
    for side in (-0.62, 0.62):
        mesh.box((side, -0.75, SUV.height + 0.05), (0.06, 1.9, 0.06), scaled(CHROME, 0.7), layer=3)
    return mesh.build()


def build_van(rng: np.random.Generator) -> Mesh:
    paint = ((238, 239, 240), (198, 202, 206), (52, 56, 64))[rng.choice(3, p=(0.6, 0.25, 0.15))]
    mesh = _car(VAN, paint)
    mesh.part(2)
    for side in (-1, 1):
        strip(mesh, side * 0.99, (-2.2, 0.1), (1.02, 1.06), scaled(paint, 0.5))
    return mesh.build()


def build_taxi(rng: np.random.Generator) -> Mesh:
    """Build an orange or silver sedan with a stripe and a lit sign on the roof."""
    orange = rng.random() < 0.7
    paint = (232, 112, 22) if orange else (196, 200, 206)
    mesh = _car(SEDAN, paint)
    stripe = (250, 250, 246) if orange else (246, 196, 20)
    mesh.part(2)
    for side in (-1, 1):
        for low, high, colour in ((0.60, 0.74, stripe), (0.54, 0.60, (34, 50, 110))):
            strip(mesh, side * 0.945, (-1.95, 1.25), (low, high), colour, PAINT)
    mesh.box((0, -0.25, SEDAN.height + 0.03), (0.66, 0.26, 0.06), TRIM, layer=3)
    mesh.box((0, -0.25, SEDAN.height + 0.16), (0.60, 0.20, 0.20), (255, 226, 92), LAMP, taper=0.82, layer=4)
    mesh.part(5)
    for face in (1, -1):
        y = -0.25 + face * 0.105
        dark = [(x, y, SEDAN.height + z) for x, z in ((0.2, 0.12), (-0.2, 0.12), (-0.2, 0.19), (0.2, 0.19))]
        mesh.face(dark if face > 0 else dark[::-1], (52, 40, 12))
    return mesh.build()


def _car(shape: CarProfile, paint, cladding=None) -> MeshBuilder:
    mesh = MeshBuilder()
    radius, front_axle, rear_axle = shape.wheel
    half = max(station[1] for station in shape.stations)
    axles = [(side * (half - 0.1), y) for side in (-1, 1) for y in (front_axle, rear_axle)]
    for x, y in axles:
        mesh.cylinder((x, y, radius), (np.sign(x), 0.0, 0.0), radius, 0.22, RUBBER)
    mesh.part(1)
    rings = [_section(*station) for station in shape.stations]
    lower = cladding or scaled(paint, 0.62)
    mesh.loft(rings, paint, PAINT, bands={0: lower, 6: lower, 7: TRIM, 2: mix(paint, (255, 255, 255), 0.1)})
    _body_trim(mesh, shape, half, paint)
    for x, y in axles:
        _wheel_face(mesh, np.sign(x) * (half + 0.012), y, radius, cladding or scaled(paint, 0.4))
    _cabin(mesh, shape, paint)
    for side in (-1, 1):
        centre = (side * (half + 0.1), shape.cabin[0] - 0.45, shape.belt + 0.06)
        mesh.box(centre, (0.2, 0.1, 0.14), paint, PAINT, layer=2)
    return mesh


def _section(y, half, low, belt, crown) -> np.ndarray:
    """Return the cross-section (8, 3) of the body at `y`, clockwise seen from the front."""
    sill = low + 0.18
    right = [(half * 0.94, low), (half, sill), (half, belt - 0.12), (half * 0.86, (belt + crown) / 2)]
    return mirrored_ring(right, y)


def _wheel_face(mesh: MeshBuilder, x: float, y: float, radius: float, arch) -> None:
    axis = np.array([np.sign(x), 0.0, 0.0])
    step = axis * 0.004
    at = np.array([x, y, radius])
    mesh.disc(at, axis, radius * 1.17, scaled(arch, 0.5), decal=3)
    mesh.disc(at + step, axis, radius, RUBBER, decal=4, sides=18)
    mesh.disc(at + 2 * step, axis, radius * 0.68, RIM, decal=5)
    mesh.disc(at + 3 * step, axis, radius * 0.56, scaled(RIM, 0.55), decal=6)
    for k in range(5):
        angle = k * 2 * np.pi / 5 + 0.3
        out = np.array([0.0, np.cos(angle), np.sin(angle)]) * radius * 0.6
        wide = np.array([0.0, -np.sin(angle), np.cos(angle)]) * radius * 0.1
        spoke = np.array([at - wide, at + out - wide, at + out + wide, at + wide]) + 4 * step
        mesh.face(spoke if x > 0 else spoke[::-1], RIM, decal=7)


def _body_trim(mesh: MeshBuilder, shape: CarProfile, half: float, paint) -> None:
    """Add lamps, grille, plates, bumper strips, door lines and handles as decals; call this right after the body."""
    nose, tail = shape.stations[0], shape.stations[-1]
    front, back = nose[0] + 0.01, tail[0] - 0.01
    wide = shape.stations[1][1]
    top = shape.stations[1][3]
    mid = nose[2]

    def draw_pair(y, x0, x1, z0, z1, colour, material=MATTE, y_out=None):
        """Add a quad at `y` on the right, and its mirror image on the left; `y_out` is the y of the outer edges."""
        outer = y if y_out is None else y_out
        for side in (-1, 1):
            quad = [(side * x0, y, z0), (side * x1, outer, z0), (side * x1, outer, z1), (side * x0, y, z1)]
            mesh.face(quad if (side < 0) == (y == front) else quad[::-1], colour, material, decal=2)

    front_quad, back_quad = partial(draw_pair, front), partial(draw_pair, back)
    front_quad(0, nose[1] * 0.62, mid + 0.10, top - 0.16, (26, 27, 30))
    front_quad(0, nose[1] * 0.62, top - 0.18, top - 0.15, CHROME)
    front_quad(nose[1] * 0.66, wide * 1.0, top - 0.22, top - 0.06, HEADLAMP, LAMP, y_out=shape.stations[1][0] - 0.02)
    front_quad(0, 0.26, mid + 0.02, mid + 0.12, PLATE)
    front_quad(0, wide * 0.96, nose[2] - 0.06, nose[2] + 0.01, TRIM, y_out=shape.stations[1][0])
    last = shape.stations[-2]
    belt = last[3]
    back_quad(last[1] * 0.5, last[1] * 1.0, belt - 0.26, belt - 0.1, TAILLAMP, LAMP, y_out=last[0])
    back_quad(0, last[1] * 0.5, belt - 0.2, belt - 0.17, scaled(paint, 0.6))
    back_quad(0, 0.26, belt - 0.42, belt - 0.3, PLATE)
    back_quad(0, last[1] * 0.97, tail[2] - 0.08, tail[2] + 0.05, TRIM, y_out=last[0])
    for side in (-1, 1):
        x = side * (half + 0.006)
        rear, ahead = shape.wheel[2] + 0.45, shape.wheel[1] - 0.5
        middle = rear + (ahead - rear) * 0.45
        for y in (rear, middle, ahead):
            strip(mesh, x, (y, y + 0.025), (0.36, shape.belt - 0.08), scaled(paint, 0.45))
        for y in (rear + 0.12, middle + 0.14):
            strip(mesh, x, (y, y + 0.2), (shape.belt - 0.2, shape.belt - 0.165), scaled(paint, 0.62))


def strip(mesh: MeshBuilder, x: float, ys, zs, colour, material=MATTE, decal=2) -> None:
    """Add a rectangle at `x` on the left or right of a vehicle, visible from outside; `ys` and `zs` are its limits."""
    quad = [(x, ys[0], zs[0]), (x, ys[1], zs[0]), (x, ys[1], zs[1]), (x, ys[0], zs[1])]
    mesh.face(quad if x > 0 else quad[::-1], colour, material, decal)


def outline(front: float, back: float, half: float) -> np.ndarray:
    """Return corners (4, 2), counter-clockwise, of a rectangle from `back` to `front` with the half width `half`."""
    return np.array([(half, back), (half, front), (-half, front), (-half, back)])


def _cabin(mesh: MeshBuilder, shape: CarProfile, paint) -> None:
    mesh.part(2)
    shoulder = tuple(r + d for r, d in zip(shape.roof, (0.08, -0.08, 0.06), strict=True))
    heights = (shape.belt, shape.height - 0.09, shape.height)
    rings = [(outline(*ring), z) for ring, z in zip((shape.cabin, shoulder, shape.roof), heights, strict=True)]
    levels = mesh.stack(rings, paint, PAINT, top=mix(paint, (255, 255, 255), 0.08))
    right, front, left, back = levels[0]
    mesh.face(inset(front, 0.06, 0.94, 0.1, 0.96), GLASS_COLOUR, GLASS, decal=1)
    mesh.face(inset(back, 0.1, 0.9, 0.18, 0.92), GLASS_COLOUR, GLASS, decal=1)
    edges = [0.05, *shape.pillars, 0.95]
    for low, high in pairwise(edges):
        mesh.face(inset(right, low + 0.012, high - 0.012, 0.12, 0.9), GLASS_COLOUR, GLASS, decal=1)
        mesh.face(inset(left, 1 - high + 0.012, 1 - low - 0.012, 0.12, 0.9), GLASS_COLOUR, GLASS, decal=1)
    for quad in (front, back):
        mesh.face(inset(quad, 0.16, 0.34, 0.16, 0.9), scaled(GLASS_COLOUR, 1.5), GLASS, decal=2)
