"""What the API tells: truthful states, pages without gaps, curves that keep their spikes."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.types.json import Jsonb

from cloud.query import disks
from cloud.query.pool import Pool
from cloud.query.sight import Sight
from tests.cloud_api import city
from tests.cloud_api.conftest import Core


def pages(client: httpx.Client, path: str, **params: Any) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    cursor = None
    while True:
        answer = client.get(path, params=params | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        body = answer.json()
        out += body["items"]
        cursor = body["next_cursor"]
        if cursor is None:
            return out


@pytest.mark.parametrize(
    ("path", "key", "params"),
    [
        ("/devices", "device_id", {}),
        ("/devices", "device_id", {"order": "worst"}),
        ("/alarms", "alarm_id", {"state": ["raised", "acknowledged", "cleared"]}),
        ("/cases", "case_id", {}),
        ("/events", "event_id", {}),
        ("/gateways", "gateway_id", {}),
    ],
)
def test_small_pages_give_the_same_list_as_one_large_page(
    viewer: httpx.Client, path: str, key: str, params: dict[str, Any]
) -> None:
    whole = [row[key] for row in pages(viewer, path, limit=500, **params)]
    assert len(whole) > 2
    assert len(set(whole)) == len(whole)
    for limit in (1, 3):
        assert [row[key] for row in pages(viewer, path, limit=limit, **params)] == whole


def test_devices_never_look_better_than_what_is_known(viewer: httpx.Client) -> None:
    states = {row["device_id"]: row for row in pages(viewer, "/devices", limit=500)}
    assert len(states) == 45
    assert states["luyang-combustible-4"]["state"] == "unknown"
    assert states["luyang-combustible-4"]["age_s"] is None
    assert states["luyang-main-pressure-2"]["state"] == "stale"
    assert states["luyang-main-pressure-2"]["age_s"] > 1500
    assert states["baohe-noise-meter-4"]["state"] == "offline"
    assert states["baohe-camera-1"]["state"] == "online"  # it has no series and is not expected to send readings
    filtered = pages(viewer, "/devices", state="unknown")
    assert [row["device_id"] for row in filtered] == ["luyang-combustible-4"]


def test_a_silent_gateway_makes_its_devices_unknown(core: Core, viewer: httpx.Client) -> None:
    with core.db() as conn:
        conn.execute("update gateway set online = false where gateway_id = 'gw-shushan-01'")
        try:
            states = {row["state"] for row in pages(viewer, "/devices", gateway="gw-shushan-01")}
            assert states == {"unknown"}
            assert viewer.get("/gateways/gw-shushan-01").json()["gateway"]["state"] == "offline"
        finally:
            conn.execute("update gateway set online = true where gateway_id = 'gw-shushan-01'")


def test_last_values_carry_age_and_quality(viewer: httpx.Client) -> None:
    values = {v["point"]: v for v in viewer.get("/devices/luyang-dust-station-2").json()["values"]}
    assert values["humidity"]["quality"] == 1
    assert values["pm10"]["quality"] == 0
    assert 0 < values["pm10"]["age_s"] < 600
    stale = viewer.get("/devices/luyang-main-pressure-2").json()["values"]
    assert all(v["stale"] for v in stale)


def test_search_takes_wildcards_for_what_they_are(viewer: httpx.Client) -> None:
    assert pages(viewer, "/devices", text="%") == []
    assert pages(viewer, "/devices", text="_") == []
    assert len(pages(viewer, "/devices", text="noise")) == 4
    assert len(pages(viewer, "/devices", text="塔机")) == 4


def test_a_long_curve_is_thinned_and_keeps_its_extremes(core: Core, viewer: httpx.Client) -> None:
    with core.db() as conn:
        series, low, high, count = conn.execute(
            "select s.series_id, min(value), max(value), count(*) from series s join reading using (series_id) "
            "where device_id = 'baohe-noise-meter-1' and point = 'laeq' group by 1"
        ).fetchone() or (None, None, None, None)
        # One sample stands out; a mean or every n-th would lose it.
        conn.execute("insert into reading values (%s, %s, 149.5, 0, 0)", [series, core.now - timedelta(minutes=133)])
    span = {"from": (core.now - timedelta(hours=7)).isoformat(), "to": core.now.isoformat()}
    full = viewer.get(f"/series/{series}/readings", params=span).json()
    assert full["thinned"] and full["rows"] == int(str(count)) + 1
    assert len(full["ts_ms"]) <= 2000
    assert full["ts_ms"] == sorted(full["ts_ms"])
    assert max(full["values"]) == 149.5 and min(full["values"]) == low
    assert high is not None and float(str(high)) < 149.5
    short = span | {"from": (core.now - timedelta(minutes=5)).isoformat()}
    raw = viewer.get(f"/series/{series}/readings", params=short).json()
    assert not raw["thinned"] and 50 <= len(raw["values"]) <= 61
    few = viewer.get(f"/series/{series}/readings", params=span | {"max_points": 10}).json()
    assert len(few["ts_ms"]) <= 12 and max(few["values"]) == 149.5


def test_a_missing_value_stays_missing(core: Core, viewer: httpx.Client) -> None:
    with core.db() as conn:
        row = conn.execute(
            "insert into series (device_id, point) values ('baohe-camera-1', 'gap') returning series_id"
        ).fetchone()
        assert row is not None
        at = core.now - timedelta(days=3)
        for second, value in enumerate((1.0, None, 3.0)):
            conn.execute(
                "insert into reading values (%s, %s, %s, 0, %s)",
                [row[0], at + timedelta(seconds=second), value, 5 if value is None else 0],
            )
        span = {"from": (at - timedelta(minutes=1)).isoformat(), "to": (at + timedelta(minutes=1)).isoformat()}
        body = viewer.get(f"/series/{row[0]}/readings", params=span).json()
        conn.execute("delete from reading where series_id = %s", [row[0]])
        conn.execute("delete from series where series_id = %s", [row[0]])
    assert body["values"] == [1.0, None, 3.0] and body["quality"] == [0, 5, 0]


def test_the_queue_has_waiting_and_red_on_top(viewer: httpx.Client) -> None:
    rows = pages(viewer, "/alarms", limit=500)
    assert rows[0]["alarm_id"] == city.alarm_id("gas-2")
    rank = {"red": 0, "orange": 1, "yellow": 2, "blue": 3}
    order = [(row["state"] != "raised", rank[row["level"]]) for row in rows]
    assert order == sorted(order)
    assert rows[0]["take_due"] is not None and rows[0]["case_number"].startswith("HF-pipeline_hazard-")
    only = pages(viewer, "/alarms", level=["blue"])
    assert {row["level"] for row in only} == {"blue"} and len(only) == 2


def test_events_by_family_and_time(core: Core, viewer: httpx.Client) -> None:
    crane = pages(viewer, "/events", type="crane.*")
    assert {e["type"] for e in crane} == {"crane.overload"} and len(crane) == 3
    recent = pages(viewer, "/events", **{"from": (core.now - timedelta(minutes=10)).isoformat()})
    told = {e["event_id"] for e in recent if not e["type"].startswith("wf.")}  # other tests move cases meanwhile
    assert told == {"e-gas-2-raise", "e-crane-2-raise", "e-lane-1-raise", "e-info-0"}


def test_nothing_lost_is_counted_not_assumed(core: Core, viewer: httpx.Client) -> None:
    body = viewer.get("/summary").json()
    assert body["lost"] == 0 and body["dead_letters"] == 1 and body["thinned"] == 1280
    assert body["open_by_level"] == {"red": 1, "orange": 1, "yellow": 3, "blue": 2}
    with core.db() as conn:
        conn.execute("update lane_cursor set seq = seq + 7 where gateway_id = 'gw-baohe-01' and lane = 'data'")
        try:
            assert viewer.get("/summary").json()["lost"] == 7
            lanes = viewer.get("/gateways/gw-baohe-01").json()["lanes"]
            assert {lane["lane"]: lane["lost"] for lane in lanes} == {"event": 0, "data": 7, "evidence": 0}
        finally:
            conn.execute("update lane_cursor set seq = seq - 7 where gateway_id = 'gw-baohe-01' and lane = 'data'")


def test_latency_quantiles(viewer: httpx.Client) -> None:
    found = {x["kind"]: x for x in viewer.get("/gateways/gw-baohe-01").json()["latencies"]}
    assert 840 < found["sensor_to_commit"]["p50_ms"] < 980
    assert found["sensor_to_commit"]["p99_ms"] > 1900
    assert found["sensor_to_commit"]["count"] == 4000


def test_dead_letters_say_why(viewer: httpx.Client) -> None:
    rows = pages(viewer, "/dead-letters")
    assert [(r["reason"], r["seq"]) for r in rows] == [("decode", 9051)]
    assert "payload" not in rows[0]
    assert pages(viewer, "/dead-letters", gateway="gw-baohe-01") == []


def test_only_masked_stills_are_given_out(core: Core, viewer: httpx.Client) -> None:
    with core.db() as conn:
        masked = conn.execute("select sha256 from evidence where masked limit 1").fetchone()
        unmasked = conn.execute("select sha256 from evidence where not masked limit 1").fetchone()
    assert masked and unmasked
    answer = viewer.get(f"/evidence/{masked[0]}")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert answer.content[:3] == b"\xff\xd8\xff"
    refused = viewer.get(f"/evidence/{unmasked[0]}")
    assert refused.status_code == 403 and refused.json()["code"] == "evidence.unmasked"
    assert viewer.get(f"/evidence/{'0' * 64}").status_code == 404
    assert viewer.get("/evidence/../../etc/passwd").status_code == 404
    assert viewer.get("/evidence/xyz").status_code == 422


def test_the_description_names_every_route(core: Core, viewer: httpx.Client) -> None:
    paths = viewer.get("/openapi.json").json()["paths"]
    wanted = {
        "/gateways", "/devices", "/devices/{device_id}", "/series/{series_id}/readings", "/alarms",
        "/alarms/{alarm_id}",
        "/alarms/{alarm_id}/acknowledge", "/cases", "/cases/{case_id}", "/cases/{case_id}/actions", "/events",
        "/dead-letters", "/evidence/{sha256}", "/health", "/stream", "/login",
    }  # fmt: skip
    assert {f"/api/v1{p}" for p in wanted} <= set(paths)


def test_database_of_tests_is_the_real_schema(core: Core) -> None:
    with core.db() as conn, pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(
            "insert into alarm (alarm_id, key, scenario, type, device_id, level, peak_level, state, onset_at) "
            "select 'twice', key, scenario, type, device_id, level, level, 'raised', now() from alarm "
            "where alarm_id = 'alarm-gas-2'"
        )


def test_full_disks_are_known_by_what_was_said_lately(core: Core) -> None:
    async def ask(where: Sight) -> disks.Disks:
        pool = Pool(core.dsn)
        try:
            async with pool.connection() as conn:
                return await disks.tight(conn, sight=where)
        finally:
            await pool.close()

    def seen(*districts: str) -> disks.Disks:
        return asyncio.run(ask(Sight(frozenset(("*", district) for district in districts))))

    assert seen("*").fine
    with core.db() as conn:
        kept = conn.execute("select gateway_id, health, health_at from gateway").fetchall()
        conn.execute(
            "update gateway set health_at = now(), health = health || case gateway_id "
            "when 'gw-baohe-01' then '{\"disk_free_mb\": 499.5}'::jsonb "
            "when 'gw-shushan-01' then '{\"disk_free_mb\": 12}' else '{\"disk_free_mb\": [12]}' end"
        )
        try:
            found = seen("*")
            assert [(g.gateway_id, g.free_mb) for g in found.gateways] == [
                ("gw-shushan-01", 12.0),
                ("gw-baohe-01", 499.5),
            ]
            assert (found.core, found.count) == ("ok", 2)
            assert [g.gateway_id for g in seen("baohe").gateways] == ["gw-baohe-01"] and seen("luyang").fine
            conn.execute("update gateway set health_at = now() - interval '2 hours' where gateway_id = 'gw-baohe-01'")
            conn.execute("update gateway set online = false where gateway_id = 'gw-shushan-01'")
            assert seen("*").fine
        finally:
            conn.execute("update gateway set online = true")
            for id_, health, at in kept:
                conn.execute(
                    "update gateway set health = %s, health_at = %s where gateway_id = %s", [Jsonb(health), at, id_]
                )
