"""Recorded real streams, replayed by the simulator as HJ 212 uploads and Modbus registers, come out as recorded.

Air quality of a Beijing station (hourly PM10, PM2.5, temperature) and the flow of a real pump loop go through device
bytes, codec, connector and outbox; what waits there for the cloud must be the recording at the device's resolution.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from citybrain_cli.story import play
from edge.config import ReportRule
from edge.outbox import Outbox
from protocols.core.model import Quality
from protocols.uplink import batch as wire

STREAMS = Path(__file__).parents[3] / "shared" / "streams"
AIR, PUMP = "air_beijing/Aotizhongxin.csv.gz", "skab/anomaly-free.csv.gz"
STEP_S, MINUTES = 10, 20
FIRST_ROW = 2000

SCENE = f"""
id = "replay"
zh = "真实记录回放"
en = "recorded streams replayed"
start = "2026-03-02T08:00:00+08:00"
duration_s = {MINUTES * 60}

[[bus]]
id = "air"
kind = "hj212-client"

[[device]]
id = "dust"
type = "env/dust_station"
bus = "air"
mn = "010000A8900016F000169DC0"
interval_s = {STEP_S}
[device.signals]
pm10 = {{ replay = "{AIR}", column = "PM10", step_s = {STEP_S}, row = {FIRST_ROW} }}
pm25 = {{ replay = "{AIR}", column = "PM2.5", step_s = {STEP_S}, row = {FIRST_ROW} }}
temperature = {{ replay = "{AIR}", column = "TEMP", step_s = {STEP_S}, row = {FIRST_ROW} }}

[[bus]]
id = "pump"
kind = "modbus-rtu"

[[device]]
id = "main"
type = "water/main_pressure"
bus = "pump"
address = 3
[device.signals]
flow = {{ replay = "{PUMP}", column = "Volume Flow RateRMS", step_s = {STEP_S} }}
pressure = {{ base = 0.35 }}
"""


def _column(path: str, name: str, delimiter: str) -> list[float]:
    with gzip.open(STREAMS / path, "rt", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file, delimiter=delimiter)
        return [float(row[name]) if row[name] not in ("", "NA") else float("nan") for row in rows]


@pytest.mark.skipif(not (STREAMS / AIR).exists(), reason="../shared/streams is not beside the project")
def test_recorded_streams_arrive_as_recorded(tmp_path: Path) -> None:
    story = tmp_path / "replay.toml"
    story.write_text(SCENE, encoding="utf-8")
    played = play(
        story,
        tmp_path,
        pack_id="urban_mgmt/construction_site",
        streams=STREAMS,
        report=(ReportRule(device="*", mode="all"),),
    )
    assert played.scene.start_ms is not None
    got = _readings(played.outbox)
    for point, path, name, delimiter, decimals, first in (
        ("dust/pm10", AIR, "PM10", ",", 1, FIRST_ROW),
        ("dust/pm25", AIR, "PM2.5", ",", 1, FIRST_ROW),
        ("dust/temperature", AIR, "TEMP", ",", 1, FIRST_ROW),
        ("main/flow", PUMP, "Volume Flow RateRMS", ";", 2, 0),
    ):
        recorded = _column(path, name, delimiter)
        readings = got[point]
        assert len(readings) >= MINUTES * 60 // STEP_S - 1, point
        for ts_ms, value in readings:
            row = first + (ts_ms - played.scene.start_ms) // 1000 // STEP_S
            assert value == pytest.approx(recorded[row], abs=0.5001 * 10**-decimals, nan_ok=True), (point, ts_ms)


def _readings(path: Path) -> dict[str, list[tuple[int, float]]]:
    outbox = Outbox(path, now_ms=0)
    names = {d.alias: d for d in outbox.series()}
    codes = {alias: d.code for alias, d in names.items()}
    out: dict[str, list[tuple[int, float]]] = {}
    for row in outbox.rows("data", 0, limit=1_000_000):
        found = wire.decode(wire.open_envelope(row.payload), codes).readings
        for alias in np.unique(found.alias).tolist():
            own = found.alias == alias
            quality = found.quality[own]
            values = wire.to_float(found.integer[own], quality, names[alias].decimals)
            assert ((quality == Quality.GOOD) | (quality == Quality.MISSING)).all()
            key = f"{names[alias].device}/{names[alias].point}"
            out.setdefault(key, []).extend(zip(found.ts_ms[own].tolist(), values.tolist(), strict=True))
    outbox.close()
    return out
