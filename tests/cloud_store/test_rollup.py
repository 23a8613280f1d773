"""Rollups, late data and retention on a real database: what a rollup says is what the readings say."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from cloud.store import rollup
from protocols.uplink.batch import ClockCorrection
from tests.cloud_store.bench import DAY, HOUR, HOUR_MS, START, T0_MS, Store, counted, rolled


@pytest.fixture
def store(dsn: str) -> Iterator[Store]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Store(dsn, conn)


def _same(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    def plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(pytest.approx(v) if isinstance(v, float) else v for v in row)

    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == plain(other)


def _some(chance: random.Random, first_ms: int, span_ms: int, number: int) -> list[tuple[int, int, int, int]]:
    """Distinct times; every quality."""
    times = chance.sample(range(first_ms, first_ms + span_ms), number)
    return [(n % 2, t, chance.randint(-500, 500), chance.choice([0, 0, 0, 1, 2, 5, 6])) for n, t in enumerate(times)]


def test_a_rollup_says_what_the_readings_say(store: Store) -> None:
    store.conn.execute("update retention_policy set m1_days = 30")
    chance = random.Random(4)
    for _ in range(26):
        store.commit(_some(chance, store.now_ms, HOUR_MS, 60))
        store.passes(HOUR)
    store.passes(timedelta(minutes=6))
    store.tidy()
    assert store.one("select done from rollup_state") == START + 26 * HOUR
    _same(rolled(store, "rollup_1m"), counted(store, timedelta(minutes=1)))
    _same(rolled(store, "rollup_1h"), counted(store, HOUR))
    days = counted(store, DAY)
    _same(rolled(store, "rollup_1d"), [row for row in days if row[1] == START])
    assert store.tidy() == {"slices": 0, "hours_anew": 0, "removed": 0}


def test_what_comes_late_is_in_the_rollups_of_its_hour_and_day(store: Store) -> None:
    store.conn.execute("update retention_policy set m1_days = 30")
    chance = random.Random(5)
    store.commit(_some(chance, T0_MS, 20 * HOUR_MS, 100))
    store.passes(3 * DAY)
    store.tidy()
    assert store.one("select count(*) from rollup_dirty") == 0
    store.commit(_some(chance, T0_MS + 2 * HOUR_MS, 30 * HOUR_MS, 100), lane="backfill")
    assert store.one("select count(*) from rollup_dirty") > 30
    assert store.tidy()["hours_anew"] > 30
    _same(rolled(store, "rollup_1m"), counted(store, timedelta(minutes=1)))
    _same(rolled(store, "rollup_1h"), counted(store, HOUR))
    _same(rolled(store, "rollup_1d"), counted(store, DAY))


def test_an_hour_is_not_made_before_everybody_knows_that_it_is_over(store: Store, dsn: str) -> None:
    """A worker is in the middle of a transaction while the mark moves: its readings must not be missed."""
    store.commit([(0, T0_MS + 1000, 10)])
    with psycopg.connect(dsn) as slow:
        slow.execute("insert into setting values ('x', '1')")  # has begun to write, and knows the old mark
        store.passes(2 * HOUR)
        assert rollup.move_mark(store.conn, store.now_ms)
        assert not rollup.settled(store.conn) and not rollup.make_slice(store.conn)
        slow.execute(
            "insert into reading (series_id, ts, value) select series_id, %s, 2.0 from series order by 1 limit 1",
            (START + timedelta(minutes=10),),
        )
        slow.commit()
    assert rollup.settled(store.conn)
    store.tidy()
    assert store.all("select n, total from rollup_1h") == [(2, 3.0)]


def test_a_correction_moves_readings_from_one_hour_to_another(store: Store) -> None:
    said = [(0, T0_MS + n * 60_000, n) for n in range(30)]
    store.commit(said, clock_run=7)
    store.commit([(0, T0_MS + 4 * HOUR_MS + 1000, 999, 0, 5000)], clock_run=7)  # the device's own time
    store.passes(8 * HOUR)
    store.tidy()
    told = ClockCorrection(T0_MS, T0_MS + HOUR_MS, 3 * HOUR_MS, 1000, "step", 7)
    store.commit([], lane="event", corrections=(told,))
    store.tidy()
    assert [(row[0], row[1]) for row in store.all("select ts, n from rollup_1h order by 1")] == [
        (START + 3 * HOUR, 30),
        (START + 4 * HOUR, 1),
    ]
    store.commit([], lane="event", corrections=(ClockCorrection(T0_MS, T0_MS + HOUR_MS, 0, 0, "step", 7),))
    store.tidy()
    assert [row[0] for row in store.all("select ts from rollup_1h order by 1")] == [START, START + 4 * HOUR]
    assert store.one("select count(*) from clock_correction") == 2


def test_days_go_when_their_time_is_over_and_rollups_stay(store: Store) -> None:
    store.conn.execute("update retention_policy set raw_days = 10, h1_days = 20")
    chance = random.Random(6)
    for _ in range(5):
        store.commit(_some(chance, store.now_ms, 20 * HOUR_MS, 50))
        store.passes(DAY)
    store.passes(timedelta(minutes=6))
    store.tidy()
    hours, days = rolled(store, "rollup_1h"), rolled(store, "rollup_1d")
    store.passes(7 * DAY)
    assert store.tidy()["removed"] >= 1
    kept = store.one("select count(*) from reading")
    assert 0 < kept < 250
    assert store.one("select min(ts) from reading") >= START - timedelta(hours=16) + DAY
    assert rolled(store, "rollup_1h") == hours and rolled(store, "rollup_1d") == days
    assert store.one("select count(*) from audit_entry where action = 'retention.remove'") >= 1
    store.passes(30 * DAY)
    store.tidy()
    assert store.one("select count(*) from reading") == 0
    assert rolled(store, "rollup_1h") == [] and rolled(store, "rollup_1d") == days


def test_what_comes_for_a_day_that_is_gone_is_added_to_what_is_left_of_it(store: Store) -> None:
    store.conn.execute("update retention_policy set raw_days = 2")
    store.commit([(0, T0_MS + n * 1000, 10 * n, 0 if n else 1) for n in range(5)])
    store.passes(8 * DAY)
    store.tidy()
    assert store.one("select count(*) from reading") == 0
    store.commit([(0, T0_MS + 9_500, -70, 2), (0, T0_MS + 500, -80), (0, T0_MS + 8_000, 990)], lane="backfill")
    store.tidy()
    assert store.one("select count(*) from reading") == 0
    for table in ("rollup_1h", "rollup_1d"):
        ((*counts, low, low_at, high, total, first, last),) = store.all(
            f"select n, n_value, n_good, n_suspect, n_bad, low, low_at, high, total, first, last from {table}"
        )
        assert counts == [8, 7, 6, 1, 1]
        assert (low, low_at, high) == (-8.0, START + timedelta(milliseconds=500), 99.0)
        assert (total, first, last) == (pytest.approx(10 - 8 + 99), 0.0, 99.0)


def test_a_class_of_devices_may_be_kept_for_a_shorter_time(store: Store) -> None:
    store.conn.execute("insert into retention_policy values ('gas', 1, 0, 1100, null)")
    for _ in range(3):
        store.commit([(0, store.now_ms + 1, 1), (1, store.now_ms + 1, 2)])
        store.passes(DAY)
    store.passes(timedelta(minutes=6))
    store.tidy()
    names = "select device_id, count(*) from reading join series using (series_id) group by 1 order by 1"
    assert store.all(names) == [("meter-1", 3), ("meter-2", 1)]
    assert store.one("select count(*) from rollup_1h") == 6


@pytest.mark.parametrize("said_ms", [90_000, T0_MS - 200 * 86_400_000])
def test_what_a_clock_without_the_time_stamped_is_as_old_as_the_word_of_it(store: Store, said_ms: int) -> None:
    """A gateway from the store room, or one that starts at 1970: its readings of today look older than any keeping."""
    store.conn.execute("update retention_policy set raw_days = 10")
    store.commit([(0, said_ms + n * 1000, n) for n in range(20)], clock=1, clock_run=2)
    store.commit([(0, T0_MS - 60 * 86_400_000, 5)])  # and one that is old indeed
    store.passes(8 * DAY)
    store.tidy()
    assert store.one("select count(*) from reading") == 20
    offset_ms = T0_MS - said_ms
    told = ClockCorrection(said_ms, said_ms + 60_000, offset_ms, 1000, "boot", 2)
    store.commit([], lane="event", corrections=(told,))
    store.tidy()
    assert store.one("select count(*) from reading") == 20
    assert store.one("select count(*) from readings_true(%s, %s)", START, START + HOUR) == 20
    # Eleven days after the core heard of them they go like all others.
    heard = datetime.fromtimestamp(store.now_ms / 1000, UTC)
    for table in ("ledger_gap", "clock_correction"):
        store.conn.execute(f"update {table} set told_at = %s".encode(), (heard,))
    store.passes(11 * DAY)
    store.tidy()
    assert store.one("select count(*) from reading") == 0


def test_nothing_goes_that_is_not_rolled_up(store: Store) -> None:
    store.conn.execute("update retention_policy set raw_days = 1")
    store.commit([(0, T0_MS + 1, 1)])
    store.passes(10 * DAY)
    store.conn.execute("update rollup_state set mark = %s", (START,))
    assert store.conn.execute("select done from rollup_state").fetchone() == (START,)
    from cloud.store import retention

    assert retention.step(store.conn, store.now_ms) is None
    assert store.one("select count(*) from reading") == 1


def test_a_long_span_is_shown_from_rollups_with_every_spike(store: Store) -> None:
    store.conn.execute("update retention_policy set raw_days = 10")
    rows = [(0, T0_MS + n * HOUR_MS, n % 50) for n in range(24 * 40)]
    rows[100] = (0, rows[100][1], 9_999)
    store.passes(40 * DAY + HOUR)
    store.all_rolled()
    store.commit(rows)
    store.tidy()
    found = store.chart(START, START + 41 * DAY, most=400)
    assert found.thinned and found.bucket_s == 3600
    assert found.rows == len(rows)
    assert len(found.ts_ms) <= 400
    assert (rows[100][1], 999.9) in list(zip(found.ts_ms, found.values, strict=True))
    assert found.ts_ms == sorted(found.ts_ms)
    assert store.one("select count(*) from reading") < 12 * 24


def test_a_chart_shows_true_times(store: Store) -> None:
    store.commit([(0, T0_MS + n * 1000, n) for n in range(10)], clock_run=2)
    store.commit([], lane="event", corrections=(ClockCorrection(T0_MS, T0_MS + 5000, 60_000, 0, "step", 2),))
    found = store.chart(START, START + HOUR)
    assert found.ts_ms == [T0_MS + n * 1000 for n in [5, 6, 7, 8, 9, 60, 61, 62, 63, 64]]
    assert found.values == [0.5, 0.6, 0.7, 0.8, 0.9, 0.0, 0.1, 0.2, 0.3, 0.4]


def test_other_things_go_unless_something_open_needs_them(store: Store) -> None:
    old = START - 500 * DAY
    conn = store.conn
    conn.execute("insert into retention_policy values ('meter', null, 0, null, null)")
    for number, state in ((1, "cleared"), (2, "raised")):
        conn.execute(
            "insert into alarm (alarm_id, key, scenario, type, device_id, level, peak_level, state, onset_at,"
            " raised_at, updated_at, evidence) values (%(id)s, %(id)s, 's', 't', 'd', 'blue', 'blue', %(state)s,"
            " %(old)s, %(old)s, %(old)s, jsonb_build_array(jsonb_build_object('sha256', %(id)s::text)))",
            {"id": f"a{number}", "state": state, "old": old - 1000 * DAY},
        )
        conn.execute(
            "insert into event (event_id, ts, seen_at, received_at, type, level, state, key, scenario, device_id)"
            " values (%(id)s, %(old)s, %(old)s, %(old)s, 't', 'blue', 'raise', %(id)s, 's', 'd')",
            {"id": f"a{number}", "old": old},
        )
        conn.execute(
            "insert into evidence values (%s, 'image/jpeg', 'still', true, 1, 'd', %s, 'x', %s)",
            (f"a{number}", old, old),
        )
    conn.execute(
        "insert into dead_letter (received_at, topic, reason, size_bytes, payload) values (%s, 't', 'r', 1, 'x')",
        (old,),
    )
    store.tidy()
    assert store.all("select alarm_id from alarm") == [("a2",)]
    assert store.all("select event_id from event") == [("a2",)]
    assert store.all("select sha256 from evidence") == [("a2",)]
    assert store.one("select count(*) from dead_letter") == 0
