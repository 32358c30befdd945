"""Bus, school bus and truck."""

import numpy as np

from parking.synthetic.mesh import GLASS, LAMP, MATTE, PAINT, Mesh, MeshBuilder, inset, mix, scaled
from parking.synthetic.shapes.cars import GLASS_COLOUR, HEADLAMP, PLATE, RIM, RUBBER, TAILLAMP, TRIM, outline, strip


def build_bus(rng: np.random.Generator) -> Mesh:
    """Build a city bus in green, blue, red, or white with blue."""
    paint = ((44, 128, 74), (32, 84, 170), (184, 40, 44), (232, 236, 240))[rng.integers(4)]
    skirt = (236, 238, 238) if sum(paint) < 600 else (40, 96, 180)
    return _coach(paint, skirt, length=9.6, half=1.2, height=3.1, belt=1.35, radius=0.46, windows=6).build()


def build_school_bus(rng: np.random.Generator) -> Mesh:
    """Build a yellow minibus with a dark stripe, and warning lamps at the corners of the roof."""
    paint = scaled((250, 190, 16), rng.uniform(0.94, 1.03))
    mesh = _coach(paint, paint, length=6.8, half=1.02, height=2.62, belt=1.3, radius=0.38, windows=4)
    for side in (-1, 1):
        mesh.part(1)
        for low, high, colour in ((0.92, 1.04, (28, 96, 56)), (0.70, 0.76, (34, 34, 36))):
            strip(mesh, side * 1.034, (-3.2, 3.1), (low, high), colour)
        for y in (3.0, -3.0):
            mesh.box((side * 0.72, y, 2.70), (0.3, 0.16, 0.18), (226, 40, 30), LAMP, layer=1)
            mesh.box((side * 0.38, y, 2.69), (0.22, 0.14, 0.15), (255, 196, 40), LAMP, layer=1)
    return mesh.build()


def build_truck(rng: np.random.Generator) -> Mesh:
    """Build a one-ton truck, its cab over the engine, with a flat bed, a loaded bed or a box."""
    paint = ((234, 236, 238), (40, 84, 168), (44, 92, 150), (60, 120, 108))[rng.integers(4)]
    mesh = MeshBuilder()
    for x, y in [(s * 0.74, y) for s in (-1, 1) for y in (1.62, -1.3)]:
        mesh.cylinder((x, y, 0.34), (np.sign(x), 0.0, 0.0), 0.34, 0.24, RUBBER)
        _wheel(mesh, np.sign(x) * 0.875, y, 0.34)
    mesh.box((0, -0.2, 0.56), (0.9, 4.6, 0.2), (52, 54, 58), layer=1)
    mesh.part(2)
    _truck_cab(mesh, paint)
    kind = rng.integers(3)
    if kind == 0:
        cover = ((226, 228, 230), (206, 210, 214), (212, 196, 160))[rng.integers(3)]
        mesh.box((0, -1.0, 1.68), (1.82, 3.1, 1.96), cover, PAINT, top=mix(cover, (255, 255, 255), 0.3), layer=2)
        for side in (-1, 1):
            for y in (-2.2, -1.4, -0.6, 0.2):
                strip(mesh, side * 0.915, (y, y + 0.05), (0.74, 2.6), scaled(cover, 0.72), decal=1)
        for x in (-0.03, 0.87, -0.9):
            quad = [(x, -2.56, 0.74), (x + 0.05, -2.56, 0.74), (x + 0.05, -2.56, 2.6), (x, -2.56, 2.6)]
            mesh.face(quad, scaled(cover, 0.6), decal=1)
    else:
        _flat_bed(mesh, paint, rng if kind == 2 else None)
    mesh.part(1)
    for side in (-1, 1):
        quad = [(side * x, -2.57, z) for x, z in ((0.86, 0.56), (0.56, 0.56), (0.56, 0.70), (0.86, 0.70))]
        mesh.face(quad if side < 0 else quad[::-1], TAILLAMP, LAMP, decal=9)
    return mesh.build()


def _wheel(mesh: MeshBuilder, x: float, y: float, radius: float) -> None:
    axis = np.array([np.sign(x), 0.0, 0.0])
    at = np.array([x, y, radius])
    for k, (size, colour) in enumerate(((1.0, RUBBER), (0.62, RIM), (0.4, scaled(RIM, 0.6)), (0.2, RIM))):
        mesh.disc(at + axis * 0.004 * k, axis, radius * size, colour, decal=4 + k)


def _truck_cab(mesh: MeshBuilder, paint) -> None:
    rings = [
        (outline(2.46, 0.72, 0.84), 0.36),
        (outline(2.52, 0.72, 0.87), 0.62),
        (outline(2.46, 0.72, 0.87), 1.16),
        (outline(2.02, 0.74, 0.78), 1.88),
        (outline(1.86, 0.80, 0.68), 1.98),
    ]
    levels = mesh.stack(rings, paint, PAINT)
    right, front, left, _ = levels[2]
    mesh.face(inset(front, 0.06, 0.94, 0.08, 0.94), GLASS_COLOUR, GLASS, decal=1)
    mesh.face(inset(right, 0.34, 0.92, 0.08, 0.86), GLASS_COLOUR, GLASS, decal=1)
    mesh.face(inset(left, 0.08, 0.66, 0.08, 0.86), GLASS_COLOUR, GLASS, decal=1)
    nose = levels[1][1]
    mesh.face(inset(nose, 0.24, 0.76, 0.62, 0.84), TRIM, decal=1)
    for low, high in ((0.03, 0.2), (0.8, 0.97)):
        mesh.face(inset(nose, low, high, 0.2, 0.56), HEADLAMP, LAMP, decal=1)
    mesh.face(inset(levels[0][1], 0.0, 1.0, 0.1, 0.8), TRIM, decal=1)
    mesh.face(inset(nose, 0.4, 0.6, 0.02, 0.2), PLATE, decal=1)
    for wall, low, high in ((levels[1][0], 0.26, 0.275), (levels[1][2], 0.725, 0.74)):
        mesh.face(inset(wall, low, high, 0.0, 1.0), scaled(paint, 0.45), decal=1)
    for side in (-1, 1):
        mesh.box((side * 0.98, 2.2, 1.36), (0.14, 0.06, 0.3), TRIM, layer=2)


def _flat_bed(mesh: MeshBuilder, paint, load_rng) -> None:
    inner = (104, 98, 90)
    mesh.box((0, -1.0, 0.76), (1.78, 3.1, 0.12), (70, 72, 76), top=inner, layer=2)
    for side in (-1, 1):
        mesh.box((side * 0.87, -1.0, 1.0), (0.05, 3.1, 0.38), mix(paint, (255, 255, 255), 0.1), PAINT, layer=2)
    for y, z, tall in ((-2.53, 1.0, 0.38), (0.53, 1.2, 0.8)):
        mesh.box((0, y, z), (1.78, 0.05, tall), scaled(paint, 0.9), PAINT, layer=2)
    if load_rng is None:
        return
    for y in (-2.0, -1.15, -0.3):
        for x in (-0.42, 0.42):
            tall = load_rng.uniform(0.4, 1.1)
            colour = ((176, 132, 84), (190, 150, 104))[load_rng.integers(2)]
            mesh.box((x, y, 0.82 + tall / 2), (0.74, 0.74, tall), colour, layer=2)


def _coach(paint, skirt, length, half, height, belt, radius, windows) -> MeshBuilder:
    def octagon(end, w):
        """Return the corners of a rectangle of length 2 x `end` and width 2 x `w` whose corners are cut off."""
        cut = 0.16
        right = [(w, -end + cut), (w, end - cut), (w - cut, end), (cut - w, end)]
        return np.array([*right, (-w, end - cut), (-w, cut - end), (cut - w, -end), (w - cut, -end)])

    mesh = MeshBuilder()
    end = length / 2
    axles = (end - 2.1 if length > 8 else end - 1.3, -end + (2.3 if length > 8 else 1.4))
    for x, y in [(s * (half - 0.13), y) for s in (-1, 1) for y in axles]:
        mesh.cylinder((x, y, radius), (np.sign(x), 0.0, 0.0), radius, 0.26, RUBBER)
    mesh.part(1)
    rings = [
        (octagon(end - 0.03, half - 0.02), 0.30),
        (octagon(end, half + 0.01), 0.62),
        (octagon(end, half + 0.01), belt),
        (octagon(end - 0.1, half - 0.05), height - 0.22),
        (octagon(end - 0.22, half - 0.2), height),
    ]
    levels = mesh.stack(rings, paint, PAINT, top=mix(paint, (255, 255, 255), 0.35))
    sides = (0, 4)
    for k in sides:
        mesh.face(levels[0][k], skirt, PAINT, decal=1)
        for i in range(windows):
            low, high = (i + 0.06) / windows * 0.97 + 0.015, (i + 0.94) / windows * 0.97 + 0.015
            mesh.face(inset(levels[2][k], low, high, 0.1, 0.92), GLASS_COLOUR, GLASS, decal=2)
            mesh.face(inset(levels[2][k], low, high, 0.62, 0.65), TRIM, decal=3)
    door = inset(levels[1][0], 0.82, 0.93, 0.0, 1.0)
    mesh.face(door, GLASS_COLOUR, GLASS, decal=2)
    mesh.face(inset(levels[1][0], 0.872, 0.878, 0.0, 1.0), TRIM, decal=3)
    front, back = 2, 6
    mesh.face(inset(levels[2][front], 0.03, 0.97, 0.0, 0.8), GLASS_COLOUR, GLASS, decal=2)
    mesh.face(inset(levels[2][front], 0.1, 0.3, 0.05, 0.75), scaled(GLASS_COLOUR, 1.5), GLASS, decal=3)
    mesh.face(inset(levels[2][front], 0.2, 0.8, 0.83, 0.98), (250, 150, 40), LAMP, decal=2)
    mesh.face(inset(levels[2][back], 0.14, 0.86, 0.2, 0.85), GLASS_COLOUR, GLASS, decal=2)
    for low, high in ((0.02, 0.18), (0.82, 0.98)):
        mesh.face(inset(levels[1][front], low, high, 0.05, 0.3), HEADLAMP, LAMP, decal=2)
        mesh.face(inset(levels[1][back], low, high, 0.1, 0.5), TAILLAMP, LAMP, decal=2)
    mesh.face(inset(levels[1][front], 0.25, 0.75, 0.1, 0.3), TRIM, decal=2)
    for k in (front, back):
        mesh.face(inset(levels[0][k], 0.4, 0.6, 0.3, 0.7), PLATE, decal=2)
    for x, y in [(s * (half + 0.02), y) for s in (-1, 1) for y in axles]:
        mesh.disc((x, y, radius), (np.sign(x), 0.0, 0.0), radius * 1.15, TRIM, decal=3)
        _wheel(mesh, x + np.sign(x) * 0.004, y, radius)
    for side in (-1, 1):
        mesh.box((side * (half + 0.18), end + 0.02, belt + 0.6), (0.16, 0.12, 0.36), TRIM, MATTE, layer=1)
    return mesh
