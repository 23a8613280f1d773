"""The stations' own book against the rows: what counts as stored, and what is named as missing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from citybrain_cli.proof.sensors import sensor_ledger
from firmware_sim.ledger import FileLedger
from tests.cloud_ingest.site import enrol

AT = datetime(2026, 3, 2, 4, 0, tzinfo=UTC)
_STORED = {"pm10": (80.0, 1), "tsp": (150.0, 1)}


def stored(dsn: str) -> None:
    """One upload of 12:00:00 in China: deadbands of the station are 2 for pm10 and 5 for tsp."""
    enrol(dsn, ("gw-t-01", 3))
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into device (device_id, gateway_id, device_type) values ('dust', 'gw-t-01', 'env/dust_station')"
        )
        for point, (value, decimals) in _STORED.items():
            row = conn.execute(
                "insert into series (device_id, point, unit, decimals) values ('dust', %s, 'ug/m3', %s)"
                " returning series_id",
                (point, decimals),
            ).fetchone()
            assert row is not None
            conn.execute(
                "insert into reading (series_id, ts, value, lag_ms, quality) values (%s, %s, %s, 0, 0)",
                (row[0], AT, value),
            )


@pytest.mark.parametrize(
    ("values", "there"),
    [
        ({"pm10": "82.0", "tsp": "145.0"}, True),  # at the edges: nothing to say
        ({"pm10": "82.1", "tsp": "150.0"}, False),
        ({"pm10": "80.0", "tsp": "144.9"}, False),
        ({"pm10": "80.0", "pm25": "1.0"}, False),  # of that point nothing is stored
        ({}, False),
    ],
)
def test_an_upload_without_rows_is_there_only_if_all_of_it_lies_within_the_deadbands(
    dsn: str, tmp_path: Path, values: dict[str, str], there: bool
) -> None:
    stored(dsn)
    found = judged(dsn, tmp_path, values)
    assert (found["uploads_acknowledged"], found["uploads_lost"]) == (2, 0 if there else 1)
    assert found.get("lost_uploads", []) == ([] if there else ["dust 2026-03-02T04:00:01+00:00"])


@pytest.mark.parametrize(
    ("point", "first_s", "last_s", "declared"),
    [
        ("pm10", 1, 1, True),
        ("pm10", 0.5, 30, True),
        ("pm10", 2, 3, False),  # readings after it
        ("pm10", -5, 0, False),  # before the last one that is stored
        ("tsp", 1, 1, False),  # another point's
    ],
)
def test_what_a_gateway_declared_thinned_is_not_lost(
    dsn: str, tmp_path: Path, point: str, first_s: float, last_s: float, declared: bool
) -> None:
    stored(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "insert into ledger_gap (gateway_id, epoch, lane, kind, reason, series_id, first_seq, last_seq, row_count,"
            " readings, first_at, last_at)"
            " select 'gw-t-01', 1, 'data', 'thinned', 'outbox_full', series_id, 5, 5, 1, 1, %s, %s from series"
            " where point = %s",
            (AT + timedelta(seconds=first_s), AT + timedelta(seconds=last_s), point),
        )
    found = judged(dsn, tmp_path, {"pm10": "99.0", "tsp": "150.0"})
    assert (found["uploads_thinned"], found["uploads_lost"]) == ((1, 0) if declared else (0, 1))


def judged(dsn: str, folder: Path, values: dict[str, str]) -> dict[str, Any]:
    """The books after two uploads: the one that is stored, and a second later one of ``values``."""
    book = FileLedger(folder / "ledger.jsonl")
    for time, what in (("20260302120000", {"pm10": "80.0"}), ("20260302120001", values)):
        book.write("up", "dust", 0, cn="2011", dt=time, v=what)
        book.write("ack", "dust", 0, cn="2011", dt=time)
    book.close()
    with psycopg.connect(dsn, autocommit=True) as conn:
        return sensor_ledger(conn, book.path)
