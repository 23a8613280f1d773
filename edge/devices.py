"""What the gateway knows of its devices: their types, places and how their points are reported."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache

from edge.config import EdgeConfig
from edge.report import Mode, ReportPolicy
from protocols.core.model import SeriesInfo
from protocols.devices import DeviceType, Point, load

_DEFAULT_SNAPSHOT_S = 60.0


@dataclass(frozen=True, slots=True)
class KnownDevice:
    id: str
    type: DeviceType | None  # None: a camera


class Devices:
    """Built once from the configuration."""

    def __init__(self, config: EdgeConfig) -> None:
        self._known: dict[str, KnownDevice] = {}
        for connector in config.connector:
            for device in connector.device:
                self._known[device.id] = KnownDevice(device.id, load(device.type))
        for camera in config.camera:
            self._known[camera.id] = KnownDevice(camera.id, None)
        self._rules = config.report
        self.places: Mapping[str, tuple[float, float]] = {p.device: (p.lon, p.lat) for p in config.place}
        self._home = config.gateway.location

    def ids(self) -> Collection[str]:
        return self._known.keys()

    def location(self, device: str) -> tuple[float, float] | None:
        return self.places.get(device, self._home)

    def series(self, device: str, point: str) -> SeriesInfo:
        """Raises KeyError for a device that is not configured; an unknown point gets three decimals."""
        known = self._known[device]
        kind = known.type
        found = _point(kind, point)
        if found is None:
            return SeriesInfo(device, point, device_type=kind.id if kind else "camera")
        return SeriesInfo(device, point, found.unit, found.decimals, kind.id if kind else "")

    def policy(self, info: SeriesInfo) -> ReportPolicy:
        found = _point(self._known[info.device].type, info.point)
        deadband = found.deadband if found is not None else 0.0
        snapshot_s = found.snapshot_s if found is not None else _DEFAULT_SNAPSHOT_S
        mode: Mode = "deadband"
        for rule in self._rules:
            if fnmatchcase(info.device, rule.device) and fnmatchcase(info.point, rule.point):
                mode = rule.mode
                deadband = rule.deadband if rule.deadband is not None else deadband
                snapshot_s = rule.snapshot_s if rule.snapshot_s is not None else snapshot_s
        return ReportPolicy(mode, round(deadband * 10**info.decimals), round(snapshot_s * 1000))


def _point(kind: DeviceType | None, name: str) -> Point | None:
    return None if kind is None else _points(kind.id).get(name)


@cache
def _points(type_id: str) -> Mapping[str, Point]:
    return {point.name: point for point in load(type_id).points}
