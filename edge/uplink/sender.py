"""Which rows are on their way: windows, order of lanes, what to send again. No I/O and no clock of its own.

Sent is not delivered: a row leaves the window only when the core says that it has committed it. Lanes go in the order
event, data, backfill, evidence; how much of a backlog is on its way follows how quickly the core commits, so that live
data and alarms never wait for it. The rules are those of SPEC.md section 7.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

from edge.outbox import MOST_ON_THEIR_WAY, Row
from edge.uplink.pace import Window
from protocols.uplink.topics import LANES, Lane

_WINDOW_ROWS: dict[Lane, int] = {
    "event": MOST_ON_THEIR_WAY, "data": MOST_ON_THEIR_WAY, "backfill": MOST_ON_THEIR_WAY, "evidence": 4,
}  # fmt: skip
_WINDOW_BYTES: dict[Lane, int] = {"event": 4 << 20, "data": 4 << 20, "backfill": 2 << 20, "evidence": 1 << 20}
_RESEND_REST_MS = 1000  # acknowledgements of one burst all say "again": once is enough
_NO_BOUND = 1 << 60


@dataclass(slots=True)
class _Flying:
    """A row on its way. ``again``: sent more than once, so its answer says nothing about how quick the core is."""

    seq: int
    size: int
    sent_ms: int
    again: bool = False


@dataclass(slots=True)
class _Flight:
    acked: int
    sent: int
    sure: bool  # the core has answered for this lane since the agent started
    rows: deque[_Flying] = field(default_factory=deque)
    in_bytes: int = 0
    missing: deque[int] = field(default_factory=deque)  # of these the core said that it has not got them; rising
    progress_ms: int = 0
    again_ms: int = -(1 << 60)


class Sender:
    """``read(lane, after, limit)`` gives rows of the outbox. Times are the caller's monotonic milliseconds.

    With ``sure`` False a lane sends a single row until the core has answered once: an outbox that was put back from a
    copy learns so from that answer, before it has said other things under sequence numbers already used.
    """

    def __init__(
        self, read: Callable[[Lane, int, int], list[Row]], acked: dict[Lane, int], now_ms: int, *, sure: bool = True
    ) -> None:
        self._read = read
        self._flights = {lane: _Flight(acked[lane], acked[lane], sure, progress_ms=now_ms) for lane in LANES}
        self._backlog = Window()
        self._last: Mapping[Lane, int] = {}  # rows beyond wait
        self.resent = 0
        self.latency_ms: dict[Lane, int] = {}  # from sending to commit, last answer

    @property
    def backlog_window(self) -> int:
        """Rows of the backlog that may be on their way now."""
        return self._backlog.rows

    def go_no_further(self, last: Mapping[Lane, int]) -> None:
        """Rows beyond ``last`` wait, those before go and go again as ever; empty: all go."""
        self._last = last

    def due(self, now_ms: int, *, room_bytes: int = _NO_BOUND, held_back: Collection[Lane] = ()) -> list[Row]:
        """Rows to publish now, in order. Only alarms go without room; lanes in ``held_back`` wait."""
        out: list[Row] = []
        for lane in LANES:
            if lane in held_back:
                continue
            if lane == "evidence" and any(self._flights[other].rows for other in LANES[:3]):
                continue
            flight = self._flights[lane]
            for row in self._again_of(lane, flight, now_ms) + self._fresh_of(lane, flight, room_bytes, now_ms):
                room_bytes -= len(row.payload)
                out.append(row)
        return out

    def _again_of(self, lane: Lane, flight: _Flight, now_ms: int) -> list[Row]:
        """What the core asked for by number; it was within the window and the room when it went first."""
        out: list[Row] = []
        while flight.missing:
            seq = flight.missing.popleft()
            flying = next((one for one in flight.rows if one.seq == seq), None)
            found = self._read(lane, seq - 1, 1) if flying is not None else []
            if flying is not None and found and found[0].seq == seq:
                flying.sent_ms, flying.again = now_ms, True
                out.append(found[0])
                self.resent += 1
        return out

    def _fresh_of(self, lane: Lane, flight: _Flight, room_bytes: int, now_ms: int) -> list[Row]:
        most = min(_WINDOW_ROWS[lane], self._backlog.rows) if lane == "backfill" else _WINDOW_ROWS[lane]
        limit = (most if flight.sure else 1) - len(flight.rows)
        limit = min(limit, self._last.get(lane, _NO_BOUND) - flight.sent)
        if lane != "event" and room_bytes <= 0:
            return []
        if limit <= 0 or flight.in_bytes >= _WINDOW_BYTES[lane]:
            return []
        if flight.rows and flight.rows[-1].seq <= flight.acked:
            return []  # a question is on its way (Outbox.rows): its answer says what may go
        out: list[Row] = []
        for row in self._read(lane, flight.sent, limit):
            if flight.in_bytes >= _WINDOW_BYTES[lane] or (lane != "event" and room_bytes <= 0):
                break
            if not flight.rows:
                flight.progress_ms = now_ms
            size = len(row.payload)
            flight.rows.append(_Flying(row.seq, size, now_ms))
            flight.in_bytes += size
            flight.sent = row.seq
            room_bytes -= size
            out.append(row)
        return out

    def acknowledged(
        self, lane: Lane, committed: int, *, resend: bool, now_ms: int, held: Sequence[tuple[int, int]] = ()
    ) -> None:
        """The core's answer; ``held`` are (first, last) rows beyond ``committed`` that it keeps in memory."""
        flight = self._flights[lane]
        flight.sure = True
        if committed > flight.acked:
            flight.acked = committed
            flight.progress_ms = now_ms
        self._landed(lane, flight, committed, now_ms)
        flight.sent = max(flight.sent, committed)
        while flight.missing and flight.missing[0] <= committed:
            flight.missing.popleft()
        if resend and flight.rows and now_ms - flight.again_ms >= _RESEND_REST_MS:
            if held:
                self._only_missing(flight, held, now_ms)
            else:
                self._again(flight, now_ms)

    def _landed(self, lane: Lane, flight: _Flight, committed: int, now_ms: int) -> None:
        count, newest = 0, None
        while flight.rows and flight.rows[0].seq <= committed:
            newest = flight.rows.popleft()
            flight.in_bytes -= newest.size
            count += 1
        if newest is None or newest.again:
            return
        latency_ms = self.latency_ms[lane] = now_ms - newest.sent_ms
        if lane == "backfill":
            self._backlog.answered(count, latency_ms, now_ms)
        elif lane in ("event", "data"):
            self._backlog.live(latency_ms, now_ms)

    def _only_missing(self, flight: _Flight, held: Sequence[tuple[int, int]], now_ms: int) -> None:
        """Rows before the last one held are lost for certain; later ones only if they are not just on their way."""
        last_held = max(last for _, last in held)
        flight.missing = deque(
            one.seq
            for one in flight.rows
            if not any(first <= one.seq <= last for first, last in held)
            and (one.seq < last_held or now_ms - one.sent_ms >= _RESEND_REST_MS)
        )
        if flight.missing:
            flight.again_ms = now_ms

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
                self._backlog.stalled()
                stalled = True
        return stalled

    def _again(self, flight: _Flight, now_ms: int) -> None:
        """All of it counts as never sent."""
        self.resent += len(flight.rows)
        flight.rows.clear()
        flight.missing.clear()
        flight.in_bytes = 0
        flight.sent = flight.acked
        flight.progress_ms = flight.again_ms = now_ms
