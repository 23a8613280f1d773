"""Corrections of gateways' clocks: stored as told, and what follows from them kept ready for everybody who reads.

Rows are never rewritten. ``clock_correction`` is the record; ``clock_truth`` is what is in force: for each run of a
gateway's clock ranges that do not overlap, the later told one winning. Reading applies it (``reading_true`` in SQL),
and so does ingest, for what must be right at once: last values and rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from psycopg import Connection

from protocols.core.model import Int64s
from protocols.uplink.batch import ClockCorrection


@dataclass(frozen=True, slots=True)
class Truth:
    """Said times of one run from ``from_ms`` (incl.) to ``to_ms`` (excl.) are ``offset_ms`` too early."""

    run: int
    from_ms: int
    to_ms: int
    offset_ms: int
    uncertainty_ms: int = 0
    reason: str = ""


def overrule(before: Iterable[Truth], told: ClockCorrection) -> list[Truth]:
    """The ranges of a gateway after one more correction; ascending, none overlapping another of its run."""
    out: list[Truth] = []
    for one in before:
        if not _meets(one, told):
            out.append(one)
            continue
        if one.from_ms < told.from_ms:
            out.append(_cut(one, one.from_ms, told.from_ms))
        if one.to_ms > told.to_ms:
            out.append(_cut(one, told.to_ms, one.to_ms))
    if told.offset_ms:
        out.append(Truth(told.run, told.from_ms, told.to_ms, told.offset_ms, told.uncertainty_ms, told.reason))
    return sorted(out, key=lambda one: (one.run, one.from_ms))


def _meets(one: Truth, told: ClockCorrection) -> bool:
    return one.run == told.run and one.from_ms < told.to_ms and one.to_ms > told.from_ms


def _as_told(one: Truth) -> ClockCorrection:
    return ClockCorrection(one.from_ms, one.to_ms, one.offset_ms, one.uncertainty_ms, one.reason, one.run)


def _cut(one: Truth, from_ms: int, to_ms: int) -> Truth:
    return Truth(one.run, from_ms, to_ms, one.offset_ms, one.uncertainty_ms, one.reason)


class Clocks:
    """A cache of ``clock_truth`` by gateway; a failed transaction empties it."""

    def __init__(self) -> None:
        self._truth: dict[str, list[Truth]] = {}
        #: Gateways whose corrections the running transaction has changed: what was told, and what it overruled.
        self.corrected: dict[str, list[ClockCorrection]] = {}

    def forget(self) -> None:
        self._truth.clear()
        self.corrected.clear()

    def take(self, conn: Connection[Any], gateway: str, told: Sequence[ClockCorrection]) -> None:
        """In the transaction of the batch that told them."""
        if not told:
            return
        truth = self.of(conn, gateway)
        moved = [_as_told(one) for one in truth if any(_meets(one, correction) for correction in told)]
        for correction in told:
            conn.execute(
                "insert into clock_correction (gateway_id, run, from_at, to_at, offset_ms, uncertainty_ms, reason)"
                " values (%s, %s, to_timestamp(%s / 1000.0), to_timestamp(%s / 1000.0), %s, %s, %s)",
                (
                    gateway,
                    correction.run,
                    correction.from_ms,
                    correction.to_ms,
                    correction.offset_ms,
                    correction.uncertainty_ms,
                    correction.reason.replace("\x00", ""),
                ),
            )
            truth = overrule(truth, correction)
        conn.execute("delete from clock_truth where gateway_id = %s", (gateway,))
        with conn.cursor() as cursor:
            cursor.executemany(
                "insert into clock_truth (gateway_id, run, from_at, to_at, shift, uncertainty_ms, reason) values"
                " (%s, %s, to_timestamp(%s / 1000.0), to_timestamp(%s / 1000.0),"
                " %s * interval '1 millisecond', %s, %s)",
                [
                    (gateway, t.run, t.from_ms, t.to_ms, t.offset_ms, t.uncertainty_ms, t.reason.replace("\x00", ""))
                    for t in truth
                ],
            )
        self._truth[gateway] = truth
        self.corrected.setdefault(gateway, []).extend([*told, *moved])

    def of(self, conn: Connection[Any], gateway: str) -> list[Truth]:
        found = self._truth.get(gateway)
        if found is None:
            found = self._truth[gateway] = [
                Truth(*row)
                for row in conn.execute(
                    "select run, (extract(epoch from from_at) * 1000)::bigint,"
                    " (extract(epoch from to_at) * 1000)::bigint, (extract(epoch from shift) * 1000)::bigint,"
                    " uncertainty_ms, reason from clock_truth where gateway_id = %s order by run, from_at",
                    (gateway,),
                )
            ]
        return found

    def true_ms(self, conn: Connection[Any], gateway: str, run: int, said_ms: Int64s, lag_ms: Any) -> Int64s | None:
        """True times, or None if nothing is known to be wrong with these."""
        mine = [one for one in self.of(conn, gateway) if one.run == run]
        if not mine:
            return None
        out = said_ms.copy()
        touched = False
        for one in mine:
            wrong = (said_ms >= one.from_ms) & (said_ms < one.to_ms) & (lag_ms == 0)
            if wrong.any():
                out[wrong] += one.offset_ms
                touched = True
        return out if touched else None


def touched_series(conn: Connection[Any], gateway: str, told: Sequence[ClockCorrection]) -> list[int]:
    """Series of the gateway that have readings in what was corrected."""
    found: set[int] = set()
    for correction in told:
        rows = conn.execute(
            "select s.series_id from series s join device d using (device_id) where d.gateway_id = %s and exists"
            " (select from reading r where r.series_id = s.series_id and r.clock_run = %s and r.lag_ms = 0"
            " and r.ts >= to_timestamp(%s / 1000.0) and r.ts < to_timestamp(%s / 1000.0))",
            (gateway, correction.run, correction.from_ms, correction.to_ms),
        )
        found.update(row[0] for row in rows)
    return sorted(found)


@dataclass(frozen=True, slots=True)
class UnknownClock:
    """Readings stamped while a gateway did not know the time. ``corrected``: their true times are known since."""

    epoch: int
    lane: str
    first_seq: int
    last_seq: int
    readings: int
    first_at: datetime | None
    last_at: datetime | None
    corrected: bool


def unknown_clock(conn: Connection[Any], gateway: str) -> list[UnknownClock]:
    """For the ledger: what a gateway sent before it knew the time."""
    return [
        UnknownClock(*row)
        for row in conn.execute(
            "select g.epoch, g.lane, g.first_seq, g.last_seq, g.readings, g.first_at, g.last_at,"
            " exists (select from clock_truth t where t.gateway_id = g.gateway_id and t.reason = 'boot'"
            " and t.from_at <= g.last_at and t.to_at > g.first_at)"
            " from ledger_gap g where g.gateway_id = %s and g.kind = 'clock_unknown'"
            " order by g.epoch, g.lane, g.first_seq",
            (gateway,),
        )
    ]


def as_said(length: int, run: int) -> Any:
    """The column ``clock_run`` of rows of one batch."""
    return np.full(length, run, dtype=np.int16)
