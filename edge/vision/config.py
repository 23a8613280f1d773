"""What an installer writes about a camera. Frozen, unknown keys refused; checking opens nothing and needs no OpenCV.

Positions are fractions of the picture (0-1, x to the right, y down), so they survive a change of stream resolution.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from edge.vision.frame import GROUPS
from edge.vision.ground import GroundMap
from protocols.core.errors import ConfigError

Point = tuple[float, float]


class GroundConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Four points seen in the picture and the same four on the ground: x across the lane, y along it, metres."""

    image: tuple[Point, Point, Point, Point]
    metres: tuple[Point, Point, Point, Point]


class ZoneConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    polygon: tuple[Point, ...]
    kind: Literal["lane", "area"] = "area"
    width_m: float = 0.0  # nominal width of a lane; checked against the ground, 0 = not stated
    ground: GroundConfig | None = None
    inertia: int = 3  # analysed frames an object must be in (out) before it has entered (left)
    watch: tuple[Literal["vehicle", "person", "two_wheeler", "object"], ...] = GROUPS  # type: ignore[assignment]


class LineConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Two points; whoever's foot point passes between them has crossed."""

    id: str
    points: tuple[Point, Point]


class CameraConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    url: str  # rtsp://..., /dev/videoN or a file
    analyse_fps: float = 5.0
    model: str = ""  # id in the model registry; "" = background model only, needs no weights
    score: float = 0.4  # the median score an object must reach before it counts
    any_class: bool = False  # steep views: report things of every class as "object" (detectors misname them)
    gate: bool = True  # look closer only where something moves; off = every analysed frame
    full_scan_s: float = 4.0  # a still picture is looked at anyway this often
    residual: bool = True  # with a model: also find what it has no class for (piles) in lane zones
    private: tuple[tuple[Point, ...], ...] = ()  # windows: blurred beyond recognition in all that leaves
    mask: tuple[tuple[Point, ...], ...] = ()  # trees, printed clock: motion here means nothing
    zone: tuple[ZoneConfig, ...] = ()
    line: tuple[LineConfig, ...] = ()


def check_camera(camera: CameraConfig, where: str) -> None:
    """Raise ConfigError naming the key if the camera's numbers cannot be right. ``where``: file and table."""
    here = f"{where}: camera {camera.id}"
    if not camera.id or not camera.url:
        raise ConfigError(f"{where}: a camera needs id and url")
    if not 0.05 <= camera.analyse_fps <= 30:
        raise ConfigError(f"{here}: analyse_fps must be between 0.05 and 30, got {camera.analyse_fps}")
    if not 0 < camera.score < 1:
        raise ConfigError(f"{here}: score must be between 0 and 1, got {camera.score}")
    if camera.full_scan_s <= 0:
        raise ConfigError(f"{here}: full_scan_s must be positive, got {camera.full_scan_s}")
    for key, shapes in (("private", camera.private), ("mask", camera.mask)):
        for number, shape in enumerate(shapes):
            _check_polygon(f"{here}: {key}[{number}]", shape)
    seen: set[str] = set()
    for zone in camera.zone:
        if zone.id in seen:
            raise ConfigError(f"{here}: zone {zone.id} is there twice")
        seen.add(zone.id)
        _check_zone(f"{here}: zone {zone.id}", zone)
    for line in camera.line:
        if line.id in seen:
            raise ConfigError(f"{here}: line {line.id} is there twice")
        seen.add(line.id)
        _check_points(f"{here}: line {line.id}", line.points)
        if line.points[0] == line.points[1]:
            raise ConfigError(f"{here}: line {line.id}: its two points are the same")


def zone_ground(zone: ZoneConfig) -> GroundMap | None:
    if zone.ground is None:
        return None
    return GroundMap(zone.ground.image, zone.ground.metres, zone.polygon)


def _check_zone(here: str, zone: ZoneConfig) -> None:
    _check_polygon(f"{here}: polygon", zone.polygon)
    if zone.inertia < 1:
        raise ConfigError(f"{here}: inertia must be at least 1, got {zone.inertia}")
    if zone.width_m < 0:
        raise ConfigError(f"{here}: width_m must not be negative, got {zone.width_m}")
    try:
        ground = zone_ground(zone)
    except ValueError as error:
        raise ConfigError(f"{here}: ground: {error}") from error
    if ground is None:
        return
    measured = ground.width_m()
    if measured <= 0:
        raise ConfigError(f"{here}: ground: the polygon reaches beyond the horizon of these four points")
    # A quarter covers a polygon drawn by eye; more means swapped points or feet for metres.
    if zone.width_m and abs(measured - zone.width_m) > 0.25 * zone.width_m:
        raise ConfigError(
            f"{here}: width_m says {zone.width_m:g}, polygon and ground points give {measured:.1f} m: check the points"
        )


def _check_polygon(here: str, polygon: tuple[Point, ...]) -> None:
    if len(polygon) < 3:
        raise ConfigError(f"{here}: a polygon needs three points or more, got {len(polygon)}")
    _check_points(here, polygon)
    area = 0.0
    for (x0, y0), (x1, y1) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
        area += x0 * y1 - x1 * y0
    if abs(area) / 2 < 1e-4:
        raise ConfigError(f"{here}: the polygon has no area")


def _check_points(here: str, points: tuple[Point, ...]) -> None:
    for x, y in points:
        if not (0 <= x <= 1 and 0 <= y <= 1):
            raise ConfigError(f"{here}: points are fractions of the picture between 0 and 1, got [{x}, {y}]")
