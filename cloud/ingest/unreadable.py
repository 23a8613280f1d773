"""Rows that nobody can open, and so nobody can place: not acknowledged, sent again, and at last told to people.

One such message is noise. The third on a lane that does not move meanwhile means that a row is damaged on its way or in
the outbox and blocks what is behind it: one alarm for the gateway, and a word to the gateway, which can look at its own
row. The alarm goes when the lane moves again.
"""

from __future__ import annotations

from typing import Any, Literal

from psycopg import Connection

from cloud.ingest.group import LaneKey
from protocols.core.ids import derived_id
from protocols.core.model import Event
from protocols.uplink.topics import Lane

SCENARIO = "platform/uplink"
_TYPE = "data.rejected"
_TIMES = 3


class Unreadable:
    """Counts in memory; alarms that are open are found again in the table."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], int] = {}  # (gateway, lane)
        self._open: dict[tuple[str, str], int] | None = None  # -> onset, ms

    def forget(self) -> None:
        """The transaction failed, or a shard changed hands: the tables know."""
        self._open = None

    def came(
        self, conn: Connection[Any], gateway: str, lane: Lane, reason: str, now_ms: int
    ) -> tuple[bool, Event | None]:
        """One more on this lane. (tell the gateway?, alarm to raise)."""
        key = (gateway, lane)
        times = self._times[key] = self._times.get(key, 0) + 1
        if times < _TIMES:
            return False, None
        known = self._known(conn)
        if key in known:
            return True, None
        known[key] = now_ms
        return True, _event(gateway, lane, "raise", reason, now_ms, now_ms)

    def moved(self, conn: Connection[Any], lane: LaneKey, now_ms: int) -> Event | None:
        """A row of the lane was committed: whatever blocked it has gone."""
        key = (lane[0], lane[2])
        self._times.pop(key, None)
        onset_ms = self._known(conn).pop(key, None)
        return None if onset_ms is None else _event(*key, "clear", "ok", onset_ms, now_ms)

    def _known(self, conn: Connection[Any]) -> dict[tuple[str, str], int]:
        if self._open is None:
            rows = conn.execute(
                "select device_id, key, (extract(epoch from onset_at) * 1000)::bigint from alarm"
                " where scenario = %s and type = %s and state <> 'cleared'",
                (SCENARIO, _TYPE),
            )
            self._open = {(gateway, key.rpartition(":")[2]): onset for gateway, key, onset in rows}
        return self._open


def _event(gateway: str, lane: str, state: Literal["raise", "clear"], code: str, onset_ms: int, now_ms: int) -> Event:
    return Event(
        id=derived_id(SCENARIO, f"{gateway}:{lane}:unreadable", onset_ms, state),
        type=_TYPE,
        ts_ms=now_ms,
        seen_ms=now_ms,
        source=gateway,
        scenario=SCENARIO,
        level="yellow",
        state=state,
        key=f"{gateway}:unreadable:{lane}",
        values={"code": code, "lane": lane},
    )
