"""Rows that came out of turn, kept until the gap before them closes: one lost row does not cost sending sixty again.

The broker is told that it may forget them, for the outbox still has them; the core says which ones it holds
(``Ack.held``) and forgets any of them at need, which costs a resend and nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator

from cloud.ingest.group import Inbound, LaneKey
from protocols.uplink import uplink_pb2 as pb

LANE_ROWS = 64  # a gateway's whole window
LANE_BYTES = 8 << 20
WORKER_BYTES = 64 << 20
#: A lane whose gap has not closed for so long gives its room to others: its sender counts the rows as never sent.
_STALE_MS = 30_000


class _Lane:
    def __init__(self) -> None:
        self.rows: dict[int, Inbound] = {}
        self.size = 0
        self.touched_ms = 0


class Held:
    """Bounded by lane and in all. Not touched by a failed transaction: it holds what came, not what was done."""

    def __init__(self, worker_bytes: int = WORKER_BYTES) -> None:
        self._most = worker_bytes
        self._lanes: OrderedDict[LaneKey, _Lane] = OrderedDict()  # the one touched longest ago first
        self.size = 0
        self.peak = 0
        self.refused = 0

    def __len__(self) -> int:
        return sum(len(lane.rows) for lane in self._lanes.values())

    def offer(self, key: LaneKey, seq: int, committed: int, message: Inbound, now_ms: int) -> bool:
        """Keep a row beyond the next one. False if there is no room for it, or it lies beyond any window."""
        lane = self._lanes.get(key)
        size = len(message.payload)
        if lane is not None and seq in lane.rows:
            lane.touched_ms = now_ms
            return True
        if seq > committed + LANE_ROWS + 1 or (lane.size if lane else 0) + size > LANE_BYTES:
            self.refused += 1
            return False
        if self.size + size > self._most:
            self._make_room(key, size, now_ms)
        if self.size + size > self._most:
            self.refused += 1
            return False
        lane = self._lanes.setdefault(key, _Lane())
        self._lanes.move_to_end(key)
        lane.rows[seq] = message
        lane.size += size
        lane.touched_ms = now_ms
        self.size += size
        self.peak = max(self.peak, self.size)
        return True

    def _make_room(self, key: LaneKey, size: int, now_ms: int) -> None:
        for other in list(self._lanes):
            if self.size + size <= self._most or now_ms - self._lanes[other].touched_ms < _STALE_MS:
                return
            if other != key:
                self._drop(other)

    def get(self, key: LaneKey, seq: int) -> Inbound | None:
        lane = self._lanes.get(key)
        return lane.rows.get(seq) if lane is not None else None

    def committed(self, key: LaneKey, seq: int) -> None:
        """The lane has come this far: what is held up to here is not needed any more."""
        lane = self._lanes.get(key)
        if lane is None:
            return
        for done in [held for held in lane.rows if held <= seq]:
            size = len(lane.rows.pop(done).payload)
            lane.size -= size
            self.size -= size
        if not lane.rows:
            self._drop(key)

    def ranges(self, key: LaneKey, committed: int) -> list[pb.Range]:
        """What is held beyond ``committed``, in order."""
        lane = self._lanes.get(key)
        if lane is None:
            return []
        return [
            pb.Range(first=first, last=last) for first, last in _runs(sorted(s for s in lane.rows if s > committed))
        ]

    def forget(self, meant: Callable[[LaneKey], bool]) -> None:
        """The lanes meant are another worker's now, or of an outbox that is gone."""
        for key in [key for key in self._lanes if meant(key)]:
            self._drop(key)

    def _drop(self, key: LaneKey) -> None:
        lane = self._lanes.pop(key, None)
        if lane is not None:
            self.size -= lane.size


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    first = last = 0
    for number in numbers:
        if first and number == last + 1:
            last = number
            continue
        if first:
            yield first, last
        first = last = number
    if first:
        yield first, last
