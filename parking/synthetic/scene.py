"""Draws a planned sequence frame by frame, with a mask from which the boxes are taken."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from parking.challenge.classes import CLASS_NAMES
from parking.synthetic.backdrop import build_props, build_surroundings, draw_sky
from parking.synthetic.camera import NEAR, Camera
from parking.synthetic.ground import draw_ground
from parking.synthetic.layout import footprint, painters_order
from parking.synthetic.lighting import Lighting
from parking.synthetic.mesh import Mesh
from parking.synthetic.planning import SequencePlan
from parking.synthetic.raster import Pose, render
from parking.synthetic.shapes import PEOPLE, build_shape
from parking.synthetic.weather import finish, make_lighting

#: An object is annotated if at least this share of it is visible.
MIN_VISIBLE = 0.15
_ORIGIN = Pose(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Frame:
    """A finished picture and its annotations.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8, 0 or the number of the visible object (its index in the plan plus one).
        full_areas: pixels that each planned object would cover if nothing hid it and the image had no border.
        boxes: {object index: (x, y, width, height)} of the annotated objects, whole pixels.
    """

    image: np.ndarray
    mask: np.ndarray
    full_areas: tuple[float, ...]
    boxes: dict[int, tuple[int, int, int, int]]


@dataclass(frozen=True)
class _Thing:
    mesh: Mesh
    pose: Pose
    footprint: np.ndarray
    number: int


def render_sequence(plan: SequencePlan) -> Iterator[Frame]:
    """Draw the frames of a sequence and yield them in order."""
    rng = np.random.default_rng(np.random.SeedSequence([*plan.entropy, 2]))
    indoor, night = plan.name.location == "indoor", plan.name.daytime == "night"
    surroundings = build_surroundings(rng, plan.lot, indoor, night)
    props = [
        _Thing(m, pose, footprint(pose.x, pose.y, 0, w, w), 0) for m, pose, w in build_props(rng, plan.lot, indoor)
    ]
    look = int(rng.integers(1 << 31))
    light_seed = int(rng.integers(1 << 31))
    meshes: dict[int, Mesh] = {}
    for index in range(plan.length):
        camera = plan.camera(index)
        own = (camera.position[0], camera.position[1], camera.yaw)
        lighting = make_lighting(plan.name, plan.lot, own, np.random.default_rng(light_seed))
        things = _objects(plan, index, meshes)
        grain_rng = np.random.default_rng(np.random.SeedSequence([*plan.entropy, 3, index]))
        standing = [*props, *things]
        order = painters_order([thing.footprint for thing in standing], np.asarray(camera.position[:2]))
        standing = [standing[k] for k in order]
        image = _background(plan, camera, lighting, surroundings, standing, look)
        mask, areas = _paste(image, standing, len(things), camera, lighting)
        boxes = tight_boxes(mask, areas)
        yield Frame(finish(image, plan.name, grain_rng), mask, areas, boxes)


def tight_boxes(mask: np.ndarray, full_areas) -> dict[int, tuple[int, int, int, int]]:
    """Return the boxes (x, y, width, height) around the visible pixels of objects, by object index.

    Objects of which less than MIN_VISIBLE is visible have no box.
    """
    counts = np.bincount(mask.ravel(), minlength=len(full_areas) + 1)
    boxes = {}
    for index, area in enumerate(full_areas):
        if counts[index + 1] and counts[index + 1] >= MIN_VISIBLE * area:
            boxes[index] = cv2.boundingRect((mask == index + 1).astype(np.uint8))
    return boxes


def _objects(plan: SequencePlan, index: int, meshes: dict[int, Mesh]) -> list[_Thing]:
    things = []
    for number, item in enumerate(plan.objects, start=1):
        name = CLASS_NAMES[item.category]
        if name in PEOPLE or number not in meshes:
            meshes[number] = build_shape(name, item.look, item.gait[0] + index * item.gait[1])
        things.append(_Thing(meshes[number], Pose(*item.at(index)), item.footprint(index), number))
    return things


def _background(plan, camera: Camera, lighting: Lighting, surroundings: Mesh, things, look: int) -> np.ndarray:
    indoor = plan.name.location == "indoor"
    image = np.zeros((camera.size[1], camera.size[0], 3), np.uint8)
    if not indoor:
        clouds = {"clear": 0.7 if look % 3 else 0.25, "cloudy": 1.0}.get(plan.name.weather, 0.8)
        draw_sky(image, camera.horizon, lighting, clouds, look)
    top = draw_ground(image, camera, plan.lot, lighting, indoor, look)
    sprite = render(surroundings, _ORIGIN, camera, lighting)
    if sprite:
        sprite.paste(image)
    _shadows(image, things, camera, lighting, top)
    if lighting.wet:
        for thing in things:
            sprite = render(thing.mesh.mirrored_in_ground(), thing.pose, camera, lighting, supersampling=1)
            if sprite:
                sprite.paste(image, 0.34 * lighting.wet)
    return image


def _shadows(image: np.ndarray, things, camera: Camera, lighting: Lighting, top: int) -> None:
    """Darken, in `image`, the ground below each thing and in the thing's shadow."""
    height, width = image.shape[:2]
    contact, cast = np.zeros((height - top, width), np.uint8), np.zeros((height - top, width), np.uint8)
    sunny = sum(lighting.sun) > 0
    for thing in things:
        world = thing.pose.apply(thing.mesh.vertices)
        low = world[world[:, 2] < 0.5] * (1, 1, 0)
        _fill_hull(contact, low, camera, top)
        if sunny:
            direction = np.asarray(lighting.sun_direction)
            flat = world - world[:, 2:] / direction[2] * direction
            parts = np.repeat(thing.mesh.parts, thing.mesh.counts)
            radii = np.repeat(thing.mesh.radii.max(1), thing.mesh.counts)
            order = np.argsort(parts, kind="stable")
            borders = np.flatnonzero(np.diff(parts[order])) + 1
            for members in np.split(order, borders):
                _fill_hull(cast, flat[members], camera, top, radii[members].max())
    contact = cv2.GaussianBlur(contact, (0, 0), max(width / 240, 0.6))
    factor = 1 - 0.55 * (contact.astype(np.float32) / 255)
    if sunny:
        cast = cv2.GaussianBlur(cast, (0, 0), max(width / 700, 0.5))
        factor *= 1 - 0.46 * (cast.astype(np.float32) / 255)
    factor = cv2.convertScaleAbs(factor, alpha=255)
    image[top:] = cv2.multiply(image[top:], cv2.merge([factor] * 3), scale=1 / 255)


def _fill_hull(mask: np.ndarray, points: np.ndarray, camera: Camera, top: int, radius: float = 0.0) -> None:
    if not len(points):
        return
    pixels, depth = camera.project(points)
    if depth.min() < NEAR:
        return
    corners = np.round(np.clip(pixels - (0, top), -8000, 8000)).astype(np.int32)
    if len(corners) > 2:
        corners = cv2.convexHull(corners)[:, 0]
        cv2.fillConvexPoly(mask, corners, 255)
    if radius:
        thickness = max(1, round(2 * radius * camera.focal / float(depth.mean())))
        cv2.polylines(mask, [corners], False, 255, min(thickness, 200))


def _paste(image: np.ndarray, things, num_objects: int, camera: Camera, lighting: Lighting):
    """Draw the things onto `image` in the given order; return the mask and the full area of each object."""
    mask = np.zeros(image.shape[:2], np.uint8)
    areas = [0.0] * num_objects
    for thing in things:
        sprite = render(thing.mesh, thing.pose, camera, lighting)
        if sprite is None:
            continue
        sprite.paste(image)
        sprite.stamp(mask, thing.number)
        if thing.number:
            areas[thing.number - 1] = sprite.full_area
    return mask, tuple(areas)
