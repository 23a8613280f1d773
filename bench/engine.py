"""How fast the scenario engine is: all three packs on 10 000 series, against one bare NumPy compare.

    python bench/engine.py            -> one JSON line

The yardstick is ``values >= limit[series]`` over the same arrays in the same run: what no rule engine on columns can
undercut. ``quiet``: nothing near a limit, the normal day. ``alarms``: 1 % of the devices of every kind are beyond
theirs. ``unsorted``: each batch holds ten samples of every series (backlog).
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Iterator

import numpy as np

from protocols import devices as device_types
from protocols.core.model import Quality, SeriesBatch, SeriesInfo
from scenarios.engine import Engine
from scenarios.packs import bind, load_all, roles_for

SERIES = 10_000
START_MS = 1_772_416_800_000  # 2026-03-02 10:00 in China: day
KINDS = ("env/noise_meter", "env/dust_station", "crane/tower_crane", "gas/combustible", "gas/main_pressure",
         "water/main_pressure")  # fmt: skip
USUAL = {
    "laeq": 60.0, "lamax": 68.0, "pm10": 80.0, "pm25": 40.0, "tsp": 120.0, "moment_pct": 55.0, "ch4_lel": 4.0,
    "pressure": 0.35, "flow": 120.0, "wind_speed": 4.0, "temperature": 15.0, "humidity": 60.0,
}  # fmt: skip
BEYOND = {"laeq": 80.0, "pm10": 250.0, "moment_pct": 105.0, "ch4_lel": 60.0}


def city() -> tuple[Engine, list[SeriesInfo]]:
    """One engine with whole devices of each kind, about SERIES series."""
    infos: list[SeriesInfo] = []
    types: dict[str, str] = {}
    number = 0
    while len(infos) < SERIES:
        kind = KINDS[number % len(KINDS)]
        device = f"d{number}"
        types[device] = kind
        infos += [SeriesInfo(device, p.name, p.unit, p.decimals, kind) for p in device_types.load(kind).points]
        number += 1
    packs = [bind(pack, roles_for(pack, {**types, "cam": "camera"})) for pack in load_all()]
    engine = Engine(packs, "edge")
    for index, info in enumerate(infos):
        engine.add_series(index, info)
    return engine, infos


def batches(infos: list[SeriesInfo], rows: int, count: int, beyond: float, each: int) -> Iterator[SeriesBatch]:
    """``each`` samples of a series in a row of batches, a minute apart."""
    rng = np.random.default_rng(7)
    usual = np.array([USUAL.get(info.point, 10.0) for info in infos])
    hot = rng.random(len(infos)) < beyond
    over = np.array([BEYOND.get(info.point, np.nan) for info in infos])
    base = np.where(hot & np.isfinite(over), over, usual)
    minute = np.zeros(len(infos), dtype=np.int64)
    place = 0
    for _ in range(count):
        if each > 1:
            chosen = np.arange(place, place + rows // each) % len(infos)
            series = np.tile(chosen, each).astype(np.int32)
            step = np.repeat(np.arange(each), chosen.size)
            place += chosen.size
        else:
            # at most one sample of a series: a batch is what came in within a second
            series = (np.arange(place, place + min(rows, len(infos))) % len(infos)).astype(np.int32)
            step = np.zeros(series.size, dtype=np.int64)
            place += series.size
        ts = START_MS + (minute[series] + step) * 60_000
        np.maximum.at(minute, series, minute[series] + step + 1)
        values = np.round(base[series] * (1 + 0.01 * rng.standard_normal(series.size)), 3)
        yield SeriesBatch(series, ts, values, np.full(series.size, Quality.GOOD, dtype=np.uint8))


def measure(name: str, rows: int, beyond: float = 0.0, each: int = 1, total: int = 1_000_000) -> dict[str, object]:
    engine, infos = city()
    made = list(batches(infos, rows, max(total // rows, 13), beyond, each))
    limits = np.full(len(infos), 1e9)
    now_ms = START_MS + 10**10
    spent: list[float] = []
    bare: list[float] = []
    events = 0
    for batch in made:
        begun = time.perf_counter()
        found = engine.step(batch, now_ms)
        between = time.perf_counter()
        np.flatnonzero(batch.values >= limits[batch.series])
        bare.append(time.perf_counter() - between)
        spent.append(between - begun)
        events += len(found)
    warm = 3  # first contact: every series is new
    done = sum(len(batch) for batch in made[warm:])
    each_batch = len(made[0])
    return {
        "case": name,
        "rows_per_batch": each_batch,
        "rows": done,
        "rows_per_s": round(done / sum(spent[warm:])),
        "rows_per_s_median_batch": round(each_batch / statistics.median(spent[warm:])),
        "ratio_to_compare": round(statistics.median(spent[warm:]) / statistics.median(bare[warm:]), 1),
        "events": events,
        "looked_at_pct": round(100 * engine.counters["rows_looked_at"] / engine.counters["rows"], 3),
    }


def main() -> None:
    results = [
        measure("quiet", 1_000),
        measure("quiet", 10_000),
        measure("quiet, ten samples of each series", 100_000, each=10, total=3_000_000),
        measure("1 % of devices in alarm", 10_000, beyond=0.01),
    ]
    engine, _ = city()
    size = len(engine.snapshot())
    print(json.dumps({"bench": "engine", "machine": platform.processor() or platform.machine(), "series": SERIES,
                      "empty_snapshot_bytes": size, "results": results}, ensure_ascii=False))  # fmt: skip


if __name__ == "__main__":
    main()
