"""A small world for engine tests: one pack, some devices, samples said by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import numpy as np

from protocols import devices as device_types
from protocols.core.model import Event, Fact, Quality, SeriesBatch, SeriesInfo
from scenarios.engine import Engine
from scenarios.packs import bind, load, parse
from scenarios.packs.model import Pack

SHARED = Path(__file__).resolve().parents[3] / "shared"
SITE = "urban_mgmt/construction_site"
PIPES = "urban_mgmt/underground_pipeline"
LANE = "community/fire_lane"

#: (device, point, ts_ms, value, quality)
Sample = tuple[str, str, int, float, int]


def at(text: str) -> int:
    """Milliseconds of a local (UTC+8) time such as "2026-03-02 22:30:00"."""
    return round(datetime.fromisoformat(f"{text}+08:00").timestamp() * 1000)


class World:
    """One engine and the samples it is fed. ``types``: device -> device type, in the order series get their numbers."""

    def __init__(
        self,
        pack: str | Pack,
        roles: Mapping[str, Sequence[str]],
        place: Literal["edge", "cloud"] = "edge",
        params: Mapping[str, float] | None = None,
        *,
        add: bool = True,
    ) -> None:
        self.pack = load(pack) if isinstance(pack, str) else pack
        self.bound = bind(self.pack, roles, params)
        self.place: Literal["edge", "cloud"] = place
        self.infos = [
            SeriesInfo(device, point.name, point.unit, point.decimals, kind)
            for device, kind in self.bound.site.types.items()
            for point in device_types.load(kind).points
        ]
        self.index = {(info.device, info.point): i for i, info in enumerate(self.infos)}
        self.engine = self.new(add=add)

    def new(self, *, add: bool = True) -> Engine:
        engine = Engine([self.bound], self.place)
        if add:
            self.add_all(engine)
        return engine

    def add_all(self, engine: Engine) -> None:
        for i, info in enumerate(self.infos):
            engine.add_series(i, info)

    def batch(self, samples: Sequence[Sample]) -> SeriesBatch:
        return SeriesBatch(
            np.array([self.index[d, p] for d, p, *_ in samples], dtype=np.int32),
            np.array([s[2] for s in samples], dtype=np.int64),
            np.array([s[3] for s in samples], dtype=np.float64),
            np.array([s[4] for s in samples], dtype=np.uint8),
        )

    def feed(self, samples: Sequence[Sample], now_ms: int | None = None, engine: Engine | None = None) -> list[Event]:
        """One batch. ``now_ms`` left out: the newest time in it."""
        now = max((s[2] for s in samples), default=0) if now_ms is None else now_ms
        return (engine or self.engine).step(self.batch(samples), now)

    def run(
        self,
        device: str,
        point: str,
        start_ms: int,
        step_s: float,
        values: Iterable[float],
        quality: int = Quality.GOOD,
    ) -> list[Event]:
        """Samples at equal steps, one batch each."""
        events: list[Event] = []
        for i, value in enumerate(values):
            events += self.feed([(device, point, start_ms + round(i * step_s * 1000), value, quality)])
        return events


def samples(
    device: str, point: str, start_ms: int, step_s: float, values: Iterable[float], quality: int = Quality.GOOD
) -> list[Sample]:
    return [(device, point, start_ms + round(i * step_s * 1000), v, quality) for i, v in enumerate(values)]


def brief(events: Iterable[Event]) -> list[tuple[str, str, str]]:
    return [(event.type, event.state, event.level) for event in events]


def lane_fact(ts_ms: int, static_s: float, /, **more: float | str | bool) -> Fact:
    values: dict[str, float | int | str | bool] = {
        "cls": "vehicle",
        "static": static_s > 0,
        "static_s": static_s,
        "dwell_s": static_s + 5,
        "conf": 0.9,
        "area_m2": 8.0,
        "clear_width_m": 4.5,
        "box": "0.1,0.1,0.2,0.2",
        **more,
    }
    return Fact("cam", "zone.object", ts_ms, "lane", "t1", values)


def pack_with(rule: str, *, pack_id: str = SITE, needs: str = "") -> Pack:
    """The smallest valid pack around one ``[[rule]]``, for blocks no shipped pack uses that way."""
    text = f"""
[pack]
id = "{pack_id}"
version = "1.0.0"
zh = "试"
en = "test"
runs = "edge+cloud"
[needs.noise]
zh = "噪声"
en = "noise"
type = "env/noise_meter"
points = ["laeq", "lamax", "status"]
interval_s = {{ value = 60, unit = "s" }}
[needs.water]
zh = "水"
en = "water"
type = "water/main_pressure"
points = ["pressure", "flow"]
interval_s = {{ value = 10, unit = "s", site_override = true, min = 1, max = 60 }}
{needs}
{rule}
[case]
type = "site_nuisance"
department = "housing"
support = ["ecology"]
sla_h = {{ accept = 0.5, onsite = 2, close = 24 }}
from_level = "yellow"
kpis = ["x"]
[map]
zh = "图"
en = "map"
layer = "point"
"""
    return parse(text, pack_id=pack_id, where="test.toml")
