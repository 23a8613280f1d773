"""A small district in a database: three gateways of Hefei, 45 devices, hours of readings, alarms and cases.

Everything hangs on one ``now`` and one seed, so a test may expect exact figures. Places are real quarters, devices
and names are invented.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import cv2
import numpy as np
import psycopg
from psycopg.rows import TupleRow

from cloud.alarms.model import AlarmChange
from cloud.alarms.service import load_alarm
from cloud.cases.opening import open_for
from cloud.cases.policy import CasePolicy
from cloud.cases.service import act
from protocols.devices import all_types

HOURS = 6


@dataclass(frozen=True)
class Site:
    gateway: str
    zh: str
    en: str
    lon: float
    lat: float


SITES = (
    Site("gw-baohe-01", "包河区 滨湖科学城工地", "Baohe, Binhu construction site", 117.292, 31.742),
    Site("gw-shushan-01", "蜀山区 政务文化片区", "Shushan, government and culture quarter", 117.221, 31.818),
    Site("gw-luyang-01", "庐阳区 老城管网", "Luyang, old town pipe network", 117.281, 31.869),
)

#: (site, device type, how many, zh, en)
_FLEET = (
    (0, "env/dust_station", 3, "扬尘站", "Dust station"),
    (0, "env/noise_meter", 4, "噪声计", "Noise meter"),
    (0, "crane/tower_crane", 4, "塔机", "Tower crane"),
    (0, "camera", 2, "工地摄像机", "Site camera"),
    (0, "meter/electricity_three_phase", 2, "工地电表", "Site power meter"),
    (1, "camera", 4, "消防通道摄像机", "Fire lane camera"),
    (1, "gas/combustible", 5, "可燃气探测器", "Gas detector"),
    (1, "meter/electricity_three_phase", 5, "配电间电表", "Switch room meter"),
    (1, "water/main_pressure", 2, "供水管压", "Water main sensor"),
    (2, "gas/main_pressure", 5, "燃气管压", "Gas main sensor"),
    (2, "gas/combustible", 4, "窨井可燃气", "Manhole gas detector"),
    (2, "water/main_pressure", 3, "供水管压", "Water main sensor"),
    (2, "env/dust_station", 2, "空气站", "Air station"),
)

_BASE = {
    "pm10": (86, 14), "pm25": (41, 6), "tsp": (152, 22), "wind_speed": (2.4, 0.7), "wind_dir": (140, 12),
    "temperature": (17, 0.6), "humidity": (61, 2), "laeq": (63, 2.5), "lamax": (72, 3), "status": (0, 0),
    "load": (3.1, 1.1), "moment_pct": (58, 9), "radius": (31, 4), "angle": (120, 30), "height": (42, 0.1),
    "ch4_lel": (1.2, 0.5), "pressure": (0.302, 0.003), "flow": (118, 9), "energy_active": (48210, 0),
    "voltage_a": (229.6, 0.8), "voltage_b": (230.4, 0.8), "voltage_c": (228.9, 0.8), "current_a": (41, 4),
    "current_b": (39, 4), "current_c": (43, 4), "power_active": (26.4, 2.2), "power_factor": (0.943, 0.008),
    "frequency": (50.0, 0.02),
}  # fmt: skip

Conn = psycopg.Connection[TupleRow]


def fill(conn: Conn, now: datetime) -> None:
    """Fill an empty database that has the core's schema."""
    rng = random.Random(20260302)
    for number, site in enumerate(SITES):
        health = {
            "cpu_pct": 21.5 + 9 * number, "memory_mb": 212 + 31 * number, "disk_free_mb": 18234 - 912 * number,
            "outbox_event_batches": 0, "outbox_data_batches": (2, 0, 1840)[number], "outbox_backfill_batches": 0,
            "outbox_oldest_s": (1.2, 0, 5210)[number], "link_up": 1, "at_ms": int(now.timestamp() * 1000) - 12_000,
        }  # fmt: skip
        conn.execute(
            "insert into gateway values (%s, %s, %s, %s, %s, %s, %s, true, %s, %s, %s, '0.1.0', 1772400000)",
            [site.gateway, 7 + number, site.zh, site.en, site.lon, site.lat, now - timedelta(days=40),
             now - timedelta(hours=5), json.dumps(health), now - timedelta(seconds=12 + 9 * number)],
        )  # fmt: skip
        _lanes(conn, site.gateway, number, now)
        _latencies(conn, site.gateway, rng)
    devices = _devices(conn, rng, now)
    _series(conn, devices, rng, now)
    stills = _stills(conn, now)
    _events_and_alarms(conn, now, stills)
    _cases(conn, now)
    conn.execute(
        "insert into dead_letter (received_at, topic, gateway_id, epoch, lane, seq, reason, detail, size_bytes,"
        " payload) values (%s, 'cb/v1/9/gw-luyang-01/up/data', 'gw-luyang-01', 1772400000, 'data', 9051, 'decode',"
        " 'zstd frame is cut short', 812, %s)",
        [now - timedelta(hours=3), b"\x28\xb5\x2f\xfd"],
    )
    conn.execute("analyze")


def _lanes(conn: Conn, gateway: str, number: int, now: datetime) -> None:
    for lane, seq, readings, events in (
        ("event", 312 + number * 40, 0, 498 + number * 33),
        ("data", 21480 - number * 3000, 4_812_330 - number * 911_204, 0),
        ("backfill", (0, 88, 960)[number], (0, 41_022, 388_210)[number], 0),
        ("evidence", 24, 0, 0),
    ):
        if seq:
            conn.execute(
                "insert into lane_cursor values (%s, 1772400000, %s, %s, %s, %s, %s, %s, 0, %s, %s, %s)",
                [gateway, lane, seq, seq, readings, events, readings * 3 + events * 240,
                 1280 if number == 2 and lane == "data" else 0, (3, 0, 41)[number] if lane == "data" else 0,
                 now - timedelta(seconds=4 if lane == "data" else 600)],
            )  # fmt: skip


def _latencies(conn: Conn, gateway: str, rng: random.Random) -> None:
    for kind, typical_ms in (("sensor_to_commit", 900), ("sensor_to_alarm", 420)):
        buckets = [0] * 260
        for _ in range(4000):
            buckets[int(math.log(typical_ms * rng.lognormvariate(0, 0.4)) / math.log(1.05))] += 1
        conn.execute("insert into latency values (%s, %s, %s)", [gateway, kind, buckets])


def _devices(conn: Conn, rng: random.Random, now: datetime) -> list[tuple[str, str]]:
    out = []
    numbers: dict[str, int] = {}
    for site_no, type_, count, zh, en in _FLEET:
        site = SITES[site_no]
        for _ in range(count):
            stem = f"{site.gateway.split('-')[1]}-{type_.rpartition('/')[2].replace('_', '-')}"
            numbers[stem] = numbers.get(stem, 0) + 1
            device = f"{stem}-{numbers[stem]}"
            out.append((device, type_))
            online: bool | None = True
            seen: datetime | None = now - timedelta(seconds=rng.uniform(2, 50))
            detail = ""
            if device == "luyang-combustible-4":
                online, seen = None, None  # never heard of
            elif device == "luyang-main-pressure-2":
                seen = now - timedelta(minutes=26)  # silent for longer than three intervals
            elif device == "baohe-noise-meter-4":
                online, seen, detail = False, now - timedelta(hours=2), "timeout"
            conn.execute(
                "insert into device values (%s, %s, %s, %s, %s, %s, %s, null, %s, %s, %s, %s)",
                [device, site.gateway, type_, f"{numbers[stem]}号{zh}", f"{en} {numbers[stem]}",
                 site.lon + rng.gauss(0, 0.011), site.lat + rng.gauss(0, 0.008), online,
                 None if online is None else now - timedelta(hours=5), detail, seen],
            )  # fmt: skip
    return out


def _series(conn: Conn, devices: list[tuple[str, str]], rng: random.Random, now: datetime) -> None:
    types = {t.id: t for t in all_types()}
    noise = np.random.default_rng(20260302)
    rows: list[tuple[Any, ...]] = []
    for device, type_ in devices:
        if type_ not in types or device == "luyang-combustible-4":
            continue
        end = now - timedelta(seconds=rng.uniform(3, 50))
        end -= timedelta(minutes=26) if device == "luyang-main-pressure-2" else timedelta(0)
        end -= timedelta(hours=2) if device == "baohe-noise-meter-4" else timedelta(0)
        step_s = 5 if device in ("baohe-noise-meter-1", "baohe-tower-crane-2") else 60
        count = HOURS * 3600 // step_s
        for point in types[type_].points:
            found = conn.execute(
                "insert into series (device_id, point, unit, decimals) values (%s, %s, %s, %s) returning series_id",
                [device, point.name, point.unit, point.decimals],
            ).fetchone()
            assert found is not None
            base, sigma = _BASE.get(point.name, (10, 1))
            back = np.arange(count)[::-1] * step_s
            wave = np.sin((back / 3600 + len(device)) / 1.7) * sigma * 1.5
            walk = np.convolve(noise.normal(0, sigma, count + 8), np.full(9, 1 / 9), "valid") * 2
            values = base + wave + walk
            if point.name == "energy_active":
                values = base - back / 3600 * 26.4
            if device == "baohe-noise-meter-1" and point.name in ("laeq", "lamax"):
                values = values + np.where(back < 1900, 12.0, 0.0)
            if device == "baohe-dust-station-1" and point.name in ("pm10", "tsp"):
                values = values + np.clip(2400 - back, 0, None) / 12
            if device == "baohe-tower-crane-2" and point.name == "moment_pct":
                values = values + np.where(back < 540, 42.0, 0.0)
            if point.name == "wind_dir":
                values = values % 360
            low, high = point.range
            values = np.round(np.clip(values, low, high), point.decimals)
            calibrating = device == "baohe-dust-station-2"
            for ago_s, value in zip(back.tolist(), values.tolist(), strict=True):
                quality = 3 if calibrating and 3000 < ago_s < 4200 else 0
                rows.append((found[0], end - timedelta(seconds=ago_s), value, 120, quality))
            last_quality = 1 if device == "luyang-dust-station-2" and point.name == "humidity" else rows[-1][4]
            conn.execute("insert into last_value values (%s, %s, %s, %s)", [found[0], end, rows[-1][2], last_quality])
    with conn.cursor() as cur, cur.copy("copy reading (series_id, ts, value, lag_ms, quality) from stdin") as copy:
        for row in rows:
            copy.write_row(row)


def _stills(conn: Conn, now: datetime) -> dict[str, str]:
    out = {}
    for name, masked in (("lane", True), ("crane", True), ("unmasked", False)):
        content = _jpeg(name)
        sha = hashlib.sha256(content).hexdigest()
        conn.execute(
            "insert into evidence values (%s, 'image/jpeg', 'still', %s, %s, 'shushan-camera-1', %s, %s)",
            [sha, masked, len(content), now - timedelta(minutes=9), content],
        )
        out[name] = sha
    return out


def _jpeg(name: str) -> bytes:
    """A drawn street with a van in the lane; its plate is masked, as in every frame that leaves a gateway."""
    rng = np.random.default_rng(len(name))
    image = np.zeros((540, 960, 3), np.uint8)
    image[:230] = np.linspace((96, 84, 74), (150, 140, 128), 230).astype(np.uint8)[:, None]
    image[230:] = (74, 74, 76)
    for x in range(0, 960, 120):
        top = 60 + (x * 37) % 70
        cv2.rectangle(image, (x, top), (x + 112, 230), (98, 92, 88), -1)
        for wy in range(top + 14, 215, 30):
            for wx in range(x + 10, x + 100, 26):
                lit = (wx * 7 + wy * 13) % 5 == 0
                cv2.rectangle(image, (wx, wy), (wx + 14, wy + 16), (120, 190, 225) if lit else (70, 62, 56), -1)
    lane = np.array([[250, 540], [400, 230], [560, 230], [760, 540]])
    cv2.fillPoly(image, [lane], (88, 88, 92))
    for line in ([(250, 540), (400, 230)], [(760, 540), (560, 230)]):
        cv2.line(image, line[0], line[1], (60, 190, 235), 6, cv2.LINE_AA)
    if name == "crane":
        cv2.line(image, (640, 500), (640, 40), (40, 160, 230), 14)
        cv2.line(image, (300, 70), (900, 70), (40, 160, 230), 10)
        cv2.line(image, (380, 70), (380, 330), (30, 30, 30), 2)
        cv2.rectangle(image, (350, 330), (410, 380), (60, 70, 120), -1)
    else:
        cv2.rectangle(image, (410, 285), (620, 450), (214, 214, 210), -1)
        cv2.rectangle(image, (428, 300), (602, 355), (92, 80, 66), -1)
        cv2.rectangle(image, (425, 440), (465, 470), (28, 28, 28), -1)
        cv2.rectangle(image, (565, 440), (605, 470), (28, 28, 28), -1)
        if name == "lane":
            patch = image[402:430, 470:560]
            patch[:] = cv2.resize(rng.integers(90, 200, (3, 9, 3), dtype=np.uint8), (90, 28), interpolation=0)
        cv2.rectangle(image, (402, 276), (628, 478), (60, 120, 240), 3)
    noise = rng.normal(0, 5, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1])


#: key, scenario, type, device, point, level, peak, state, minutes ago, values, still
ALARMS: tuple[tuple[str, str, str, str, str, str, str, str, float, dict[str, Any], str], ...] = (
    ("gas-2", "urban_mgmt/underground_pipeline", "gas.leak.high", "shushan-combustible-2", "ch4_lel", "red", "red",
     "raised", 0.4, {"q": "ch4_lel", "x": 52.4, "limit": 50, "unit": "%LEL"}, ""),
    ("crane-2", "urban_mgmt/construction_site", "crane.overload", "baohe-tower-crane-2", "moment_pct", "orange",
     "orange", "raised", 6, {"q": "moment_pct", "x": 103.8, "limit": 100, "unit": "%"}, "crane"),
    ("lane-1", "community/fire_lane", "vision.lane.blocked", "shushan-camera-1", "", "yellow", "yellow", "raised", 9,
     {"cls": "vehicle", "dwell_s": 184, "clear_width_m": 2.4, "limit": 4.0}, "lane"),
    ("noise-1", "urban_mgmt/construction_site", "env.noise.exceed", "baohe-noise-meter-1", "laeq", "yellow", "yellow",
     "acknowledged", 28, {"q": "laeq", "x": 75.2, "limit": 55, "unit": "dB", "win_s": 300}, ""),
    ("dust-1", "urban_mgmt/construction_site", "env.dust.exceed", "baohe-dust-station-1", "pm10", "yellow", "yellow",
     "acknowledged", 21, {"q": "pm10", "x": 268.0, "limit": 150, "unit": "ug/m3", "win_s": 900}, ""),
    ("main-2", "urban_mgmt/underground_pipeline", "dev.stale", "luyang-main-pressure-2", "", "blue", "blue", "raised",
     23, {"code": "stale", "since": "26 min"}, ""),
    ("noise-4", "urban_mgmt/construction_site", "dev.offline", "baohe-noise-meter-4", "", "blue", "blue",
     "acknowledged", 118, {"code": "timeout"}, ""),
    ("crane-1", "urban_mgmt/construction_site", "crane.overload", "baohe-tower-crane-1", "moment_pct", "orange",
     "orange", "cleared", 190, {"q": "moment_pct", "x": 101.2, "limit": 100, "unit": "%"}, ""),
    ("lane-3", "community/fire_lane", "vision.lane.blocked", "shushan-camera-3", "", "yellow", "yellow", "cleared",
     240, {"cls": "vehicle", "dwell_s": 312, "clear_width_m": 2.1}, "lane"),
    ("gas-5", "urban_mgmt/underground_pipeline", "gas.leak.low", "luyang-combustible-1", "ch4_lel", "orange",
     "orange", "cleared", 300, {"q": "ch4_lel", "x": 27.1, "limit": 25, "unit": "%LEL"}, ""),
)  # fmt: skip


def alarm_id(key: str) -> str:
    return f"alarm-{key}"


def _events_and_alarms(conn: Conn, now: datetime, stills: dict[str, str]) -> None:
    for key, scenario, type_, device, point, level, peak, state, ago_min, values, still in ALARMS:
        onset = now - timedelta(minutes=ago_min)
        evidence = [{"sha256": stills[still], "kind": "still", "masked": True, "mime": "image/jpeg"}] if still else []
        gateway = f"gw-{device.split('-')[0]}-01"
        taken = None if state == "raised" else onset + timedelta(minutes=2)
        conn.execute(
            'insert into alarm (alarm_id, key, scenario, type, gateway_id, device_id, point, level, peak_level, state,'
            ' onset_at, raised_at, updated_at, acked_at, acked_by, cleared_at, "values", evidence)'
            " values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [alarm_id(key), key, scenario, type_, gateway, device, point, level, peak, state, onset, onset, onset,
             taken, "王敏" if taken else None, onset + timedelta(minutes=18) if state == "cleared" else None,
             json.dumps(values), json.dumps(evidence)],
        )  # fmt: skip
        _event(conn, f"e-{key}-raise", gateway, onset, type_, level, "raise", key, scenario, device, point, values)
        if state == "cleared":
            _event(conn, f"e-{key}-clear", gateway, onset + timedelta(minutes=18), type_, level, "clear", key, scenario,
                   device, point, values)  # fmt: skip
    for number in range(24):
        _event(conn, f"e-info-{number}", "gw-baohe-01", now - timedelta(minutes=13 * number + 3), "data.out_of_range",
               "info", "", "", "", "baohe-dust-station-1", "pm10", {"q": "pm10", "x": 9999})  # fmt: skip


def _event(
    conn: Conn, id_: str, gateway: str, ts: datetime, type_: str, level: str, state: str, key: str, scenario: str,
    device: str, point: str, values: dict[str, Any],
) -> None:  # fmt: skip
    conn.execute(
        "insert into event (event_id, gateway_id, ts, seen_at, type, level, state, key, scenario, device_id, point,"
        ' "values") values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)',
        [id_, gateway, ts, ts, type_, level, state, key, scenario, device, point, json.dumps(values)],
    )


#: alarm key, case type, department, limits (accept, onsite, close hours), steps: (action, who, minutes after opening)
_CASES: tuple[tuple[str, str, str, tuple[float, float, float], tuple[tuple[str, str, float], ...]], ...] = (
    ("gas-2", "pipeline_hazard", "operator", (0.1, 0.5, 24), ()),
    ("crane-2", "site_nuisance", "housing", (0.5, 2, 24), (("accept", "王敏", 1.5), ("file", "王敏", 2),
                                                          ("dispatch", "王敏", 2.5))),
    ("lane-1", "fire_lane", "street", (0.25, 0.5, 2), ()),
    ("crane-1", "site_nuisance", "housing", (0.5, 2, 24), (("accept", "王敏", 4), ("file", "王敏", 5),
     ("dispatch", "王敏", 6), ("start", "李强", 41), ("feed_back", "李强", 96))),
    ("lane-3", "fire_lane", "street", (0.25, 0.5, 2), (("accept", "王敏", 3), ("file", "王敏", 3.5),
     ("dispatch", "王敏", 4), ("start", "赵磊", 19), ("feed_back", "赵磊", 33), ("check", "王敏", 47),
     ("close", "王敏", 48))),
    ("gas-5", "pipeline_hazard", "operator", (0.1, 0.5, 24), (("confirm", "王敏", 3), ("respond", "王敏", 4),
     ("control", "孙浩", 52), ("recover", "孙浩", 80))),
)  # fmt: skip


def _cases(conn: Conn, now: datetime) -> None:
    """Opened and moved by the real services, at times of the past."""
    for key, type_, department, (accept, onsite, close), steps in _CASES:
        alarm = load_alarm(conn, alarm_id(key))
        policy = CasePolicy(
            scenario=alarm.scenario, type=type_, department=department, from_level="yellow",
            sla_h={"accept": accept, "onsite": onsite, "close": close}, support=("urban_mgmt",),
        )  # fmt: skip
        opened_ms = alarm.raised_ms + 800
        # A cleared alarm opened its case while it was raised.
        case = open_for(conn, AlarmChange("raised", replace(alarm, state="raised", cleared_ms=None)), policy, opened_ms)
        assert case is not None
        for action, who, after_min in steps:
            act(conn, case.case_id, action, who, now_ms=opened_ms + int(after_min * 60_000))


def case_id(conn: Conn, key: str) -> int:
    """The case that the alarm of that key opened."""
    found = conn.execute("select case_id from case_alarm where alarm_id = %s", [alarm_id(key)]).fetchone()
    assert found is not None
    return int(found[0])
