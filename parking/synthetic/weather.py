"""Chooses the light of a scene by its conditions, and adds bloom, rain, snow and sensor noise to the drawn picture."""

import cv2
import numpy as np

from parking.synthetic.backdrop import ceiling_lamps, lamp_places
from parking.synthetic.ground import grain
from parking.synthetic.layout import Lot
from parking.synthetic.lighting import Lighting
from parking.synthetic.names import FrameName

_SNOWY, _RAINY = "snow", "rain"


def make_lighting(name: FrameName, lot: Lot, own: tuple[float, float, float], rng: np.random.Generator) -> Lighting:
    """Choose the light for the conditions in `name`; `own` is (x, y, yaw) of the camera's car."""
    if name.location == "indoor":
        lamps = tuple((float(x), float(y), 2.6, 0.2) for x, y in ceiling_lamps(lot))
        dim = 0.82 if name.daytime == "night" else 1.0
        return Lighting(
            ambient=(0.50 * dim, 0.51 * dim, 0.50 * dim),
            sky=(190, 192, 186),
            sky_low=(120, 122, 118),
            haze=0.004,
            haze_colour=(110, 112, 108),
            lamps=lamps,
            lamp_colour=(1.0, 0.98, 0.92),
            lamp_gain=1.0,
            wet=0.35,
        )
    wet = 1.0 if name.weather == _RAINY else 0.0
    snow = 0.85 if name.weather == _SNOWY else 0.0
    if name.daytime == "night":
        lamps = tuple((x, y, 4.2, 0.75) for x, y in lamp_places(lot))
        return Lighting(
            ambient=(0.125, 0.14, 0.195),
            sky=(10, 13, 26),
            sky_low=(36, 38, 56),
            haze=0.006 if name.weather == "clear" else 0.014,
            haze_colour=(26, 28, 40),
            lamps=lamps,
            headlights=0.8,
            own=own,
            lamp_gain=1.0,
            snow_cover=snow,
            wet=wet,
        )
    if name.weather == "clear":
        # The sun is left or right of the camera and mostly behind it, so that the camera sees lit surfaces and shadows.
        turn, height = rng.uniform(-0.7, 0.25) + rng.choice((0, np.pi)), rng.uniform(0.55, 1.05)
        aside = np.cos(turn) * np.cos(height)
        sun = np.array([aside, np.sin(turn) * np.sign(np.cos(turn)) * np.cos(height), np.sin(height)])
        warm = 1.0 - (height - 0.55)
        return Lighting(
            ambient=(0.62, 0.66, 0.72),
            sun=(0.66, 0.62 - 0.06 * warm, 0.54 - 0.14 * warm),
            sun_direction=tuple(sun.tolist()),
            sky=(88, 146, 214),
            sky_low=(198, 219, 238),
            haze=0.003,
            haze_colour=(196, 212, 228),
        )
    grey = {"cloudy": 0.95, _RAINY: 0.74, _SNOWY: 0.88}[name.weather]
    return Lighting(
        ambient=(grey, grey, grey * 1.03),
        sky=tuple(190 * grey * c for c in (0.86, 0.92, 1.0)),
        sky_low=tuple(236 * grey * c for c in (0.95, 0.98, 1.0)),
        haze={"cloudy": 0.005, _RAINY: 0.014, _SNOWY: 0.016}[name.weather],
        haze_colour=tuple(222 * grey * c for c in (0.97, 0.99, 1.0)),
        snow_cover=snow,
        wet=wet,
    )


def finish(image: np.ndarray, name: FrameName, rng: np.random.Generator) -> np.ndarray:
    """Add bloom around lamps, falling rain or snow, and sensor noise; returns a new (H, W, 3) uint8 image."""
    outdoor, night = name.location == "outdoor", name.daytime == "night"
    if night or not outdoor:
        image = _bloom(image, 0.9 if outdoor else 0.45)
    if outdoor and name.weather == _RAINY:
        image = _rain(image, rng, 0.5 if night else 0.62)
    if outdoor and name.weather == _SNOWY:
        image = _snow(image, rng, 0.75 if night else 1.0)
    return _noise(image, 3.5 if night and outdoor else 1.2, rng)


def _bloom(image: np.ndarray, strength: float) -> np.ndarray:
    height, width = image.shape[:2]
    small = cv2.resize(image, (max(width // 4, 1), max(height // 4, 1)), interpolation=cv2.INTER_AREA)
    bright = cv2.subtract(small, (170, 170, 170, 0))
    near, far = cv2.GaussianBlur(bright, (0, 0), 2.5), cv2.GaussianBlur(bright, (0, 0), 10)
    glow = cv2.addWeighted(near, strength, far, 1.8 * strength, 0)
    return cv2.add(image, cv2.resize(glow, (width, height)))


def _rain(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    count = width * height // 1500
    slant = rng.uniform(-0.25, 0.25)
    starts = rng.uniform((-0.1 * width, -0.1 * height), (1.1 * width, height), (count, 2))
    lengths = rng.uniform(0.03, 0.11, count) * height
    ends = starts + lengths[:, None] * (slant, 1.0)
    shades = rng.integers(50, 190, count).tolist()
    pairs = np.round(np.concatenate([starts, ends], 1) * 8).astype(int).tolist()
    for (ax, ay, bx, by), shade in zip(pairs, shades, strict=True):
        cv2.line(layer, (ax, ay), (bx, by), shade, 1, cv2.LINE_AA, 3)
    layer = cv2.convertScaleAbs(layer, alpha=strength)
    return cv2.add(image, cv2.merge([layer] * 3))


def _snow(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    height, width = image.shape[:2]
    layer = np.zeros((height, width), np.uint8)
    count = width * height // 750
    places = np.round(rng.uniform((0, 0), (width, height), (count, 2)) * 8).astype(int).tolist()
    radii = np.round(height / 540 * 8 * (0.7 + 2.6 * rng.random(count) ** 4)).astype(int).tolist()
    shades = rng.integers(120, 256, count).tolist()
    for place, radius, shade in zip(places, radii, shades, strict=True):
        cv2.circle(layer, place, radius, shade, -1, cv2.LINE_AA, 3)
    layer = cv2.convertScaleAbs(cv2.blur(layer, (2, 2)), alpha=strength)
    white = cv2.merge([layer] * 3)
    return cv2.add(cv2.multiply(image, cv2.bitwise_not(white), scale=1 / 255), white)


def _noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    height, width = image.shape[:2]
    noise = grain(4, 0.0)
    down, right = rng.integers(512, size=2).tolist()
    rows, columns = (np.arange(height) + down) % 512, (np.arange(width) + right) % 512
    field = np.round(noise * deviation)[rows][:, columns]
    brighter, darker = cv2.convertScaleAbs(np.maximum(field, 0)), cv2.convertScaleAbs(np.minimum(field, 0))
    return cv2.subtract(cv2.add(image, cv2.merge([brighter] * 3)), cv2.merge([darker] * 3))
