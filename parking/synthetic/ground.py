"""The floor of a lot: asphalt or coated concrete with painted lines, dry, wet or under snow."""

from functools import cache

import cv2
import numpy as np

from parking.synthetic.camera import Camera
from parking.synthetic.layout import STALL, Lot, place
from parking.synthetic.lighting import Lighting

_TILE = 512
_LINE = 0.13
_LIGHT_GRID = 12
_SNOW = (232, 237, 246)


@cache
def grain(seed: int, slope: float) -> np.ndarray:
    """Make periodic noise (512, 512) of mean 0 and deviation 1, with a spectrum like frequency ** -slope."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(_TILE)[:, None], np.fft.rfftfreq(_TILE)[None])
    frequency[0, 0] = 1.0
    spectrum = np.fft.rfft2(rng.standard_normal((_TILE, _TILE))) * frequency**-slope
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum)
    return (noise / noise.std()).astype(np.float32)


def draw_ground(image: np.ndarray, camera: Camera, lot: Lot, lighting: Lighting, indoor: bool, look: int) -> int:
    """Draw the ground into the rows of `image` (H, W, 3, uint8 RGB) below the horizon; return the first such row."""
    height = camera.size[1]
    top = int(np.clip(np.ceil(camera.horizon) + 1, 0, height - 1))
    rng = np.random.default_rng(look)
    to_ground = camera.ground_homography()
    rows = np.arange(top, height) + 0.5 - camera.horizon
    depth = camera.position[2] * camera.focal / np.maximum(rows, 0.5)
    metres_per_pixel = depth**2 / (camera.focal * camera.position[2])
    fine = _textured(grain(1, 0.35), 3.2, to_ground, top, camera)
    fine *= (1 / (1 + (metres_per_pixel * 90) ** 2)).astype(np.float32)[:, None]
    broad = _textured(grain(2, 1.3), 22.0, to_ground, top, camera)
    broad *= (1 / (1 + metres_per_pixel * 6)).astype(np.float32)[:, None]
    base, amount = _surface(rng, indoor)
    value = 1 + amount[0] * fine + amount[1] * broad
    paint, alpha = _markings(camera, lot, rng, top)
    alpha = alpha.astype(np.float32) * (np.clip(0.82 + 0.1 * fine + 0.14 * broad, 0.25, 1.0) / 255)
    cover = np.clip(0.8 + 0.16 * broad + 0.05 * fine, 0.3, 0.94) if lighting.snow_cover and not indoor else None
    light = _light(camera, lighting, top)
    keep = np.exp(-depth * lighting.haze).astype(np.float32)[:, None]
    mirror, darker = _wetness(broad, depth, lighting) if lighting.wet else (0.0, 1.0)
    planes = []
    # Compute each colour by itself, because numpy is slow if the last axis has only three elements.
    for k in range(3):
        plane = value * np.float32(base[k])
        plane += (paint[..., k] - plane) * alpha
        if cover is not None:
            plane += (np.float32(_SNOW[k]) - plane) * cover
        plane *= light[k]
        plane += (np.float32(lighting.sky_low[k]) - plane * darker) * mirror - plane * (1 - darker)
        plane *= keep
        plane += np.float32(lighting.haze_colour[k]) * (1 - keep)
        planes.append(cv2.max(plane, 0.0))
    image[top:] = cv2.convertScaleAbs(cv2.merge(planes))
    return top


def _surface(rng, indoor: bool):
    if indoor:
        coat = ((112, 132, 116), (128, 130, 134), (120, 126, 140))[rng.integers(3)]
        return coat, (0.02, 0.035)
    shade = rng.uniform(102, 134)
    return (shade, shade * 1.01, shade * 1.03), (0.11, 0.09)


def _textured(tile: np.ndarray, span: float, to_ground: np.ndarray, top: int, camera: Camera) -> np.ndarray:
    """Project `tile`, repeated on the ground every `span` metres, to the image rows from `top` on."""
    scale = _TILE / span
    shift = np.array([[1, 0, 0.5], [0, 1, top + 0.5], [0, 0, 1.0]])
    matrix = np.diag([scale, scale, 1.0]) @ to_ground @ shift
    size = (camera.size[0], camera.size[1] - top)
    x, y = np.arange(size[0]), np.arange(size[1])[:, None]
    # The divisor depends on the row alone, because the camera's roll is 0.
    divisor = 1 / (matrix[2, 1] * y + matrix[2, 2])

    def across(k):
        start = (matrix[k, 1] * y + matrix[k, 2]) * divisor
        return (matrix[k, 0] * divisor).astype(np.float32) * x.astype(np.float32) + start.astype(np.float32)

    return cv2.remap(tile, across(0), across(1), cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


def _light(camera: Camera, lighting: Lighting, top: int) -> list:
    """Return the light on the ground in red, green and blue: each a number, or an array (rows, W) if lamps shine."""
    up = np.array([[0.0, 0.0, 1.0]])
    even = lighting.on_faces(up, -up, 1e6, 1e6)[0].astype(np.float32)
    if not lighting.lamps and not lighting.headlights:
        return list(even)
    width, rows = camera.size[0], camera.size[1] - top
    x = (np.arange(0, width // _LIGHT_GRID + 1) + 0.5) * _LIGHT_GRID
    y = top + (np.arange(0, rows // _LIGHT_GRID + 1) + 0.5) * _LIGHT_GRID
    pixels = np.stack(np.broadcast_arrays(x[None], y[:, None], 1.0), -1)
    ground = pixels @ camera.ground_homography().T
    ground = ground[..., :2] / ground[..., 2:]
    pools = lighting.pools(ground[..., 0], ground[..., 1]).astype(np.float32)
    full = (pools.shape[1] * _LIGHT_GRID, pools.shape[0] * _LIGHT_GRID)
    return [cv2.resize(pools[..., k], full)[:rows, :width] + even[k] for k in range(3)]


def _wetness(broad: np.ndarray, depth: np.ndarray, lighting: Lighting) -> tuple[np.ndarray, np.float32]:
    """Compute how much of the sky the wet ground mirrors, and the factor by which wetness darkens the ground.

    More is mirrored far away and in puddles.
    """
    puddles = np.clip((broad - 0.25) * 2.5, 0, 1)
    towards = (np.clip(0.12 + depth / 45, 0, 0.6) * lighting.wet).astype(np.float32)[:, None]
    return np.clip(towards * (0.55 + 0.6 * puddles), 0, 0.8), np.float32(1 - 0.3 * lighting.wet)


def _markings(camera: Camera, lot: Lot, rng: np.random.Generator, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw the painted lines: their colour (rows, W, 3) and their coverage (rows, W), both uint8."""
    shape = (camera.size[1] - top, camera.size[0])
    colour = np.empty((*shape, 3), np.uint8)
    line = (236, 236, 232) if rng.random() < 0.75 else (240, 206, 70)
    colour[:] = line
    alpha = np.zeros(shape, np.uint8)

    def fill(points, strength, tint):
        flat = np.column_stack([np.asarray(points, float), np.zeros(len(points))])
        pixels = camera.project_polygon(flat)
        if len(pixels) < 3:
            return
        pixels = np.clip(pixels - (0.5, 0.5 + top), -8000, 8000)
        whole = [np.round(pixels * 8).astype(np.int32)]
        cv2.fillPoly(alpha, whole, strength, cv2.LINE_AA, 3)
        cv2.fillPoly(colour, [np.round(pixels).astype(np.int32)], tint)

    for patch in _patches(rng):
        fill(patch, int(rng.integers(40, 90)), (64, 64, 66))
    for *pose, special in lot.stalls:
        if special:
            tint = (54, 104, 196) if special == 1 else (48, 150, 92)
            fill(place(_rectangle(0, 0, STALL[0] - 0.3, STALL[1] - 0.3), *pose), 200, tint)
            fill(place(_rectangle(0, -0.6, 0.5, 1.1), *pose), 235, (240, 240, 240))
    half_w, half_l = STALL[0] / 2, STALL[1] / 2
    for *pose, _ in lot.stalls:
        for side in (-1, 1):
            fill(place(_rectangle(side * half_w, 0, _LINE, STALL[1]), *pose), 255, line)
        fill(place(_rectangle(0, half_l, STALL[0], _LINE), *pose), 255, line)
    for arrow in _arrows(lot):
        fill(arrow, 225, (236, 236, 232))
    return colour, alpha


def _patches(rng: np.random.Generator) -> list[np.ndarray]:
    """Return the polygons of mended asphalt and of oil stains."""
    patches = []
    for _ in range(int(rng.integers(1, 4))):
        patches.append(_rectangle(*rng.uniform((-5, 2.0), (5, 7)), *rng.uniform(0.6, 2.8, 2)))
    for _ in range(int(rng.integers(2, 6))):
        angle = np.arange(14) * (2 * np.pi / 14)
        radius = rng.uniform(0.12, 0.45) * rng.uniform(0.7, 1.2, 14)
        patches.append(np.column_stack([np.cos(angle), np.sin(angle)]) * radius[:, None] + rng.uniform((-5, 2), (5, 9)))
    return patches


def _rectangle(x, y, width, length) -> np.ndarray:
    left, right, low = x - width / 2, x + width / 2, y - length / 2
    return np.array([(left, low), (right, low), (right, low + length), (left, low + length)])


def _arrows(lot: Lot) -> list[np.ndarray]:
    """Return the polygons of the arrows that show the driving direction in the aisle."""
    arrow = np.array([(-0.08, -1.2), (0.08, -1.2), (0.08, 0.4), (0.3, 0.4), (0, 1.2), (-0.3, 0.4), (-0.08, 0.4)])
    if lot.kind == "along":
        return [arrow + (0.0, y) for y in (7.0, 15.0, 23.0)]
    turned = arrow[:, ::-1] * (-1, 1)
    return [turned + (x, lot.edge - 1.4) for x in (-5.0, 4.0)]
