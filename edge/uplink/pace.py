"""How much may be on its way: two brakes, both driven by what comes back. No I/O, no clock of their own.

``Pace`` bounds the bytes handed to the socket that the broker has not taken yet (its PUBACK tells). Without it an alarm
would stand behind megabytes of backlog in a socket's queue. ``Window`` bounds the backlog's rows that the core has not
committed yet. Both grow while answers come quickly and halve when they do not (additive increase, multiplicative
decrease, as TCP does it: RFC 5681).
"""

from __future__ import annotations

from edge.outbox import MOST_ON_THEIR_WAY

_PACE_LEAST_BYTES, _PACE_FIRST_BYTES, _PACE_MOST_BYTES = 16 << 10, 64 << 10, 1 << 20
_PACE_LATE_MS = 500  # what an alarm may have to wait behind

_WINDOW_LEAST, _WINDOW_FIRST = 4, 8
_BACKLOG_QUICK_MS, _BACKLOG_LATE_MS = 1000, 2000
_LIVE_QUICK_MS, _LIVE_LATE_MS = 700, 1200  # a live reading is to be committed within 2 s of its sending at the latest
_CUT_REST_MS = 500


class Pace:
    """Bytes between us and the broker. Times are monotonic milliseconds."""

    def __init__(self) -> None:
        self.limit_bytes = _PACE_FIRST_BYTES
        self.out_bytes = 0
        self._out: dict[int, tuple[int, int]] = {}  # message number: bytes, when
        self._cut_ms = -(1 << 60)

    def room(self) -> int:
        """Bytes that may be handed over now; a single message may exceed it when nothing else is on its way."""
        return self.limit_bytes - self.out_bytes

    def handed(self, number: int, size: int, now_ms: int) -> None:
        self._out[number] = (size, now_ms)
        self.out_bytes += size

    def taken(self, number: int, now_ms: int) -> None:
        """The broker has it (PUBACK). Numbers that were never handed over are none of ours."""
        size, since_ms = self._out.pop(number, (0, now_ms))
        self.out_bytes -= size
        if now_ms - since_ms <= _PACE_LATE_MS:
            self.limit_bytes = min(self.limit_bytes + size, _PACE_MOST_BYTES)
        elif since_ms >= self._cut_ms:  # one cut for all that was sent before it
            self.limit_bytes = max(self.limit_bytes // 2, _PACE_LEAST_BYTES)
            self._cut_ms = now_ms


class _Latency:
    """One kind of answer: quick, late, or in between.

    A core that is slow whatever we send is not made quicker by sending less: what answers take while hardly anything
    of the backlog is on its way is the measure, where it is above the fixed limits."""

    def __init__(self, quick_ms: int, late_ms: int) -> None:
        self._quick_ms, self._late_ms = quick_ms, late_ms
        self._base_ms = 0
        self._last_ms = 0

    def heard(self, latency_ms: int, *, at_least: bool) -> None:
        """``at_least``: the window was as small as it gets."""
        self._last_ms = latency_ms
        self._base_ms = (self._base_ms + latency_ms) // 2 if at_least else min(self._base_ms, latency_ms)

    @property
    def quick(self) -> bool:
        return self._last_ms <= max(self._quick_ms, self._base_ms * 5 // 4)

    @property
    def late(self) -> bool:
        return self._last_ms > max(self._late_ms, self._base_ms * 3 // 2)


class Window:
    """Rows of the backlog that may wait for the core's commit at one time."""

    def __init__(self, most: int = MOST_ON_THEIR_WAY) -> None:
        self._most = most
        self._rows = float(_WINDOW_FIRST)
        self._doubling = True
        self._cut_ms = -(1 << 60)
        self._live = _Latency(_LIVE_QUICK_MS, _LIVE_LATE_MS)
        self._own = _Latency(_BACKLOG_QUICK_MS, _BACKLOG_LATE_MS)

    @property
    def rows(self) -> int:
        return int(self._rows)

    @property
    def _smallest(self) -> bool:
        return self._rows <= _WINDOW_LEAST

    def answered(self, rows: int, latency_ms: int, now_ms: int) -> None:
        """``rows`` of the backlog were committed; the newest of them ``latency_ms`` after it was sent."""
        self._own.heard(latency_ms, at_least=self._smallest)
        if self._own.late:
            self.cut(now_ms)
        elif self._own.quick and self._live.quick:
            self._rows = min(self._rows + (rows if self._doubling else rows / self._rows), self._most)

    def live(self, latency_ms: int, now_ms: int) -> None:
        """A row that was not backlog took so long from sending to commit."""
        self._live.heard(latency_ms, at_least=self._smallest)
        if self._live.late:
            self.cut(now_ms)

    def cut(self, now_ms: int) -> None:
        """Too slow: half as much. What was on its way then may come late as well without a second cut."""
        if now_ms - self._cut_ms >= _CUT_REST_MS:
            self._rows = max(self._rows / 2, _WINDOW_LEAST)
            self._doubling = False
            self._cut_ms = now_ms

    def stalled(self) -> None:
        """No answer at all: begin small."""
        self._rows = _WINDOW_LEAST
        self._doubling = True
