"""The verdict must be able to fail: rows spoiled behind its back are named, each for what it is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest

from citybrain_cli.chaos import book as books
from citybrain_cli.chaos import selftest, verdict
from cloud.registry.enrol import enrol_device, enrol_gateway
from cloud.store.partitions import DAY_MS, DayPartitions

GATEWAY = "chaos-0"
SERIES = [(f"{GATEWAY}-d0", "c000"), (f"{GATEWAY}-d0", "c001"), (f"{GATEWAY}-d0", "c002")]
T0_MS = 1_772_400_000_000
TICKS, EVENTS, COMMITS = 20, 10, 6


class Site:
    """A book of six commits, and a database that holds just what the book says; one transaction a commit."""

    def __init__(self, conn: psycopg.Connection[Any], path: Path) -> None:
        self.conn, self.path = conn, path
        enrol_gateway(conn, GATEWAY, 7, zh="", en="", lon=None, lat=None)
        enrol_device(conn, SERIES[0][0], GATEWAY, zh="", en="", lon=None, lat=None)
        self.ids = [
            conn.execute(
                "insert into series (device_id, point, decimals) values (%s, %s, 0) returning series_id", name
            ).fetchone()[0]  # type: ignore[index]
            for name in SERIES
        ]
        partitions = DayPartitions(conn)
        with conn.transaction():
            partitions.ensure(conn, {T0_MS // DAY_MS}, T0_MS)
        partitions.committed()
        self.writer = books.BookWriter(path, GATEWAY, SERIES, 10)
        for number in range(COMMITS):
            commit = self.writer.intend("backfill" if number == 3 else "data", TICKS, T0_MS + 1000 * number, EVENTS)
            self.store(commit)
            self.writer.accepted(commit)

    def store(self, commit: books.Commit) -> None:
        assert commit.ticks and commit.events
        with self.conn.transaction(), self.conn.cursor() as cursor:
            cursor.executemany(
                "insert into reading (series_id, ts, value) values (%s, to_timestamp(%s / 1000.0), %s)",
                [
                    (series_id, commit.first_ms + 10 * (tick - commit.ticks[0]), tick * books.SPREAD + place)
                    for place, series_id in enumerate(self.ids)
                    for tick in range(commit.ticks[0], commit.ticks[1] + 1)
                ],
            )
            cursor.executemany(
                "insert into event (event_id, gateway_id, ts, seen_at, type, level, device_id)"
                " values (%s, %s, now(), now(), 'data.rejected', 'info', %s)",
                [(f"{GATEWAY}-{n:010d}", GATEWAY, SERIES[0][0]) for n in range(commit.events[0], commit.events[1] + 1)],
            )

    def check(self) -> verdict.Verdict:
        return verdict.check(self.conn, books.read(self.path))

    def spoil(self, statement: str, *arguments: object) -> None:
        done = self.conn.execute(statement.encode(), arguments)
        assert done.rowcount > 0

    def said(self) -> list[str]:
        found = self.check()
        assert not found.sound
        return [str(one) for one in found.findings]


@pytest.fixture
def site(tmp_path: Path, dsn: str) -> Iterator[Site]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield Site(conn, tmp_path / "book")


def test_everything_is_there(site: Site) -> None:
    found = site.check()
    assert found.sound, found.findings
    assert (found.accepted_readings, found.committed_readings) == (360, 360)
    assert (found.accepted_events, found.committed_events) == (60, 60)


def test_a_deleted_row_is_named(site: Site) -> None:
    site.spoil("delete from reading where value in (17001, 18001, 40001)")
    assert site.said() == ["lost: 3 readings of chaos-0-d0/c001: 17-18, 40"]


def test_a_lost_commit_is_one_finding_for_all_series(site: Site) -> None:
    site.spoil("delete from reading where value >= 20000 and value < 40000")
    assert site.said() == ["lost: 60 readings of 3 series, chaos-0-d0/c000 to chaos-0-d0/c002: 20-39"]


def test_a_doubled_row_is_named(site: Site) -> None:
    site.spoil("insert into reading select r.* from reading r, generate_series(1, 2) where value = 5002")
    assert site.said() == ["duplicated: 2 readings of chaos-0-d0/c002: 5"]


def test_swapped_values_are_named(site: Site) -> None:
    site.spoil("update reading set value = case value when 7000 then 9000 else 7000 end where value in (7000, 9000)")
    said = site.said()
    assert "changed: 2 readings of chaos-0-d0/c000: 7, 9" in said
    assert "reordered: 2 readings of chaos-0-d0/c000: 7, 9" in said


def test_a_value_in_another_series_is_named(site: Site) -> None:
    site.spoil("update reading set series_id = %s where value = 7000", site.ids[1])
    assert site.said() == [
        "lost: 1 readings of chaos-0-d0/c000: 7",
        "unknown: 1 readings of chaos-0-d0/c001: ",
    ]


@pytest.mark.parametrize("value", ["0.5", "999999000", "-1000", "'NaN'", "'Infinity'", "1e300", "null"])
def test_a_reading_nobody_made_is_named(site: Site, value: str) -> None:
    site.spoil(f"insert into reading values (%s, to_timestamp({T0_MS} / 1000.0), {value})", site.ids[0])
    assert site.said() == ["unknown: 1 readings of chaos-0-d0/c000: "]


def test_what_was_committed_late_is_named(site: Site) -> None:
    rows = site.conn.execute("delete from reading where value between 6000 and 7999 returning *").fetchall()
    with site.conn.cursor() as cursor:
        places = ", ".join(["%s"] * len(rows[0]))
        cursor.executemany(f"insert into reading values ({places})".encode(), rows)
    assert site.said() == ["reordered: 6 readings of 3 series, chaos-0-d0/c000 to chaos-0-d0/c002: 6-7"]


def test_another_lane_may_be_later(site: Site) -> None:
    """Commit 3 went as backfill: that it is written after the data behind it is what the lane is for."""
    rows = site.conn.execute("delete from reading where value >= 60000 and value < 80000 returning *").fetchall()
    with site.conn.transaction(), site.conn.cursor() as cursor:
        places = ", ".join(["%s"] * len(rows[0]))
        cursor.executemany(f"insert into reading values ({places})".encode(), rows)
    assert site.check().sound


def test_lost_and_strange_events_are_named(site: Site) -> None:
    site.spoil("delete from event where event_id in ('chaos-0-0000000003', 'chaos-0-0000000004')")
    site.spoil("update event set event_id = 'chaos-0-0000000999' where event_id = 'chaos-0-0000000007'")
    assert site.said() == ["lost: 3 events of chaos-0: 3-4, 7", "unknown: 1 events of chaos-0: "]


def test_a_commit_in_doubt_is_there_whole_or_not_at_all(site: Site) -> None:
    site.writer.intend("data", TICKS, T0_MS + 50_000, EVENTS)
    kept = site.writer.intend("data", TICKS, T0_MS + 60_000, EVENTS)
    site.store(kept)
    found = site.check()
    assert found.sound
    assert (found.in_doubt, found.in_doubt_kept) == (2, 1)
    site.spoil("delete from reading where value = %s", (7 * TICKS + 3) * books.SPREAD)
    assert site.said() == ["torn: 1 commits of chaos-0: 7"]


def test_what_was_declared_thinned_is_missing_with_a_reason(site: Site) -> None:
    site.spoil("delete from reading where value >= 20000 and value < 40000")
    site.conn.execute(
        "insert into lane_cursor (gateway_id, epoch, lane, seq, thinned) values (%s, 1, 'data', 1, 60)", (GATEWAY,)
    )
    assert site.check().sound
    site.spoil("delete from reading where value = 1000")
    assert not site.check().sound


def test_the_self_test_spoils_and_takes_back(site: Site) -> None:
    for number in range(4):
        commit = site.writer.intend("data", TICKS, T0_MS + 100_000 + 1000 * number, EVENTS)
        site.store(commit)
        site.writer.accepted(commit)
    before = site.check()
    named = selftest.run(site.conn, books.read(site.path), before)
    assert len(named) == 5
    assert all(named.values()), named
    assert site.check().sound


def test_ranges_are_runs_of_true() -> None:
    assert verdict.ranges(np.array([], np.bool_)) == []
    assert verdict.ranges(np.array([True, True, False, True], np.bool_)) == [(0, 1), (3, 3)]
