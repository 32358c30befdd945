"""A pinhole camera over a flat ground (world: x right, y ahead, z up, metres)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEAR = 0.25


@dataclass(frozen=True)
class Camera:
    """A camera that never tilts to a side: its roll is 0.

    Attributes:
        position: (x, y, height) in metres.
        yaw: radians, counter-clockwise seen from above; 0 looks along +y.
        pitch: radians, positive looks down.
        size: (width, height) in pixels.
    """

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    size: tuple[int, int]

    @property
    def focal(self) -> float:
        """The focal length in pixels, for a horizontal field of view of about 80 degrees."""
        return 0.6 * self.size[0]

    @cached_property
    def rotation(self) -> np.ndarray:
        """Matrix (3, 3) whose rows are the right, down and forward directions in the world."""
        sy, cy, sp, cp = np.sin(self.yaw), np.cos(self.yaw), np.sin(self.pitch), np.cos(self.pitch)
        forward = np.array([-sy * cp, cy * cp, -sp])
        right = np.array([cy, sy, 0.0])
        down = np.array([-sp * -sy, -sp * cy, -cp])
        return np.stack([right, down, forward])

    @property
    def horizon(self) -> float:
        """The image row of points on the ground that are infinitely far away."""
        return self.size[1] / 2 - self.focal * np.tan(self.pitch)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project world points (N, 3) to pixels (N, 2) and depths (N,); pixels of depths below NEAR are not valid."""
        local = (points - np.asarray(self.position)) @ self.rotation.T
        depth = local[:, 2]
        safe = np.maximum(depth, NEAR)[:, None]
        return local[:, :2] * (self.focal / safe) + np.asarray(self.size) / 2, depth

    def project_polygon(self, points: np.ndarray) -> np.ndarray:
        """Project a world polygon (N, 3), cut off at the near plane, to pixels (M, 2); M = 0 if nothing is left."""
        depth = (points - np.asarray(self.position)) @ self.rotation[2]
        if (depth >= NEAR).all():
            return self.project(points)[0]
        kept = []
        for i in range(len(points)):
            j = (i + 1) % len(points)
            if depth[i] >= NEAR:
                kept.append(points[i])
            if (depth[i] >= NEAR) != (depth[j] >= NEAR):
                share = (NEAR - depth[i]) / (depth[j] - depth[i])
                kept.append(points[i] + share * (points[j] - points[i]))
        return self.project(np.array(kept))[0] if len(kept) > 2 else np.zeros((0, 2))

    def ground_homography(self) -> np.ndarray:
        """Return the matrix (3, 3) from homogeneous pixels to homogeneous coordinates (x, y, 1) on the ground."""
        intrinsics = np.array(
            [[self.focal, 0, self.size[0] / 2], [0, self.focal, self.size[1] / 2], [0, 0, 1.0]],
        )
        rotation = self.rotation
        columns = np.column_stack([rotation[:, 0], rotation[:, 1], -rotation @ np.asarray(self.position)])
        return np.linalg.inv(intrinsics @ columns)
