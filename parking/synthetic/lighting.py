"""The light on a scene (from sky, sun, lamps, and headlights of the camera's car), and the haze in the air."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Lighting:
    """The light on a scene; a light is given as RGB factors on a surface's colour (1: full daylight).

    Attributes:
        ambient: light from all directions, strongest on surfaces that face up.
        sun: light from the direction `sun_direction` (unit vector towards the sun); 0 if the sun is hidden.
        lamps: (x, y, radius, strength) of each pool of lamp light on the ground, in metres.
        headlights: strength of the headlights of the camera's car (0: off).
        own: (x, y, yaw) of the camera's car.
        sky: colour of the sky at the zenith, RGB 0..255; sky_low: colour at the horizon.
        haze: share of light that the haze takes away per metre; haze_colour: colour that replaces this light.
        lamp_gain: brightness of lamps and lit windows.
        snow_cover: share of white on surfaces that face up.
        wet: strength of reflections in the ground (0: dry).
    """

    ambient: tuple[float, float, float]
    sky: tuple[float, float, float]
    sky_low: tuple[float, float, float]
    sun: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sun_direction: tuple[float, float, float] = (0.0, 0.0, 1.0)
    haze: float = 0.002
    haze_colour: tuple[float, float, float] = (200.0, 210.0, 220.0)
    lamps: tuple = ()
    lamp_colour: tuple[float, float, float] = (1.0, 0.86, 0.62)
    headlights: float = 0.0
    own: tuple[float, float, float] = (0.0, 0.0, 0.0)
    lamp_gain: float = 0.8
    snow_cover: float = 0.0
    wet: float = 0.0

    def pools(self, x, y) -> np.ndarray:
        """Return the light (..., 3) of lamps and headlights at the ground positions (x, y)."""
        x, y = np.asarray(x, float), np.asarray(y, float)
        total = np.zeros((*np.broadcast(x, y).shape, 3))
        for lx, ly, radius, strength in self.lamps:
            falloff = strength / (1 + ((x - lx) ** 2 + (y - ly) ** 2) / radius**2) ** 1.5
            total += falloff[..., None] * np.asarray(self.lamp_colour)
        if self.headlights:
            ox, oy, yaw = self.own
            ahead = -(x - ox) * np.sin(yaw) + (y - oy) * np.cos(yaw)
            aside = (x - ox) * np.cos(yaw) + (y - oy) * np.sin(yaw)
            reach = np.clip(ahead, 0.3, None)
            beam = np.exp(-((aside / (0.55 * reach + 0.8)) ** 2)) * np.exp(-reach / 18) * (1 - np.exp(-reach / 3.5))
            total += (self.headlights * beam)[..., None] * np.array([1.0, 0.97, 0.9])
        return total

    def on_faces(self, normals: np.ndarray, to_camera: np.ndarray, x: float, y: float) -> np.ndarray:
        """Return the light (F, 3) on the faces of an object that stands at (x, y)."""
        overhead = (0.78 + 0.22 * normals[:, 2:3]) * np.asarray(self.ambient)
        direct = np.clip(normals @ np.asarray(self.sun_direction), 0, 1)[:, None] * np.asarray(self.sun)
        towards = 0.45 + 0.55 * np.clip((normals * to_camera).sum(1), 0, 1)
        return overhead + direct + towards[:, None] * self.pools(x, y)

    def reflection(self, directions: np.ndarray) -> np.ndarray:
        """Return the colours (F, 3), RGB 0..255, that are seen along `directions`: the sky, or the dark ground."""
        rise = np.clip(directions[:, 2:3], -1, 1)
        sky = np.asarray(self.sky_low) + (np.asarray(self.sky) - np.asarray(self.sky_low)) * np.clip(rise, 0, 1)
        ground = np.asarray(self.sky_low) * 0.25
        glint = np.clip(directions @ np.asarray(self.sun_direction), 0, 1)[:, None] ** 24 * np.asarray(self.sun) * 255
        return np.where(rise > -0.05, sky, ground) + glint
