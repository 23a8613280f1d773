"""A recording played back as a device: a station that pushes what it pushed, or a slave that answers as it answered.

Whether it pushes or answers is seen from the recording: a link on which the other side spoke first is a polled one.
"""

from __future__ import annotations

import asyncio
from collections import deque

from firmware_sim.clock import Clock
from firmware_sim.links.base import Link
from protocols.core.recording import Recording

#: A request that comes in pieces is whole after this silence, when nothing recorded begins with it.
_SETTLE_S = 0.05
_MAX_REQUEST_BYTES = 4096


def polled(recording: Recording, link: int) -> bool:
    """Whether our side spoke first on that link."""
    for piece in recording.pieces:
        if piece.link == link and not piece.happening:
            return piece.direction == "out"
    return False


class Pusher:
    """Sends what the device sent, at the recorded times divided by ``speed``; what comes back is read and counted."""

    def __init__(self, recording: Recording, link: int, clock: Clock, *, speed: float = 1.0) -> None:
        self._pieces = [p for p in recording.pieces if p.link == link and p.direction == "in" and not p.happening]
        self._clock = clock
        self._speed = speed
        self.sent_bytes = 0
        self.heard_bytes = 0

    async def serve(self, link: Link) -> None:
        """Play once. Raises TransportError when the link breaks."""
        listener = asyncio.create_task(self._listen(link))
        try:
            began_ms = self._clock.now_ms()
            first_ms = self._pieces[0].t_ms if self._pieces else 0
            for piece in self._pieces:
                due_ms = began_ms + (piece.t_ms - first_ms) / self._speed
                await asyncio.sleep(max(0.0, (due_ms - self._clock.now_ms()) / 1000))
                await link.write(piece.data)
                self.sent_bytes += len(piece.data)
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, link: Link) -> None:
        while data := await link.read():
            self.heard_bytes += len(data)


class Answerer:
    """Answers each recorded request with what was answered then, in turn; silence to what was never asked."""

    def __init__(self, recording: Recording, link: int, *, turnaround_s: float = 0.02) -> None:
        self._answers: dict[bytes, deque[bytes]] = {}
        for asked, came in recording.exchanges(link):
            self._answers.setdefault(asked, deque()).append(came)
        self._turnaround_s = turnaround_s
        self.answered = 0
        self.unknown = 0

    async def serve(self, link: Link) -> None:
        """Answer until the other end closes. Raises TransportError when the link breaks."""
        asked = b""
        while True:
            try:
                async with asyncio.timeout(_SETTLE_S if asked else None):
                    data = await link.read()
            except TimeoutError:
                self.unknown += 1
                asked = b""
                continue
            if not data:
                return
            asked = (asked + data)[-_MAX_REQUEST_BYTES:]
            if (answers := self._answers.get(asked)) is None:
                continue
            answer = answers[0]
            answers.rotate(-1)
            self.answered += 1
            asked = b""
            await asyncio.sleep(self._turnaround_s)
            if answer:
                await link.write(answer)
