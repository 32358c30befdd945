"""Decides what a data set shows, before anything is drawn: sequences, conditions, classes, places and motion."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from parking.challenge.classes import CLASS_NAMES
from parking.synthetic.camera import Camera
from parking.synthetic.layout import Lot, footprint, make_lot, overlap
from parking.synthetic.names import REGIONS, SIDES, FrameName
from parking.synthetic.shapes import DIMENSIONS, PEOPLE

#: Shares of the classes as in a real parking lot, where sedans are hundreds of times more frequent than strollers.
LONG_TAIL = {
    "sedan": 0.48,
    "SUV": 0.2,
    "van": 0.08,
    "bus": 0.01,
    "school bus": 0.008,
    "truck": 0.06,
    "taxi": 0.02,
    "adult": 0.1,
    "child": 0.01,
    "motorcycle": 0.014,
    "kickboard": 0.004,
    "bicycle": 0.01,
    "stroller": 0.0015,
    "cart": 0.0025,
}
BALANCED = dict.fromkeys(CLASS_NAMES, 1 / len(CLASS_NAMES))

_CARS = ("sedan", "SUV", "van", "truck", "taxi")
_LARGE = ("bus", "school bus")
_LENGTHS = (4, 10)
_FEWEST, _MOST = 3, 8
_TRIES = 14
#: An object is planned only if the shorter side of its estimated box is at least this share of the image width.
_SMALLEST = 0.03
#: Every twenty sequences have these weathers, times and places, in random order. One of the twenty shows no object.
_BLOCK = (
    *[("clear", "day", "outdoor")] * 6,
    *[("cloudy", "day", "outdoor")] * 2,
    *[("rain", "day", "outdoor")] * 2,
    *[("snow", "day", "outdoor")] * 2,
    *[("clear", "night", "outdoor")] * 2,
    ("rain", "night", "outdoor"),
    ("snow", "night", "outdoor"),
    *[("clear", "day", "indoor")] * 2,
    ("cloudy", "day", "indoor"),
    ("clear", "night", "indoor"),
)


@dataclass(frozen=True)
class PlannedObject:
    """An object in all frames of a sequence.

    Attributes:
        category: index into CLASS_NAMES.
        look: seed of the colours and variants of the object's model.
        x, y, yaw: ground position (metres) and heading (radians) in the first frame.
        step: (x, y) movement in metres from frame to frame.
        gait: phase of walking in the first frame, and its change from frame to frame, both in turns.
    """

    category: int
    look: int
    x: float
    y: float
    yaw: float
    step: tuple[float, float] = (0.0, 0.0)
    gait: tuple[float, float] = (0.0, 0.0)

    def at(self, frame: int) -> tuple[float, float, float]:
        return self.x + frame * self.step[0], self.y + frame * self.step[1], self.yaw

    def footprint(self, frame: int, margin: float = 0.0) -> np.ndarray:
        width, length, _ = DIMENSIONS[CLASS_NAMES[self.category]]
        return footprint(*self.at(frame), width + margin, length + margin)


@dataclass(frozen=True)
class SequencePlan:
    """All decisions about a sequence before it is drawn, except random details such as raindrops.

    Attributes:
        entropy: seeds of the random generators for the details of this sequence.
        name: the file name of the first frame.
        length: number of frames.
        size: (width, height) of the images.
        lot: the parking lot.
        eye: (x, y, height, yaw, pitch) of the camera in the first frame.
        drift: change of the camera's (x, y, yaw) from frame to frame.
        objects: the objects in the scene.
    """

    entropy: tuple[int, ...]
    name: FrameName
    length: int
    size: tuple[int, int]
    lot: Lot
    eye: tuple[float, float, float, float, float]
    drift: tuple[float, float, float]
    objects: tuple[PlannedObject, ...]

    def camera(self, frame: int) -> Camera:
        x, y, height, yaw, pitch = self.eye
        sway = 0.004 * np.sin(1.7 * frame)
        position = (x + frame * self.drift[0], y + frame * self.drift[1], height)
        return Camera(position, yaw + frame * self.drift[2], pitch + sway, self.size)


class _Dealer:
    """Chooses the class of each new object such that the numbers of boxes stay close to the given shares."""

    def __init__(self, shares: dict[str, float]):
        self._shares = np.array([shares[name] for name in CLASS_NAMES])
        self._shares = self._shares / self._shares.sum()
        self._dealt = np.zeros(len(CLASS_NAMES))

    def deal(self, rng: np.random.Generator, frames: int) -> int:
        lacking = self._shares * (self._dealt.sum() + frames) - self._dealt
        weights = np.clip(lacking, 0, None) ** 2
        return int(rng.choice(len(weights), p=weights / weights.sum()))

    def count(self, category: int, frames: int) -> None:
        self._dealt[category] += frames


def plan_sequences(
    num_images: int, size: tuple[int, int], seed: int, split: int, balanced: bool
) -> Iterator[SequencePlan]:
    """Yield plans of sequences with `num_images` images in all; the last sequence may be shorter than the others.

    Args:
        split: number that makes the sets of one seed differ (0: train, 1: test).
    """
    dealer = _Dealer(BALANCED if balanced else LONG_TAIL)
    index = 0
    while num_images > 0:
        plan = _plan_sequence((seed, split, index), num_images, size, dealer)
        yield plan
        num_images -= plan.length
        index += 1


def _plan_sequence(entropy, most_frames: int, size, dealer: _Dealer) -> SequencePlan:
    seed, split, index = entropy
    block, within = divmod(index, len(_BLOCK))
    block_rng = np.random.default_rng(np.random.SeedSequence([seed, split, block, 1]))
    weather, daytime, location = _BLOCK[block_rng.permutation(len(_BLOCK))[within]]
    empty = within == block_rng.integers(len(_BLOCK))
    rng = np.random.default_rng(np.random.SeedSequence([*entropy, 0]))
    length = min(int(rng.integers(_LENGTHS[0], _LENGTHS[1] + 1)), most_frames)
    side = SIDES[rng.integers(len(SIDES))]
    name = FrameName(
        date=_date(rng, weather),
        region=REGIONS[rng.integers(len(REGIONS))],
        weather=weather,
        daytime=daytime,
        location=location,
        side=side,
        sequence=index + 1,
        frame=int(rng.integers(1, 90000)),
    )
    lot = make_lot(rng, "along" if side in ("front", "rear") else "facing")
    eye = (0.0, 0.0, rng.uniform(1.15, 1.55), rng.normal(0, 0.1), rng.uniform(0.07, 0.13))
    # A camera that looks to a side moves past the row of stalls; other cameras move down the aisle.
    pace = rng.uniform(0.0, 0.14) * rng.choice((-1, 1))
    sliding = side in ("left", "right")
    drift = (pace if sliding else 0.02 * pace, 0.02 * pace if sliding else abs(pace), rng.normal(0, 0.004))
    plan = SequencePlan(entropy, name, length, size, lot, eye, drift, ())
    wanted = 0 if empty else int(rng.integers(_FEWEST, _MOST + 1))
    return replace(plan, objects=tuple(_place(plan, wanted, dealer, rng)))


def _date(rng: np.random.Generator, weather: str) -> str:
    month = rng.choice((12, 1, 2)) if weather == "snow" else rng.integers(1, 13)
    return f"{rng.integers(2020, 2022)}{month:02d}{rng.integers(1, 29):02d}"


def _place(plan: SequencePlan, wanted: int, dealer: _Dealer, rng: np.random.Generator) -> list[PlannedObject]:
    middle = plan.length // 2
    camera = plan.camera(middle)
    placed: list[PlannedObject] = []
    boxes: list[np.ndarray] = []
    for _ in range(2 * wanted):
        if len(placed) == wanted:
            break
        category = dealer.deal(rng, plan.length)
        for _ in range(_TRIES):
            candidate = _propose(plan, category, rng)
            box = _estimate_box(candidate, middle, camera)
            if box is None or not _clear_of(candidate, placed, plan):
                continue
            if _shown_well(candidate, box, placed, boxes, camera, middle):
                placed.append(candidate)
                boxes.append(box)
                dealer.count(category, plan.length)
                break
    return placed


def _propose(plan: SequencePlan, category: int, rng: np.random.Generator) -> PlannedObject:
    name, lot = CLASS_NAMES[category], plan.lot
    look = int(rng.integers(1 << 31))
    if name in _CARS and rng.random() < 0.72:
        x, y, yaw, _ = lot.stalls[rng.integers(len(lot.stalls))]
        yaw += rng.choice((0, np.pi)) + rng.normal(0, 0.03)
        return PlannedObject(category, look, x + rng.normal(0, 0.08), y + rng.normal(0, 0.15), yaw)
    if name in _CARS or name in _LARGE:
        return _driving(lot, category, look, rng, large=name in _LARGE)
    depth = rng.uniform(3.2, 8.2)
    x, y = depth * rng.uniform(-0.72, 0.72), depth
    yaw = rng.uniform(0, 2 * np.pi)
    if name not in PEOPLE:
        return PlannedObject(category, look, x, y, yaw)
    pace = rng.uniform(0.04, 0.12) if rng.random() < 0.7 else 0.0
    step = (float(-np.sin(yaw) * pace), float(np.cos(yaw) * pace))
    return PlannedObject(category, look, x, y, yaw, step, (rng.random(), pace * 0.75))


def _driving(lot: Lot, category: int, look: int, rng, large: bool) -> PlannedObject:
    depth = rng.uniform(9.5, 16.0) if large else rng.uniform(5.0, 11.0)
    across = lot.kind == "facing"
    if across:
        yaw = rng.choice((-1, 1)) * np.pi / 2 + rng.normal(0, 0.45 if large else 0.3)
        x = depth * rng.uniform(-0.6, 0.6)
    else:
        yaw = rng.choice((0, np.pi)) + rng.normal(0, 0.6 if large else 0.4)
        x = rng.uniform(-0.35, 0.35) * depth
    pace = rng.uniform(0.05, 0.25) if rng.random() < 0.5 else 0.0
    step = (float(-np.sin(yaw) * pace), float(np.cos(yaw) * pace))
    return PlannedObject(category, look, x, depth, yaw, step)


def _estimate_box(candidate: PlannedObject, frame: int, camera: Camera) -> np.ndarray | None:
    """Estimate an object's box (x1, y1, x2, y2) in the image, not clipped; None if it is too near or too small."""
    height = DIMENSIONS[CLASS_NAMES[candidate.category]][2]
    corners = candidate.footprint(frame)
    points = np.concatenate([np.column_stack([corners, np.full(4, z)]) for z in (0.0, height)])
    pixels, depth = camera.project(points)
    if depth.min() < 1.6:
        return None
    box = np.concatenate([pixels.min(0), pixels.max(0)])
    return box if min(box[2] - box[0], box[3] - box[1]) >= _SMALLEST * camera.size[0] else None


def _clear_of(candidate: PlannedObject, placed: list[PlannedObject], plan: SequencePlan) -> bool:
    """Return whether the candidate overlaps neither `placed` objects nor the camera's car on the ground.

    The first, the middle and the last frame are tested.
    """
    for frame in {0, plan.length // 2, plan.length - 1}:
        room = candidate.footprint(frame, margin=0.15)
        eye = plan.camera(frame).position
        if overlap(room, footprint(eye[0], eye[1], 0.0, 2.4, 2.4)):
            return False
        near = (other for other in placed if _could_touch(candidate, other, frame))
        if any(overlap(room, other.footprint(frame)) for other in near):
            return False
    return True


def _could_touch(a: PlannedObject, b: PlannedObject, frame: int) -> bool:
    """Return whether two objects are close enough to overlap: a quick test that saves most of the exact tests."""
    (ax, ay, _), (bx, by, _) = a.at(frame), b.at(frame)
    reach = sum(math.hypot(*DIMENSIONS[CLASS_NAMES[item.category]][:2]) for item in (a, b)) / 2
    return math.hypot(ax - bx, ay - by) < reach + 0.2


def _shown_well(candidate, box, placed, boxes, camera: Camera, frame: int) -> bool:
    """Return whether enough of the candidate's `box` is inside the image, and no box would be mostly hidden."""
    width, height = camera.size
    inside = _intersection(box, np.array([0, 0, width, height])) / _area(box)
    if inside < 0.45:
        return False
    eye = np.asarray(camera.position[:2])
    every, around = [*placed, candidate], [*boxes, box]
    distance = [float(np.linalg.norm(np.asarray(item.at(frame)[:2]) - eye)) for item in every]
    for i, own in enumerate(around):
        covered = sum(
            _intersection(own, other) for j, other in enumerate(around) if j != i and distance[j] < distance[i]
        )
        if covered > 0.5 * _area(own):
            return False
    return True


def _area(box: np.ndarray) -> float:
    return float((box[2] - box[0]) * (box[3] - box[1]))


def _intersection(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    return float(sides[0] * sides[1])
