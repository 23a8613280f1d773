"""Who is in which zone since when, who crossed which line, and how much of a lane is left. Geometry on tracks only.

A thing is where it stands: the bottom centre of its box. It has entered a zone after a few frames inside and left
after a few outside (inertia), dated back to the first of them, so that a box that trembles on the border makes no
visits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.vision.config import LineConfig, ZoneConfig, zone_ground
from edge.vision.frame import GROUPS, Float64s
from edge.vision.ground import inside, widest_gap
from edge.vision.tracker import Track

#: (x0, x1, y) in metres: the strip of ground that a thing takes, and the distance of its near edge
Footprint = tuple[float, float, float]

_DEPTH_M = 4.0  # how much of the lane's length a thing is taken to fill behind its near edge
_LEAP_M = 0.6  # between neighbouring columns of an outline
_REARM = 0.12  # of its box height a foot point must be past a line before it has crossed


@dataclass(slots=True)
class Presence:
    """One track's standing with one zone."""

    inside: bool = False
    streak: int = 0
    streak_ms: int = 0  # first frame of the present streak against ``inside``
    entered_ms: int = 0
    left_ms: int = 0


@dataclass(frozen=True, slots=True)
class Crossing:
    line: str
    track: Track
    ts_ms: int
    direction: str  # as seen in the picture: up, down, left, right


def touching(points: Float64s) -> Float64s:
    """Of an outline's lowest points on the ground (column by column, metres) those that touch it.

    From the nearest point outwards as long as the foot line goes on; where it leaps away, the column shows a part
    that hangs over: a mirror, the edge of a roof.
    """
    nearest = int(points[:, 1].argmin())
    leaps = np.abs(np.diff(points[:, 1])) > _LEAP_M
    before = np.flatnonzero(leaps[:nearest])
    after = np.flatnonzero(leaps[nearest:])
    start = int(before[-1]) + 1 if len(before) else 0
    stop = nearest + int(after[0]) + 1 if len(after) else len(points)
    return points[start:stop]


class Zone:
    """One polygon of one camera, for frames of one size."""

    def __init__(self, config: ZoneConfig, width_px: int, height_px: int) -> None:
        self.config = config
        self.polygon: Float64s = np.array(config.polygon, np.float64) * (width_px, height_px)
        self.ground = zone_ground(config)
        self._size = np.array((width_px, height_px), np.float64)
        self._watched = {GROUPS.index(name) for name in config.watch}
        self.presence: dict[int, Presence] = {}

    def update(self, tracks: Sequence[Track], ts_ms: int) -> list[Track]:
        """The tracks that are in the zone now."""
        present: list[Track] = []
        for track in tracks:
            if track.group not in self._watched:
                continue
            state = self.presence.setdefault(track.id, Presence())
            # A track that was not seen in this frame says nothing new; its last word stands.
            if track.seen_ms == ts_ms:
                self._judge(state, inside(self.polygon, *track.foot), ts_ms)
            if state.inside:
                present.append(track)
        alive = {track.id for track in tracks}
        for gone in [number for number in self.presence if number not in alive]:
            del self.presence[gone]
        return present

    def covers(self, track: Track) -> bool:
        return track.group in self._watched and inside(self.polygon, *track.foot)

    def _judge(self, state: Presence, now_inside: bool, ts_ms: int) -> None:
        if now_inside == state.inside:
            state.streak = 0
            return
        if state.streak == 0:
            state.streak_ms = ts_ms
        state.streak += 1
        if state.streak >= self.config.inertia:
            state.inside, state.streak = now_inside, 0
            if now_inside:
                state.entered_ms = state.streak_ms
            else:
                state.left_ms = state.streak_ms

    def clear(self) -> None:
        self.presence.clear()

    def box_footprint(self, track: Track) -> Footprint | None:
        """The ground under the lower edge of a box: right for things seen from in front or behind."""
        if self.ground is None:
            return None
        edge = np.array([(track.box[0], track.box[3]), (track.box[2], track.box[3])], np.float64) / self._size
        (x0, y0), (x1, y1) = self.ground.to_metres(edge)
        if np.isnan([x0, y0, x1, y1]).any():
            return None
        return float(min(x0, x1)), float(max(x0, x1)), float(min(y0, y1))

    def area_m2(self, track: Track, area_px: float) -> float | None:
        """Size of its outline, upright, at the distance where it stands."""
        if self.ground is None:
            return None
        x, y = track.foot
        metres_per_px = self.ground.metres_per_fraction(x / self._size[0], y / self._size[1]) / self._size[0]
        return None if np.isnan(metres_per_px) else float(area_px * metres_per_px**2)

    def clear_width_m(self, footprint: Footprint, others: Sequence[Footprint]) -> float | None:
        """The widest strip of the lane left beside a thing and whatever stands next to it."""
        if self.ground is None or self.config.kind != "lane":
            return None
        edges = self.ground.lane_at(footprint[2])
        if edges is None:
            return None
        beside = [f for f in others if abs(f[2] - footprint[2]) < _DEPTH_M]
        return widest_gap(edges, [(f[0], f[1]) for f in (footprint, *beside)])


class Lines:
    """Crossings of lines by the segment that a foot point moved along."""

    def __init__(self, configs: Sequence[LineConfig], width_px: int, height_px: int) -> None:
        size = (width_px, height_px)
        self._lines = [(config.id, np.array(config.points, np.float64) * size) for config in configs]
        self._last: dict[tuple[str, int], tuple[int, float, float, int]] = {}  # side, x, y, ts of the last sure side

    def update(self, tracks: Sequence[Track], ts_ms: int) -> list[Crossing]:
        """``tracks``: all, counting or not, so that a crossing just before a thing began to count is not lost."""
        crossings: list[Crossing] = []
        for name, points in self._lines:
            for track in tracks:
                if track.seen_ms != ts_ms:
                    continue
                crossing = self._look(name, points, track, ts_ms)
                if crossing is not None:
                    crossings.append(crossing)
        alive = {track.id for track in tracks}
        for key in [key for key in self._last if key[1] not in alive]:
            del self._last[key]
        return crossings

    def _look(self, name: str, points: Float64s, track: Track, ts_ms: int) -> Crossing | None:
        (ax, ay), (bx, by) = points
        along = np.array((bx - ax, by - ay))
        length = float(np.linalg.norm(along))
        x, y = track.foot
        offset = (along[0] * (y - ay) - along[1] * (x - ax)) / length  # signed distance from the line, px
        if abs(offset) < _REARM * float(track.box[3] - track.box[1]):
            return None
        side = 1 if offset > 0 else -1
        key = (name, track.id)
        before = self._last.get(key)
        if before is None or before[0] == side:
            self._last[key] = (side, x, y, ts_ms)
            return None
        if not track.counts:
            return None  # keep the old side: it crosses when it counts
        self._last[key] = (side, x, y, ts_ms)
        if not _cut(points, before[1:3], (x, y)):
            return None
        normal = np.array((-along[1], along[0])) * side
        if abs(normal[0]) > abs(normal[1]):
            direction = "right" if normal[0] > 0 else "left"
        else:
            direction = "down" if normal[1] > 0 else "up"
        return Crossing(name, track, _when(points, before, (x, y), ts_ms), direction)

    def clear(self) -> None:
        self._last.clear()


def _cut(points: Float64s, start: tuple[float, float], end: tuple[float, float]) -> bool:
    """Do the two ends of the line lie on different sides of the way that was gone (the converse is known)."""
    (ax, ay), (bx, by) = points
    dx, dy = end[0] - start[0], end[1] - start[1]
    one = dx * (ay - start[1]) - dy * (ax - start[0])
    two = dx * (by - start[1]) - dy * (bx - start[0])
    return bool(one * two <= 0)


def _when(points: Float64s, before: tuple[int, float, float, int], end: tuple[float, float], ts_ms: int) -> int:
    (ax, ay), (bx, by) = points
    along = (bx - ax, by - ay)

    def offset(x: float, y: float) -> float:
        return float(along[0] * (y - ay) - along[1] * (x - ax))

    start, stop = offset(before[1], before[2]), offset(*end)
    share = start / (start - stop) if start != stop else 1.0
    return round(before[3] + share * (ts_ms - before[3]))
