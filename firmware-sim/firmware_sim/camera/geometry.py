"""Where a point of the street lands in the picture: one pinhole camera, in metres.

The axes of the lane: x across it (0 = left kerb), y along it away from the camera's foot, z up. The same numbers are
published as four point pairs, so that an agent's ground homography and the drawing agree to the pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64s = NDArray[np.float64]

WIDTH_PX, HEIGHT_PX = 640, 360
LANE_WIDTH_M = 6.0
LANE_NEAR_M, LANE_FAR_M = 8.5, 22.0  # the stretch that is watched


@dataclass(frozen=True, slots=True)
class Pinhole:
    """A camera on the arch over the lane, looking along it and down."""

    x_m: float = 3.0
    height_m: float = 6.0
    pitch_deg: float = 22.0
    focal_px: float = 560.0

    def project(self, points: Float64s) -> Float64s:
        """(n, 3) metres -> (n, 2) pixels. Points nearer than 0.5 m of depth are held there (never behind the lens)."""
        pitch = math.radians(self.pitch_deg)
        across = points[:, 0] - self.x_m
        rise = points[:, 2] - self.height_m
        depth = np.maximum(points[:, 1] * math.cos(pitch) - rise * math.sin(pitch), 0.5)
        up = points[:, 1] * math.sin(pitch) + rise * math.cos(pitch)
        return np.stack(
            [WIDTH_PX / 2 + self.focal_px * across / depth, HEIGHT_PX / 2 - self.focal_px * up / depth], axis=1
        )


@dataclass(frozen=True, slots=True)
class Ground:
    """What an installer would enter for this view: fractions of the picture (0-1) and metres."""

    image: tuple[tuple[float, float], ...]  # four points in the picture
    metres: tuple[tuple[float, float], ...]  # the same four on the ground, x across the lane, y along it
    polygon: tuple[tuple[float, float], ...]  # the lane
    width_m: float

    def as_config(self, zone_id: str = "lane") -> dict[str, object]:
        """The ``[[camera.zone]]`` table of the agent's configuration for this view."""
        return {
            "id": zone_id,
            "kind": "lane",
            "polygon": [list(point) for point in self.polygon],
            "width_m": self.width_m,
            "ground": {"image": [list(p) for p in self.image], "metres": [list(p) for p in self.metres]},
        }


def lane_ground(camera: Pinhole) -> Ground:
    """The geometry of the drawn lane, four decimals as an installer would type them."""
    corners = (
        (0.0, LANE_NEAR_M),
        (LANE_WIDTH_M, LANE_NEAR_M),
        (LANE_WIDTH_M, LANE_FAR_M),
        (0.0, LANE_FAR_M),
    )
    pixels = camera.project(np.array([(x, y, 0.0) for x, y in corners]))
    image = tuple((round(float(u) / WIDTH_PX, 4), round(float(v) / HEIGHT_PX, 4)) for u, v in pixels)
    return Ground(image=image, metres=corners, polygon=image, width_m=LANE_WIDTH_M)
