"""Can the verdict fail? Rows are spoiled behind its back, it must name each, and all is taken back again.

Done at the end of every run, in a transaction that is rolled back: a verdict that finds nothing is worth something only
if it would have found something.
"""

from __future__ import annotations

from typing import Any

import psycopg

from citybrain_cli.chaos import verdict as verdicts
from citybrain_cli.chaos.book import Book

#: What is done to the rows -> what the verdict must say, and how often at least.
_EXPECTED = {
    "a reading deleted": ("lost", "readings", 1),
    "a reading doubled": ("duplicated", "readings", 1),
    "two readings swapped": ("changed", "readings", 2),
    "a reading nobody made": ("unknown", "readings", 1),
    "an event deleted": ("lost", "events", 1),
}


class _Undo(Exception):
    """Ends the transaction without a trace."""


def run(conn: psycopg.Connection[Any], book: Book, before: verdicts.Verdict) -> dict[str, bool]:
    """What was spoiled -> whether the verdict named it. Empty: there are too few rows to spoil."""
    after: verdicts.Verdict | None = None
    try:
        with conn.transaction():
            if not _spoil(conn, book):
                return {}
            after = verdicts.check(conn, book)
            raise _Undo
    except _Undo:
        pass
    if after is None:
        return {}
    return {
        deed: after.count(what, kind) >= before.count(what, kind) + least
        for deed, (what, kind, least) in _EXPECTED.items()
    }


def _spoil(conn: psycopg.Connection[Any], book: Book) -> bool:
    """Five deeds on rows of one series, far from each other. False if there are not so many rows."""
    device, point = book.series[-1]
    rows = conn.execute(
        "select r.series_id, r.ts, r.value from reading r join series s using (series_id)"
        " where s.device_id = %s and s.point = %s order by r.value limit 50",
        (device, point),
    ).fetchall()
    if len(rows) < 50:
        return False
    series_id = rows[0][0]
    (_, deleted_at, deleted), (_, doubled_at, doubled) = rows[5], rows[15]
    (_, one_at, one), (_, two_at, two) = rows[25], rows[35]
    conn.execute(
        "delete from reading where series_id = %s and ts = %s and value = %s", (series_id, deleted_at, deleted)
    )
    conn.execute(
        "insert into reading select * from reading where series_id = %s and ts = %s and value = %s",
        (series_id, doubled_at, doubled),
    )
    for at, mine, other in ((one_at, one, two), (two_at, two, one)):
        conn.execute(
            "update reading set value = %s where series_id = %s and ts = %s and value = %s",
            (other, series_id, at, mine),
        )
    conn.execute("insert into reading (series_id, ts, value) values (%s, %s, 0.5)", (series_id, rows[45][1]))
    gone = conn.execute("delete from event where event_id = %s", (f"{book.gateway}-{book.next_event // 2:010d}",))
    return gone.rowcount == 1
