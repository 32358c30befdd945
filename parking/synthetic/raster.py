"""Draws meshes from far to near, with one shade per face and with twofold supersampling."""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from parking.synthetic.camera import NEAR, Camera
from parking.synthetic.lighting import Lighting
from parking.synthetic.mesh import GLASS, LAMP, PAINT, Mesh

_SUBPIXEL_BITS = 3
_MAX_SILHOUETTE = 2048
#: A rod is drawn as nested outlines: (tone, share of the radius, shift towards the light as a share of the radius).
_TUBE_STEPS = ((0, 1.0, 0.0), (1, 0.74, 0.12), (2, 0.36, 0.25))
_THIN_TUBE_STEPS = ((0, 1.0, 0.0), (1, 0.66, 0.15))


@dataclass(frozen=True)
class Pose:
    """The place of a mesh: position on the ground in metres, heading in radians (0: along +y, counter-clockwise)."""

    x: float
    y: float
    yaw: float

    def apply(self, points: np.ndarray) -> np.ndarray:
        s, c = np.sin(self.yaw), np.cos(self.yaw)
        rotated = points @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])
        return rotated + (self.x, self.y, 0.0)


@dataclass(frozen=True)
class Sprite:
    """The picture of a mesh; its upper left pixel belongs at (left, top) of an image.

    Attributes:
        rgb: (h, w, 3) uint8 colours, already multiplied by alpha.
        alpha: (h, w) uint8 coverage.
        full_area: pixels that the mesh would cover if nothing hid it and the image had no border.
    """

    left: int
    top: int
    rgb: np.ndarray
    alpha: np.ndarray
    full_area: float

    def paste(self, image: np.ndarray, opacity: float = 1.0) -> None:
        h, w = self.alpha.shape
        region = image[self.top : self.top + h, self.left : self.left + w]
        rgb, alpha = self.rgb, self.alpha
        if opacity != 1.0:
            rgb, alpha = cv2.convertScaleAbs(rgb, alpha=opacity), cv2.convertScaleAbs(alpha, alpha=opacity)
        keep = cv2.merge([255 - alpha] * 3)
        region[:] = cv2.add(cv2.multiply(region, keep, scale=1 / 255), rgb)

    def stamp(self, ids: np.ndarray, number: int) -> None:
        h, w = self.alpha.shape
        ids[self.top : self.top + h, self.left : self.left + w][self.alpha >= 128] = number


class _Projected:
    """A mesh at its pose, projected to pixels; its visible primitives are sorted in the order of drawing."""

    def __init__(self, mesh: Mesh, pose: Pose, camera: Camera):
        self.mesh, self.camera = mesh, camera
        self.world = pose.apply(mesh.vertices)
        self.pixels, depth = camera.project(self.world)
        counts = mesh.counts[:, None]
        centres = np.add.reduceat(self.world, mesh.starts) / counts
        following = np.arange(len(self.world)) + 1
        following[mesh.starts + mesh.counts - 1] = mesh.starts
        area = np.add.reduceat(_cross(self.world, self.world[following]), mesh.starts)
        norm = np.linalg.norm(area, axis=1, keepdims=True)
        self.normals = area / np.maximum(norm, 1e-9)
        to_camera = np.asarray(camera.position) - centres
        self.distance = np.linalg.norm(to_camera, axis=1)
        self.to_camera = to_camera / np.maximum(self.distance, 1e-9)[:, None]
        facing = (self.normals * self.to_camera).sum(1) > 0
        in_view = np.minimum.reduceat(depth, mesh.starts) > NEAR
        visible = in_view & (facing | (mesh.counts < 3))
        near_size = camera.focal / np.maximum(depth, NEAR)
        ends = mesh.starts + mesh.counts - 1
        self.radii = mesh.radii * np.column_stack([near_size[mesh.starts], near_size[ends]])
        part_distance = np.bincount(mesh.parts, self.distance) / np.bincount(mesh.parts)
        order = np.lexsort((-self.distance, mesh.decals, mesh.parts, -part_distance[mesh.parts], mesh.layers))
        self.order = order[visible[order]]

    def bounds(self) -> tuple[int, int, int, int]:
        """Return the left, top, right and bottom of the drawing in whole pixels, with a margin of one pixel."""
        reach = np.repeat(self.radii.max(1), self.mesh.counts)[:, None]
        low, high = (self.pixels - reach).min(0), (self.pixels + reach).max(0)
        return (*(np.floor(low).astype(int) - 1).tolist(), *(np.ceil(high).astype(int) + 2).tolist())

    def draw(self, canvas: np.ndarray, origin, scale: float, tones: np.ndarray | None) -> None:
        """Draw the visible primitives onto `canvas`.

        Args:
            origin: position of the canvas's upper left corner in the image.
            scale: pixels of the canvas per pixel of the image.
            tones: (F, 3, C) edge, middle and light colour of each primitive; faces use only the middle one. None: fill
                all primitives with 1.
        """
        unit = 1 << _SUBPIXEL_BITS
        points = np.round(((self.pixels - origin) * scale - 0.5) * unit).astype(np.int32)
        radii = self.radii * scale
        starts, counts = self.mesh.starts.tolist(), self.mesh.counts.tolist()
        for index in self.order.tolist():
            start, count = starts[index], counts[index]
            colours = [(1,)] if tones is None else tones[index].tolist()
            polygon = points[start : start + count]
            middle = colours[len(colours) // 2]
            if count > 4:
                cv2.fillPoly(canvas, [polygon], middle, cv2.LINE_8, _SUBPIXEL_BITS)
            elif count > 2:
                cv2.fillConvexPoly(canvas, polygon, middle, cv2.LINE_8, _SUBPIXEL_BITS)
            else:
                _draw_tube(canvas, polygon.tolist(), radii[index].tolist()[:count], colours)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, (1, 2, 0)] * b[:, (2, 0, 1)] - a[:, (2, 0, 1)] * b[:, (1, 2, 0)]


def _draw_tube(canvas, ends, radii, colours) -> None:
    """Draw a rod (two ends) or ball (one end) as nested outlines, from the shaded edge to the lit upper left.

    A frame has hundreds of rods, and plain numbers are faster here than arrays.

    Args:
        ends: integers in subpixels.
        radii: pixels.
    """
    unit = 1 << _SUBPIXEL_BITS
    thickest = max(radii)
    if len(ends) == 2 and thickest < 2.0:
        colour = colours[len(colours) // 2]
        cv2.line(canvas, ends[0], ends[1], colour, max(1, round(2 * thickest)), cv2.LINE_8, _SUBPIXEL_BITS)
        return
    (ax, ay), (bx, by) = ends[0], ends[-1]
    ra, rb = radii[0] * unit, radii[-1] * unit
    length = math.hypot(bx - ax, by - ay)
    side_x, side_y = ((ay - by) / length, (bx - ax) / length) if length > unit / 2 else (0.0, 0.0)
    for tone, share, shift in _TUBE_STEPS if thickest > 5 else _THIN_TUBE_STEPS:
        colour = colours[min(tone, len(colours) - 1)]
        px, py, qx, qy = ax - shift * ra, ay - 1.2 * shift * ra, bx - shift * rb, by - 1.2 * shift * rb
        wide_a, wide_b = max(unit, ra * share), max(unit, rb * share)
        cv2.circle(canvas, (round(px), round(py)), round(wide_a), colour, -1, cv2.LINE_8, _SUBPIXEL_BITS)
        if len(ends) == 1:
            continue
        cv2.circle(canvas, (round(qx), round(qy)), round(wide_b), colour, -1, cv2.LINE_8, _SUBPIXEL_BITS)
        if length > unit / 2:
            u, v, w, z = side_x * wide_a, side_y * wide_a, side_x * wide_b, side_y * wide_b
            quad = ((px + u, py + v), (qx + w, qy + z), (qx - w, qy - z), (px - u, py - v))
            cv2.fillConvexPoly(canvas, np.array(quad).astype(np.int32), colour, cv2.LINE_8, _SUBPIXEL_BITS)


def render(mesh: Mesh, pose: Pose, camera: Camera, lighting: Lighting, supersampling: int = 2) -> Sprite | None:
    """Draw a mesh as a sprite; None if no part of the mesh lies inside the image."""
    projected = _Projected(mesh, pose, camera)
    if not len(projected.order):
        return None
    left, top, right, bottom = projected.bounds()
    width, height = camera.size
    inside = (max(left, 0), max(top, 0), min(right, width), min(bottom, height))
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        return None
    shape = ((inside[3] - inside[1]), (inside[2] - inside[0]))
    canvas = np.zeros((shape[0] * supersampling, shape[1] * supersampling, 4), np.uint8)
    projected.draw(canvas, inside[:2], supersampling, _tones(projected, pose, lighting))
    small = cv2.resize(canvas, shape[::-1], interpolation=cv2.INTER_AREA)
    rgb, alpha = cv2.cvtColor(small, cv2.COLOR_RGBA2RGB), cv2.extractChannel(small, 3)
    cut = inside != (left, top, right, bottom)
    area = _silhouette_area(projected, (left, top, right, bottom)) if cut else float((alpha >= 128).sum())
    return Sprite(inside[0], inside[1], rgb, alpha, area)


def _silhouette_area(projected: _Projected, bounds) -> float:
    width, height = bounds[2] - bounds[0], bounds[3] - bounds[1]
    scale = min(2.0, _MAX_SILHOUETTE / max(width, height))
    canvas = np.zeros((int(height * scale) + 1, int(width * scale) + 1), np.uint8)
    projected.draw(canvas, bounds[:2], scale, None)
    return float(np.count_nonzero(canvas)) / scale**2


def _tones(projected: _Projected, pose: Pose, lighting: Lighting) -> np.ndarray:
    """Return the edge, middle and light tone of each primitive: colours (F, 3, 4), 0..255, with full alpha."""
    mesh = projected.mesh
    round_ones = mesh.counts < 3
    up = np.array([0.0, 0.0, 1.0])
    normals = np.where(round_ones[:, None], 0.55 * projected.to_camera + 0.6 * up, projected.normals)
    colours = mesh.colours.copy()
    if lighting.snow_cover:
        cover = lighting.snow_cover * np.clip((projected.normals[:, 2] - 0.55) * 4, 0, 1) * (mesh.materials != LAMP)
        cover = cover[:, None]
        colours = colours * (1 - cover) + np.array([238.0, 242.0, 248.0]) * cover
    # Darken primitives that are close to the ground, because less light from the sky reaches them.
    centre_height = np.add.reduceat(projected.world[:, 2], mesh.starts) / mesh.counts
    colours = colours * (0.8 + 0.2 * np.clip(centre_height / 0.7, 0, 1))[:, None]
    light = lighting.on_faces(normals, projected.to_camera, pose.x, pose.y)
    shaded = colours * light
    shiny = np.select([mesh.materials == PAINT, mesh.materials == GLASS], [0.16, 0.42], 0.0)[:, None]
    reflected = 2 * (normals * projected.to_camera).sum(1, keepdims=True) * normals - projected.to_camera
    shaded = shaded + shiny * lighting.reflection(reflected)
    lamps = mesh.materials == LAMP
    shaded[lamps] = mesh.colours[lamps] * lighting.lamp_gain
    haze = 1 - np.exp(-projected.distance * lighting.haze)
    haze = np.where(lamps, haze * 0.4, haze)[:, None]
    middle = shaded * (1 - haze) + np.asarray(lighting.haze_colour) * haze
    tones = np.stack([middle * 0.74, middle, middle * 1.16 + 4], axis=1).clip(0, 255)
    return np.concatenate([tones, np.full((*tones.shape[:2], 1), 255.0)], axis=2)
