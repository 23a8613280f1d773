"""One end of a SIP connection as bytes: messages out of a TCP stream or datagrams, and back.

SIP is the same in both directions; what platform (MASTER) and camera (SLAVE) do with the messages is in
``platform.py`` and ``device.py``.
"""

from __future__ import annotations

from protocols.core.endpoint import Role
from protocols.core.errors import RemoteProtocolError
from protocols.gb28181.frame import Scanner, SipMessage, build, parse_datagram

#: Half a message on a TCP connection is given up after this silence.
SILENCE_MS = 5_000


class SipEndpoint:
    """One TCP connection, or all datagrams of a UDP socket (:meth:`feed_datagram` keeps nothing between two)."""

    def __init__(self, role: Role) -> None:
        self.role = role
        self._scanner = Scanner()
        self._silence_at_ms: int | None = None

    def feed(self, data: bytes, now_ms: int) -> list[SipMessage | RemoteProtocolError]:
        out = self._scanner.feed(data)
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return out

    def feed_datagram(self, data: bytes) -> list[SipMessage | RemoteProtocolError]:
        try:
            message = parse_datagram(data)
        except RemoteProtocolError as error:
            return [error]
        return [] if message is None else [message]

    def send(self, message: SipMessage, now_ms: int) -> bytes:
        """The bytes of one message. Raises LocalProtocolError."""
        return build(message)

    def deadline(self) -> int | None:
        return self._silence_at_ms

    def tick(self, now_ms: int) -> list[SipMessage | RemoteProtocolError]:
        if self._silence_at_ms is None or now_ms < self._silence_at_ms:
            return []
        self._silence_at_ms = None
        return self._scanner.idle()
