"""One end of a line of NMEA 0183: the one that listens and commands (MASTER), or the receiver (SLAVE).

Nothing is answered here: sentences come as they come. What they say is in :mod:`gnss` and :mod:`beidou`.
"""

from __future__ import annotations

from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.nmea_beidou.sentence import Scanner, Sentence, build

#: At 4800 baud a sentence takes 0.2 s, the longest BeiDou message 5 s.
SILENCE_MS = 6_000


class NmeaEndpoint:
    """``bare``: sentences without a checksum are taken, too (only where the receiver is configured so)."""

    def __init__(self, role: Role, *, bare: bool = False) -> None:
        self.role = role
        self._scanner = Scanner(bare=bare)
        self._silence_at_ms: int | None = None

    def feed(self, data: bytes, now_ms: int) -> list[Sentence | RemoteProtocolError]:
        found = self._scanner.feed(data)
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return found

    def send(self, message: Sentence, now_ms: int) -> bytes:
        """The line. Raises LocalProtocolError for what a field cannot hold."""
        return build(message)

    def deadline(self) -> int | None:
        return self._silence_at_ms

    def tick(self, now_ms: int) -> list[Sentence | RemoteProtocolError]:
        if self._silence_at_ms is None or now_ms < self._silence_at_ms:
            return []
        self._silence_at_ms = None
        return self._scanner.idle()
