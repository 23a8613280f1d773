"""From pixels to metres on the ground: four point pairs that an installer measured, and what follows from them.

x runs across the lane, y along it. Plain NumPy: configuration is checked without OpenCV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge.vision.frame import Float64s

Point = tuple[float, float]


def homography(source: Sequence[Point], target: Sequence[Point]) -> Float64s:
    """3x3 matrix that takes four points to four points. Raises ValueError if three of them lie on one line."""
    if len(source) != 4 or len(target) != 4:
        raise ValueError("a ground needs exactly four point pairs")
    for points in (source, target):
        for skip in range(4):
            (ax, ay), (bx, by), (cx, cy) = (points[i] for i in range(4) if i != skip)
            size = max(math.dist((ax, ay), (bx, by)), math.dist((bx, by), (cx, cy)), 1e-9)
            if abs((bx - ax) * (cy - ay) - (by - ay) * (cx - ax)) < 1e-3 * size * size:
                raise ValueError("three of the four ground points lie on one line")
    rows, right = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    solved = np.linalg.solve(np.array(rows, np.float64), np.array(right, np.float64))
    return np.append(solved, 1.0).reshape(3, 3)


def inside(polygon: Float64s, x: float, y: float) -> bool:
    """Is the point in the polygon (even-odd rule)."""
    x0, y0 = polygon[:, 0], polygon[:, 1]
    x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
    spans = (y0 > y) != (y1 > y)
    if not spans.any():
        return False
    cuts = x0[spans] + (y - y0[spans]) * (x1[spans] - x0[spans]) / (y1[spans] - y0[spans])
    return bool(np.count_nonzero(cuts > x) % 2)


class GroundMap:
    """One zone's ground: picture fractions (0-1) <-> metres."""

    def __init__(self, image: Sequence[Point], metres: Sequence[Point], polygon: Sequence[Point]) -> None:
        self._to_ground = homography(image, metres)
        self._polygon_m = self.to_metres(np.array(polygon, np.float64))

    def to_metres(self, fractions: Float64s) -> Float64s:
        """(n, 2) fractions of the picture -> (n, 2) metres; beyond the horizon NaN."""
        flat = np.column_stack([fractions, np.ones(len(fractions))]) @ self._to_ground.T
        reference = self._to_ground[2, 0] * 0.5 + self._to_ground[2, 1] * 1.0 + self._to_ground[2, 2]
        depth = flat[:, 2] * (1.0 if reference >= 0 else -1.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            out: Float64s = flat[:, :2] / flat[:, 2:3]
        out[depth <= 1e-9] = np.nan
        return out

    def metres_per_fraction(self, x: float, y: float) -> float:
        """How many metres across one whole picture width would be at this spot (upright things stand in this plane)."""
        step = 0.01
        pair = self.to_metres(np.array([(x - step / 2, y), (x + step / 2, y)], np.float64))
        return float(np.linalg.norm(pair[1] - pair[0]) / step)

    def lane_at(self, y_m: float) -> tuple[float, float] | None:
        """The lane's edges (x, metres) at a distance ``y_m`` along it; outside its length those of the nearer end."""
        points = self._polygon_m[~np.isnan(self._polygon_m).any(axis=1)]
        low, high = float(points[:, 1].min()), float(points[:, 1].max())
        margin = 0.01 * (high - low)
        y = min(max(y_m, low + margin), high - margin)
        x0, y0 = points[:, 0], points[:, 1]
        x1, y1 = np.roll(x0, -1), np.roll(y0, -1)
        spans = (y0 > y) != (y1 > y)
        if np.count_nonzero(spans) < 2:
            return None
        cuts = x0[spans] + (y - y0[spans]) * (x1[spans] - x0[spans]) / (y1[spans] - y0[spans])
        return float(cuts.min()), float(cuts.max())

    def width_m(self) -> float:
        """Width of the lane half way along it."""
        points = self._polygon_m
        edges = self.lane_at(float(np.nanmin(points[:, 1]) + np.nanmax(points[:, 1])) / 2)
        return 0.0 if edges is None else edges[1] - edges[0]


def widest_gap(edges: tuple[float, float], taken: Sequence[tuple[float, float]]) -> float:
    """The widest free strip between the lane's edges once the taken intervals are cut out."""
    low, high = edges
    best, at = 0.0, low
    for start, end in sorted(taken):
        best = max(best, min(start, high) - at)
        at = max(at, end)
    return max(best, high - at, 0.0)
