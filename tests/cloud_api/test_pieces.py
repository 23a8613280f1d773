"""The small machines inside: pool, hub, config, histogram, clusters."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from cloud.config import load
from cloud.query import spatial
from cloud.query.cursor import decode, encode
from cloud.query.fleet import outbox_depth, quantile_ms, stale_after
from cloud.query.live import Change, Hub, parse
from cloud.query.pool import Pool
from cloud.query.rows import MapPoint
from protocols.core.errors import ConfigError, ContractError, StoreError
from protocols.devices import load as load_type


def test_the_pool_bounds_and_heals(dsn: str) -> None:
    async def run() -> None:
        pool = Pool(dsn, 1, wait_s=0.05)
        async with pool.connection() as conn:
            pid = conn.info.backend_pid
            with pytest.raises(StoreError, match="no database connection became free"):
                async with pool.connection():
                    pass
        async with pool.connection() as conn:
            assert conn.info.backend_pid == pid  # handed out again
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s)", [pid])
        with pytest.raises(StoreError):
            async with pool.connection() as conn:
                await conn.execute("select 1")
        async with pool.connection() as conn:
            assert conn.info.backend_pid != pid
            await conn.execute("select 1")
        with pytest.raises(asyncio.CancelledError):
            async with pool.connection() as conn:
                pid = conn.info.backend_pid
                raise asyncio.CancelledError
        async with pool.connection() as conn:
            assert conn.info.backend_pid != pid  # one that was left in the middle is not reused
        await pool.close()

    asyncio.run(run())


def test_no_database_is_an_error_to_retry() -> None:
    async def run() -> None:
        async with Pool("host=/nowhere dbname=x").connection():
            pass

    with pytest.raises(StoreError) as raised:
        asyncio.run(run())
    assert raised.value.retry


def test_a_slow_subscriber_is_told_to_look_again_and_costs_no_memory() -> None:
    async def run() -> None:
        hub = Hub(Pool("host=/nowhere"))
        subscription = hub.subscribe()
        change = Change("alarm", "a")
        subscription.put(change)
        subscription.put(change)
        assert await subscription.wait(1)
        assert subscription.take() == [change]
        assert subscription.take() == [] and not await subscription.wait(0.01)
        for number in range(5000):
            subscription.put(Change("device", str(number)))
        assert subscription.take() is None  # everything may have changed
        subscription.put(change)
        assert subscription.take() == [change]

    asyncio.run(run())


@pytest.mark.parametrize("payload", ["", "[]", "{}", '{"kind": "x", "id": "1"}', '{"kind": "alarm"}', "null", "\x00"])
def test_strange_notifications_are_passed_over(payload: str) -> None:
    assert parse(payload) is None


def test_notifications() -> None:
    assert parse('{"kind": "case", "id": 12}') == Change("case", "12")


def test_cursors_are_checked() -> None:
    assert decode(encode([1, "甲", 2.5]), (int, str, float)) == [1, "甲", 2.5]
    assert decode(None, (int,)) is None
    for bad in ("x", "!!!!", encode(["text"]), encode([1, 2])):
        with pytest.raises(ContractError):
            decode(bad, (int,))


def test_quantiles_of_a_histogram() -> None:
    buckets = [0] * 200
    buckets[100] = 99  # 1.05**101 = 138 ms
    buckets[150] = 1
    assert quantile_ms(buckets, 0.5) == pytest.approx(1.05**101)
    assert quantile_ms(buckets, 0.99) == pytest.approx(1.05**101)
    assert quantile_ms(buckets, 0.999) == pytest.approx(1.05**151)
    assert quantile_ms([], 0.5) == 0.0


def test_outbox_depth_adds_the_lanes() -> None:
    assert outbox_depth({"outbox_event_batches": 1.0, "outbox_data_batches": 40.0, "cpu_pct": 9.0}) == 41
    assert outbox_depth({"cpu_pct": 9.0}) is None  # not said is not zero


def test_stale_follows_the_device_type() -> None:
    points = {p.name: p.snapshot_s for p in load_type("env/noise_meter").points}
    assert stale_after("env/noise_meter") == 3 * min(points.values())
    assert {p: stale_after("env/noise_meter", p) for p in points} == {p: 3 * s for p, s in points.items()}
    assert stale_after("camera") == 180.0 and stale_after("../../etc/passwd") == 180.0


def test_many_devices_are_folded_on_the_server(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("insert into gateway (gateway_id, shard, online) values ('gw', 1, true)")
        conn.execute(
            "insert into device (device_id, gateway_id, lon, lat, online, seen_at) select 'd' || i, 'gw', "
            "117.1 + (i % 100) * 0.003, 31.7 + (i / 100) * 0.003, true, now() from generate_series(0, 9999) i"
        )
        conn.execute(
            "insert into alarm (alarm_id, key, scenario, type, device_id, level, peak_level, state, onset_at) "
            "values ('a', 'k', 's', 'gas.leak.high', 'd4242', 'red', 'red', 'raised', now())"
        )

    async def run() -> tuple[list[MapPoint], list[MapPoint]]:
        pool = Pool(dsn)
        async with pool.connection() as conn:
            now = datetime.now(UTC)
            far = await spatial.map_points(conn, now, 117.0, 31.6, 117.5, 32.1)
            near = await spatial.map_points(conn, now, 117.2, 31.8, 117.25, 31.85)
        await pool.close()
        return far, near

    far, near = asyncio.run(run())
    assert len(far) < 900 and sum(p.count for p in far) == 10_000
    assert [p.open_alarms for p in far if p.level == "red"] == [1]
    assert all(p.count == 1 for p in near) and 200 < len(near) <= 600


def test_configuration(tmp_path: Path) -> None:
    path = tmp_path / "core.toml"
    path.write_text('dsn = "dbname=x"\nlisten = "[::1]:8600"\ntrusted_hosts = ["core.local"]\n')
    settings = load(path)
    assert (settings.host, settings.port, settings.trusted_hosts) == ("::1", 8600, ("core.local",))
    for text, word in (
        ('dsn = "x"\nlissen = "a:1"', "lissen"),
        ('listen = "a:1"', "dsn"),
        ('dsn = "x"\nlisten = "8600"', "listen"),
        ('dsn = "x"\nlisten = "a:99999"', "listen"),
        ('dsn = "x"\npool_size = 0', "pool_size"),
        ("dsn = ", "core.toml"),
    ):
        path.write_text(text)
        with pytest.raises(ConfigError, match=word) as raised:
            load(path)
        assert str(path) in str(raised.value)
