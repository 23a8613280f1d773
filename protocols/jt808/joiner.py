"""Sub-packages put together again: any order, re-sent parts, gaps asked for, given up when they never come.

The standard wants consecutive serials; real terminals also leave gaps in them (a heartbeat between two parts) and send
what was asked for again under new ones. So a part with another serial joins an open set where it carries on in order,
or once gaps were asked for. A set that is whole is kept until it expires: the answer to its last part may get lost,
and then only that part comes again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from protocols.core.errors import RemoteProtocolError
from protocols.jt808.frame import Frame

MAX_PARTS = 1_000
MAX_SETS = 8
#: Silence after which missing parts are asked for, and between two such requests.
GAP_MS = 8_000
MAX_REQUESTS = 3
LIFETIME_MS = 150_000
#: Indexes in one request: the count is one byte before 2019.
MAX_ASKED = 255

Key = tuple[str, int, int]


class _Set:
    __slots__ = ("base", "due_ms", "ends_ms", "last", "parts", "requests", "size", "whole")

    def __init__(self, base: int, now_ms: int) -> None:
        self.base = base
        self.last = 0  # index of the part that came last
        self.parts: dict[int, Frame] = {}
        self.size = 0
        self.requests = 0
        self.whole = False
        self.due_ms = now_ms + GAP_MS
        self.ends_ms = now_ms + LIFETIME_MS

    def deadline(self) -> int:
        return self.ends_ms if self.whole else min(self.due_ms, self.ends_ms)


@dataclass(frozen=True, slots=True)
class Joined:
    """``last``: the part that ends the message, whose answer confirms the whole."""

    frame: Frame
    last: Frame


@dataclass(frozen=True, slots=True)
class Gap:
    """What to ask for. ``part``: any part of the set, for the header."""

    part: Frame
    first_serial: int
    missing: tuple[int, ...]


class Joiner:
    """``max_bytes``: what all sets together may hold, whatever the terminal announces."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._sets: dict[Key, _Set] = {}

    @property
    def held(self) -> int:
        return sum(one.size for one in self._sets.values())

    def add(self, frame: Frame, now_ms: int) -> list[Joined | RemoteProtocolError]:
        """Take one part; the joined frame once it is whole (again, if its last part is re-sent)."""
        if frame.total > MAX_PARTS:
            return [RemoteProtocolError(f"JT/T 808 message in {frame.total} parts", reason="split")]
        out: list[Joined | RemoteProtocolError] = []
        key = (frame.phone, frame.msg_id, frame.total)
        base = (frame.serial - frame.index + 1) & 0xFFFF
        found = self._sets.get(key)
        if found is not None and not _fits(found, frame, base):
            if not found.whole:
                out.append(_lost(found, frame.total, "another one began"))
            del self._sets[key]
            found = None
        if found is None:
            found = self._sets[key] = _Set(base, now_ms)
        if frame.index not in found.parts:
            found.parts[frame.index] = frame
            found.size += len(frame.body)
            found.last = frame.index
        found.due_ms = now_ms + GAP_MS
        if len(found.parts) == frame.total and (not found.whole or frame.index == frame.total):
            found.whole = True
            ends = found.parts[frame.total] if frame.index != frame.total else frame
            out.append(Joined(_join(found, frame), ends))
        return out + self._shrink(key)

    def _shrink(self, newest: Key) -> list[RemoteProtocolError]:
        out: list[RemoteProtocolError] = []
        while len(self._sets) > MAX_SETS or self.held > self._max_bytes:
            victims = sorted((key for key in self._sets if key != newest), key=lambda one: not self._sets[one].whole)
            victim = victims[0] if victims else newest
            found = self._sets.pop(victim)
            if not found.whole:
                out.append(RemoteProtocolError("JT/T 808 too much in unfinished messages", reason="split_overflow"))
        return out

    def deadline(self) -> int | None:
        return min((one.deadline() for one in self._sets.values()), default=None)

    def tick(self, now_ms: int) -> list[Gap | RemoteProtocolError]:
        """Gaps to ask for; sets that are given up."""
        out: list[Gap | RemoteProtocolError] = []
        for key, one in list(self._sets.items()):
            if one.whole:
                if one.ends_ms <= now_ms:
                    del self._sets[key]
            elif one.ends_ms <= now_ms or (one.due_ms <= now_ms and one.requests >= MAX_REQUESTS):
                del self._sets[key]
                out.append(_lost(one, key[2], "given up"))
            elif one.due_ms <= now_ms:
                one.requests += 1
                one.due_ms = now_ms + GAP_MS
                missing = [index for index in range(1, key[2] + 1) if index not in one.parts]
                part = next(iter(one.parts.values()))
                first = one.parts.get(1)
                out.append(Gap(part, first.serial if first else one.base, tuple(missing[:MAX_ASKED])))
        return out

    def clear(self) -> None:
        self._sets.clear()


def _fits(found: _Set, frame: Frame, base: int) -> bool:
    """Whether the part belongs to the set. Serials restart with the device, so a known place must hold the same."""
    held = found.parts.get(frame.index)
    if held is not None:
        return held.body == frame.body and (found.base == base or held.serial == frame.serial)
    if found.whole:
        return False
    if found.base == base or found.requests:
        return True
    newest = found.parts[found.last]
    return frame.index > max(found.parts) and 0 < (frame.serial - newest.serial) & 0xFFFF < 0x8000


def _join(found: _Set, frame: Frame) -> Frame:
    first = found.parts[1]
    body = b"".join(found.parts[index].body for index in range(1, frame.total + 1))
    return replace(first, body=body, total=0, index=0)


def _lost(found: _Set, total: int, why: str) -> RemoteProtocolError:
    text = f"JT/T 808 message in parts: {len(found.parts)} of {total} came, {why}"
    return RemoteProtocolError(text, reason="split_timeout")
