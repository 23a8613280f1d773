"""Which rows are on their way: windows, order of lanes, what to send again. No I/O and no clock of its own.

Sent is not delivered: a row leaves the window only when the core says that it has committed it. Lanes go in the order
event, data, backfill, evidence; a backlog may fill at most part of the window, so live data and alarms never wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.outbox import MOST_ON_THEIR_WAY, Row
from protocols.uplink.topics import LANES, Lane

_WINDOW_ROWS: dict[Lane, int] = {"event": MOST_ON_THEIR_WAY, "data": MOST_ON_THEIR_WAY, "backfill": 24, "evidence": 4}
_WINDOW_BYTES: dict[Lane, int] = {"event": 4 << 20, "data": 4 << 20, "backfill": 2 << 20, "evidence": 1 << 20}
_RESEND_REST_MS = 1000  # acknowledgements of one burst all say "again": once is enough


@dataclass(slots=True)
class _Flight:
    acked: int
    sent: int
    rows: deque[tuple[int, int]] = field(default_factory=deque)  # (seq, bytes) on their way
    in_bytes: int = 0
    progress_ms: int = 0
    again_ms: int = -(1 << 60)


class Sender:
    """``read(lane, after, limit)`` gives rows of the outbox. Times are the caller's monotonic milliseconds."""

    def __init__(self, read: Callable[[Lane, int, int], list[Row]], acked: dict[Lane, int], now_ms: int) -> None:
        self._read = read
        self._flights = {lane: _Flight(acked[lane], acked[lane], progress_ms=now_ms) for lane in LANES}
        self.resent = 0

    def due(self, now_ms: int) -> list[Row]:
        """Rows to publish now, in order."""
        out: list[Row] = []
        for lane in LANES:
            flight = self._flights[lane]
            room = _WINDOW_ROWS[lane] - len(flight.rows)
            if room <= 0 or flight.in_bytes >= _WINDOW_BYTES[lane]:
                continue
            if lane == "evidence" and any(self._flights[other].rows for other in LANES[:3]):
                continue
            for row in self._read(lane, flight.sent, room):
                if flight.in_bytes >= _WINDOW_BYTES[lane]:
                    break
                if not flight.rows:
                    flight.progress_ms = now_ms
                flight.rows.append((row.seq, len(row.payload)))
                flight.in_bytes += len(row.payload)
                flight.sent = row.seq
                out.append(row)
        return out

    def acknowledged(self, lane: Lane, committed: int, *, resend: bool, now_ms: int) -> None:
        flight = self._flights[lane]
        if committed > flight.acked:
            flight.acked = committed
            flight.progress_ms = now_ms
        while flight.rows and flight.rows[0][0] <= committed:
            flight.in_bytes -= flight.rows.popleft()[1]
        flight.sent = max(flight.sent, committed)
        if resend and flight.rows and now_ms - flight.again_ms >= _RESEND_REST_MS:
            self._again(flight, now_ms)

    def restart(self, now_ms: int) -> None:
        """A core has (again) taken over our shard: what it has not acknowledged goes once more, at once."""
        for flight in self._flights.values():
            if flight.rows:
                self._again(flight, now_ms)

    def stalled(self, now_ms: int, timeout_ms: int) -> bool:
        """Whether a lane has waited too long for an acknowledgement; its rows will then be sent again."""
        stalled = False
        for flight in self._flights.values():
            if flight.rows and now_ms - flight.progress_ms >= timeout_ms:
                self._again(flight, now_ms)
                stalled = True
        return stalled

    def _again(self, flight: _Flight, now_ms: int) -> None:
        self.resent += len(flight.rows)
        flight.rows.clear()
        flight.in_bytes = 0
        flight.sent = flight.acked
        flight.progress_ms = flight.again_ms = now_ms
