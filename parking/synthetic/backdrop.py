"""What surrounds a lot: sky, houses, trees and hedges outside; walls, ceiling, lamps and columns inside."""

import cv2
import numpy as np

from parking.synthetic.ground import grain
from parking.synthetic.layout import Lot
from parking.synthetic.lighting import Lighting
from parking.synthetic.mesh import LAMP, Mesh, MeshBuilder, inset, mix, scaled
from parking.synthetic.raster import Pose

_FACADES = ((214, 208, 198), (226, 224, 220), (186, 172, 158), (200, 206, 212), (176, 116, 92))
_LEAVES = ((66, 104, 52), (82, 118, 58), (56, 92, 60), (150, 110, 50))
CEILING = 3.5


def draw_sky(image: np.ndarray, horizon: float, lighting: Lighting, clouds: float, look: int) -> None:
    """Fill `image` (H, W, 3) from its top down to the row `horizon` with a gradient and soft clouds."""
    height, width = image.shape[:2]
    rows = int(np.clip(np.ceil(horizon) + 2, 1, height))
    share = (np.arange(rows) / max(rows - 1, 1))[:, None, None]
    sky = np.asarray(lighting.sky) * (1 - share) + np.asarray(lighting.sky_low) * share
    image[:rows] = sky.astype(np.uint8)
    if clouds:
        noise = np.roll(grain(3, 1.6), look % 512, axis=1)[:128, :256]
        noise = cv2.resize(noise, (width, rows), interpolation=cv2.INTER_CUBIC)
        cover = cv2.convertScaleAbs(np.clip((noise + 0.3 * clouds) * 0.6, 0, 0.75), alpha=255 * clouds)
        white = np.asarray(lighting.sky_low) * 0.5 + 0.5 * np.asarray(lighting.ambient) * 255
        white = np.clip(white, 0, 255).astype(np.uint8)
        clear, hidden = cv2.merge([255 - cover] * 3), cv2.merge([cover] * 3)
        image[:rows] = cv2.add(
            cv2.multiply(image[:rows], clear, scale=1 / 255),
            cv2.multiply(np.broadcast_to(white, hidden.shape).copy(), hidden, scale=1 / 255),
        )


def build_surroundings(rng: np.random.Generator, lot: Lot, indoor: bool, night: bool) -> Mesh:
    """Build what stands behind all objects: houses, trees and a fence outdoors, or the hall indoors."""
    mesh = MeshBuilder()
    if indoor:
        _hall(mesh, rng, lot)
        return mesh.build()
    half, depth = lot.walls()
    for k in range(int(rng.integers(3, 8))):
        _house(mesh, rng, k, depth, night)
    leaves = _LEAVES[rng.integers(len(_LEAVES))]
    for _ in range(int(rng.integers(3, 9))):
        _tree(mesh, rng, rng.uniform(-26, 26), depth + rng.uniform(1.5, 9), leaves)
    _fence(mesh, rng, half + 14, depth + 0.8, leaves)
    return mesh.build()


def build_props(rng: np.random.Generator, lot: Lot, indoor: bool) -> list[tuple[Mesh, Pose, float]]:
    """Build lamp posts outdoors or columns indoors, behind which objects may stand.

    Returns:
        For each post or column, its model, its pose and the width of its square footprint.
    """
    if not indoor:
        post = _lamp_post()
        return [(post, Pose(x, y, 0.0), 0.3) for x, y in lamp_places(lot)]
    column = _column(rng)
    if lot.kind == "facing":
        spots = [(x, lot.edge + 0.1) for x in np.arange(-11.25, 12, 7.5) + rng.uniform(-1, 1)]
    else:
        ys = (np.arange(6.0, lot.walls()[1], 7.5) + rng.uniform(-1, 1) for _ in range(2))
        spots = [(s * (lot.edge + 0.3), y) for s, along in zip((-1, 1), ys, strict=True) for y in along]
    return [(column, Pose(float(x), float(y), 0.0), 0.6) for x, y in spots]


def lamp_places(lot: Lot) -> list[tuple[float, float]]:
    if lot.kind == "facing":
        return [(x, lot.edge + 10.3) for x in (-9.0, 3.0, 13.0)]
    return [(s * (lot.edge + 5.4), y) for s in (-1, 1) for y in (9.0, 21.0)]


def ceiling_lamps(lot: Lot) -> list[tuple[float, float]]:
    """Return the centres (x, y) of the lamp strips over the aisle."""
    if lot.kind == "facing":
        return [(x, y) for x in np.arange(-12.5, 13, 5.0) for y in (lot.edge - 1.5, lot.edge + 6.5)]
    return [(x, y) for x in (-lot.edge * 0.5, lot.edge * 0.5) for y in np.arange(4.0, 34, 4.5)]


def _house(mesh: MeshBuilder, rng, number: int, depth: float, night: bool) -> None:
    """Add a block of flats with a grid of windows on the side that faces the lot."""
    x = rng.uniform(-12, 12) + (number - 3) * 12
    y = depth + rng.uniform(14, 42)
    wide, storeys = rng.uniform(9, 17), int(rng.integers(3, 13))
    facade = _FACADES[rng.integers(len(_FACADES))]
    height = storeys * 2.9 + 1
    mesh.part(0)
    corners = np.array([(wide / 2, -5), (wide / 2, 5), (-wide / 2, 5), (-wide / 2, -5)]) + (x, y)
    wall = mesh.stack([(corners, 0.0), (corners, height)], facade)[0][3]
    columns = int(wide / 2.6)
    for row in range(storeys):
        for column in range(columns):
            left, low = (column + 0.2) / columns, (row * 2.9 + 1.1) / height
            window = inset(wall, left, (column + 0.8) / columns, low, low + 1.5 / height)
            if night and rng.random() < 0.4:
                mesh.face(window, ((255, 222, 150), (250, 236, 200))[rng.integers(2)], LAMP, decal=1)
            else:
                mesh.face(window, scaled((92, 108, 126), rng.uniform(0.8, 1.15)), decal=1)


def _tree(mesh: MeshBuilder, rng, x: float, y: float, leaves) -> None:
    tall = rng.uniform(3.2, 6.5)
    mesh.tube((x, y, 0), (x, y, tall * 0.6), 0.14, (92, 72, 54), 0.09)
    for _ in range(7):
        spread = rng.normal(0, 0.16 * tall, 2)
        size = tall * rng.uniform(0.14, 0.22)
        mesh.ball(
            (x + spread[0], y + spread[1], tall * rng.uniform(0.62, 1.0)), size, scaled(leaves, rng.uniform(0.85, 1.2))
        )


def _fence(mesh: MeshBuilder, rng, half: float, y: float, leaves) -> None:
    hedge = rng.random() < 0.5
    for x in np.arange(-half, half, 3.0):
        if hedge:
            colour = scaled(leaves, rng.uniform(0.8, 1.0))
            mesh.box((x + 1.5, y, 0.5), (3.0, 0.7, 1.0), colour, top=scaled(leaves, 1.2), layer=0)
        else:
            mesh.box((x + 1.5, y, 0.45), (3.0, 0.25, 0.9), (186, 184, 178), top=(204, 202, 198), layer=0)
            mesh.tube((x, y, 0.9), (x, y, 1.7), 0.03, (120, 126, 130))
            mesh.tube((x, y, 1.65), (x + 3, y, 1.65), 0.025, (120, 126, 130))
            mesh.tube((x, y, 1.25), (x + 3, y, 1.25), 0.02, (120, 126, 130))
    mesh.box((0, y - 0.6, 0.07), (2 * half, 0.3, 0.14), (170, 168, 162), top=(188, 186, 180), layer=0)


def _lamp_post() -> Mesh:
    mesh = MeshBuilder()
    grey = (110, 114, 120)
    mesh.tube((0, 0, 0), (0, 0, 5.2), 0.09, grey, 0.06)
    mesh.tube((0, 0, 5.2), (0, -1.0, 5.4), 0.05, grey)
    mesh.box((0, -1.1, 5.36), (0.3, 0.6, 0.1), grey, layer=1)
    mesh.face(
        [(-0.12, -1.36, 5.3), (-0.12, -0.84, 5.3), (0.12, -0.84, 5.3), (0.12, -1.36, 5.3)], (255, 240, 200), LAMP, 2
    )
    mesh.box((0, 0, 0.2), (0.5, 0.5, 0.4), (182, 180, 174), layer=1)
    return mesh.build()


def _column(rng) -> Mesh:
    mesh = MeshBuilder()
    band = ((60, 120, 190), (70, 150, 90), (214, 120, 50), (150, 90, 160))[rng.integers(4)]
    for low, high, colour in (
        (0.0, 1.1, None),
        (1.1, 1.7, (228, 228, 222)),
        (1.7, 2.1, band),
        (2.1, CEILING, (228, 228, 222)),
    ):
        mesh.box((0, 0, (low + high) / 2), (0.6, 0.6, high - low), colour or (245, 196, 30), layer=0)
        if colour is None:
            for k in range(4):
                wall = [(0.302, -0.3), (0.302, 0.3)]
                z = k * 0.28
                stripe = np.array([(*wall[0], z), (*wall[1], z + 0.14), (*wall[1], z + 0.27), (*wall[0], z + 0.13)])
                for quarter in range(4):
                    turned = Pose(0, 0, quarter * np.pi / 2).apply(stripe)
                    mesh.face(np.minimum(turned, (9, 9, 1.1)), (36, 36, 38), decal=1)
    return mesh.build()


def _hall(mesh: MeshBuilder, rng, lot: Lot) -> None:
    half, depth = lot.walls()
    half, wall = half + 1.0, (222, 222, 216)
    band = ((70, 130, 190), (96, 160, 110), (220, 150, 70))[rng.integers(3)]
    pieces = [((x, depth), (x + 3, depth)) for x in np.arange(-half, half, 3.0)]
    pieces += [((-half, y), (-half, y + 3)) for y in np.arange(1, depth, 3.0)]
    pieces += [((half, y + 3), (half, y)) for y in np.arange(1, depth, 3.0)]
    for (ax, ay), (bx, by) in pieces:
        mesh.part(0)
        for low, high, colour in ((0, 0.25, scaled(wall, 0.5)), (0.25, 1.0, band), (1.0, CEILING, wall)):
            quad = [(ax, ay, low), (bx, by, low), (bx, by, high), (ax, ay, high)]
            mesh.face(quad, colour)
    concrete = (176, 176, 172)
    for x in np.arange(-half, half, 3.0):
        for y in np.arange(1.0, depth, 3.0):
            mesh.part(0)
            quad = [(x, y, CEILING), (x, y + 3, CEILING), (x + 3, y + 3, CEILING), (x + 3, y, CEILING)]
            mesh.face(quad, scaled(concrete, rng.uniform(0.94, 1.0)))
    mesh.part(1)
    for y in np.arange(4.0, depth, 7.5):
        for x in np.arange(-half, half, 3.0):
            mesh.face(
                [(x, y, CEILING - 0.3), (x + 3, y, CEILING - 0.3), (x + 3, y, CEILING), (x, y, CEILING)],
                mix(concrete, (0, 0, 0), 0.2),
            )
    for x in (-half * 0.4, half * 0.45):
        for y in np.arange(2.0, depth, 3.0):
            mesh.tube((x, y, CEILING - 0.16), (x, y + 3, CEILING - 0.16), 0.06, (190, 60, 50))
    for x, y in ceiling_lamps(lot):
        mesh.part(2)
        z = CEILING - 0.32
        mesh.face(
            [(x - 0.09, y - 0.7, z), (x - 0.09, y + 0.7, z), (x + 0.09, y + 0.7, z), (x + 0.09, y - 0.7, z)],
            (255, 255, 248),
            LAMP,
        )
