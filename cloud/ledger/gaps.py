"""Ranges of rows in which something is missing or in doubt, merged so that a month of thinning is a few rows.

Two pieces of one kind are one range if no sound row of the lane lies between them. For a single series that is told
from the lane's own range: it says which rows in a row were concerned. Beyond a bound the newest range of a series just
grows, and its count of rows says how many of those it spans are meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection

Kind = Literal["thinned", "rejected", "clock_unknown"]
#: (gateway, epoch, lane, kind, reason)
_Place = tuple[str, int, str, str, str]

WHOLE_LANE = 0
MOST_RANGES = 200  # of one series, lane, kind and reason


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows ``first_seq`` to ``last_seq`` (inclusive) of a lane. ``series_id`` 0: the lane as a whole. Times in ms since
    1970, None: not known."""

    gateway_id: str
    epoch: int
    lane: str
    kind: Kind
    reason: str
    series_id: int
    first_seq: int
    last_seq: int
    readings: int
    first_ms: int | None = None
    last_ms: int | None = None
    row_count: int = 1

    @property
    def place(self) -> _Place:
        return (self.gateway_id, self.epoch, self.lane, self.kind, self.reason)


def _grown(old: Piece, new: Piece) -> Piece:
    firsts = [ms for ms in (old.first_ms, new.first_ms) if ms is not None]
    lasts = [ms for ms in (old.last_ms, new.last_ms) if ms is not None]
    return Piece(
        *old.place[:3],
        old.kind,
        old.reason,
        old.series_id,
        min(old.first_seq, new.first_seq),
        max(old.last_seq, new.last_seq),
        old.readings + new.readings,
        min(firsts) if firsts else None,
        max(lasts) if lasts else None,
        old.row_count + new.row_count,
    )


def merge(newest: dict[int, Piece], pieces: Iterable[Piece], full: frozenset[int] = frozenset()) -> list[list[Piece]]:
    """Pieces of one place, in order of rows, joined to the ``newest`` range of each series and to each other.

    Returns for each series a list of ranges; the first grows out of ``newest`` where there was one. ``full``: series
    that may have no further range."""
    out: dict[int, list[Piece]] = {series: [piece] for series, piece in newest.items()}
    run_start = newest[WHOLE_LANE].first_seq if WHOLE_LANE in newest else 0
    for piece in sorted(pieces, key=lambda p: (p.first_seq, p.series_id)):
        ranges = out.setdefault(piece.series_id, [])
        last = ranges[-1] if ranges else None
        if piece.series_id == WHOLE_LANE:
            joins = last is not None and piece.first_seq <= last.last_seq + 1
            if not joins and not (last is not None and piece.series_id in full):
                run_start = piece.first_seq
        else:
            joins = last is not None and last.last_seq >= run_start and piece.first_seq > last.last_seq
            joins = joins or (last is not None and piece.first_seq <= last.last_seq + 1)
        if last is not None and (joins or piece.series_id in full):
            ranges[-1] = _grown(last, piece)
        else:
            ranges.append(piece)
    return list(out.values())


def write(conn: Connection[Any], pieces: Sequence[Piece]) -> None:
    """In the caller's transaction. A stone's series must be accompanied by a piece of the whole lane."""
    by_place: dict[_Place, list[Piece]] = {}
    for piece in pieces:
        by_place.setdefault(piece.place, []).append(piece)
    for place, own in by_place.items():
        _write_place(conn, place, own)


def _write_place(conn: Connection[Any], place: _Place, pieces: Sequence[Piece]) -> None:
    series = sorted({piece.series_id for piece in pieces})
    ids: dict[int, int] = {}
    newest: dict[int, Piece] = {}
    full: set[int] = set()
    for row in conn.execute(
        "select distinct on (series_id) gap_id, series_id, first_seq, last_seq, readings,"
        " (extract(epoch from first_at) * 1000)::bigint, (extract(epoch from last_at) * 1000)::bigint, row_count,"
        " count(*) over (partition by series_id) from ledger_gap"
        " where gateway_id = %s and epoch = %s and lane = %s and kind = %s and reason = %s and series_id = any(%s)"
        " order by series_id, last_seq desc",
        (*place, series),
    ):
        gap_id, series_id, first, last, readings, first_ms, last_ms, row_count, ranges = row
        ids[series_id] = gap_id
        first_piece = pieces[0]
        newest[series_id] = Piece(
            *place[:3], first_piece.kind, place[4], series_id, first, last, readings, first_ms, last_ms, row_count
        )
        if ranges >= MOST_RANGES:
            full.add(series_id)
    updates: list[tuple[Any, ...]] = []
    inserts: list[tuple[Any, ...]] = []
    for ranges in merge(newest, pieces, frozenset(full)):
        for number, piece in enumerate(ranges):
            values = (
                piece.first_seq, piece.last_seq, piece.row_count, piece.readings, piece.first_ms, piece.last_ms,
            )  # fmt: skip
            known = ids.get(piece.series_id) if number == 0 else None
            if known is None:
                inserts.append((*place, piece.series_id, *values))
            elif piece != newest[piece.series_id]:
                updates.append((*values, known))
    with conn.cursor() as cursor:
        if updates:
            cursor.executemany(
                "update ledger_gap set first_seq = %s, last_seq = %s, row_count = %s, readings = %s,"
                " first_at = to_timestamp(%s / 1000.0), last_at = to_timestamp(%s / 1000.0), told_at = now()"
                " where gap_id = %s",
                updates,
            )
        if inserts:
            cursor.executemany(
                "insert into ledger_gap (gateway_id, epoch, lane, kind, reason, series_id, first_seq, last_seq,"
                " row_count, readings, first_at, last_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s,"
                " to_timestamp(%s / 1000.0), to_timestamp(%s / 1000.0))",
                inserts,
            )
