"""Frames out of a byte stream, for protocols whose header says how long the frame is.

Start marks occur inside data and noise holds false starts, so a start alone decides nothing: of all starts whose
header is plausible the one that is complete first and checks out wins, and a wrong length field never hides the good
frame behind it. What is held is less than one frame of the greatest size, whatever a length field says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from protocols.core.errors import RemoteProtocolError

_SLICE = 4096
#: A stream that is nothing but plausible starts must not cost quadratic time.
_MOST_OPEN = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """One whole frame. ``offset``: of its first byte in the stream."""

    offset: int
    data: bytes


class Shape:
    """What a protocol's frames look like; a protocol derives its own.

    ``marks``: possible first bytes, all equally long; ``head``: bytes needed to know the size.
    """

    name: str
    marks: tuple[bytes, ...]
    head: int

    def size(self, head: bytes) -> int:
        """Bytes of the whole frame, 0 if these bytes are no header."""
        raise NotImplementedError

    def fault(self, frame: bytes) -> str:
        """What is wrong with a frame of that size (``checksum``, ``end``), "" if nothing is."""
        raise NotImplementedError


class Cutter:
    """Cuts a stream into frames of one shape. Positions inside are counted from the start of the stream."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._mark = re.compile(b"|".join(re.escape(mark) for mark in shape.marks))
        self._held = bytearray()
        self._base = 0  # position of the first byte held
        self._seen = 0  # starts before this position are known
        self._open: list[tuple[int, int]] = []  # (end, start) of headers whose frame is not complete
        self._bad: list[tuple[int, int, str]] = []  # (start, end, reason), not yet told
        self._blamed_to = 0  # up to here a refusal has been told
        self._in_noise = False

    @property
    def held(self) -> int:
        """Bytes waiting for more."""
        return len(self._held)

    @property
    def rest(self) -> bytes:
        """The bytes waiting for more."""
        return bytes(self._held)

    def feed(self, data: bytes) -> list[Cut | RemoteProtocolError]:
        out: list[Cut | RemoteProtocolError] = []
        for at in range(0, len(data), _SLICE):
            self._held += data[at : at + _SLICE]
            out.extend(self._drain())
        return out

    def idle(self) -> list[Cut | RemoteProtocolError]:
        """Nothing more comes: what is held is given up."""
        out: list[Cut | RemoteProtocolError] = []
        if self._held:
            if self._base >= self._blamed_to:
                out.append(self._error("short", self._base))
            self.reset()
        return out

    def reset(self) -> None:
        self._base += len(self._held)
        self._seen = self._base
        self._held.clear()
        self._open.clear()
        self._bad.clear()
        self._in_noise = False

    # -- inside

    def _drain(self) -> Iterator[Cut | RemoteProtocolError]:
        self._look()
        while True:
            end = self._base + len(self._held)
            first = min(self._open, default=None)
            if first is None or first[0] > end:
                if len(self._open) <= _MOST_OPEN:
                    break
                first = min(self._open, key=lambda one: one[1])
                self._open.remove(first)
                self._bad.append((first[1], first[1], "length"))
                continue
            self._open.remove(first)
            data = bytes(self._held[first[1] - self._base : first[0] - self._base])
            if reason := self._shape.fault(data):
                self._bad.append((first[1], first[0], reason))
                continue
            yield from self._accept(first[1], data)
        # Nothing can start before the first open header, or before the bytes not looked at yet.
        floor = min((start for _, start in self._open), default=self._seen)
        yield from self._tell(floor)
        self._drop(floor)

    def _look(self) -> None:
        """Find the headers that have become complete."""
        shape, size = self._shape, len(self._shape.marks[0])
        at = self._seen - self._base
        while True:
            hit = self._mark.search(self._held, at)
            if hit is None:
                # A mark may be cut in two.
                at = max(at, len(self._held) - size + 1)
                while at < len(self._held) and not any(mark.startswith(self._held[at:]) for mark in shape.marks):
                    at += 1
                break
            found = hit.start()
            if len(self._held) < found + shape.head:
                at = found
                break
            length = shape.size(bytes(self._held[found : found + shape.head]))
            if length:
                start = self._base + found
                self._open.append((start + length, start))
            at = found + 1
        self._seen = self._base + at

    def _accept(self, start: int, data: bytes) -> Iterator[Cut | RemoteProtocolError]:
        for _, other in self._open:
            if other < start:
                self._bad.append((other, other, "short"))
        end = start + len(data)
        self._bad = [one for one in self._bad if one[0] < start]
        yield from self._tell(start)
        self._open = [one for one in self._open if one[1] >= end]
        self._in_noise = False
        del self._held[: end - self._base]
        self._blamed_to = self._base = end
        self._seen = max(self._seen, end)
        yield Cut(start, data)

    def _tell(self, floor: int) -> Iterator[RemoteProtocolError]:
        """Say what was wrong before ``floor``, each mishap once: what lies inside a refused frame belongs to it."""
        told = sorted(one for one in self._bad if one[0] < floor)
        self._bad = [one for one in self._bad if one[0] >= floor]
        for start, end, reason in told:
            if start >= self._blamed_to:
                if start > max(self._base, self._blamed_to) and not self._in_noise:
                    yield self._error("garbage", max(self._base, self._blamed_to))
                yield self._error(reason, start)
                self._blamed_to = max(end, start + 1)
        if floor > max(self._base, self._blamed_to) and not self._in_noise:
            yield self._error("garbage", max(self._base, self._blamed_to))

    def _error(self, reason: str, at: int) -> RemoteProtocolError:
        self._in_noise = True
        return RemoteProtocolError(f"{self._shape.name} frame refused: {reason}", reason=reason, offset=at)

    def _drop(self, floor: int) -> None:
        del self._held[: floor - self._base]
        self._base = floor
