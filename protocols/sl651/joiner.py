"""Packets of one message put together again (mode M3), in any order; what is missing is known and can be asked for.

A station may announce 4095 packets and send none: bytes and messages held are bounded whatever it says.
"""

from __future__ import annotations

from dataclasses import replace

from protocols.core.errors import RemoteProtocolError
from protocols.sl651.frame import Telegram

#: After this silence the centre asks for a missing packet (NAK), so often, and then gives up.
ASK_AFTER_MS = 10_000
ASKS = 3
GIVE_UP_MS = ASK_AFTER_MS * (ASKS + 1)
MAX_PACKETS = 1024
MAX_BYTES = 2 * 1024 * 1024
MAX_MESSAGES = 16

Key = tuple[str, int, bool]


class _Group:
    __slots__ = ("asked", "heard_ms", "parts", "size", "total")

    def __init__(self, total: int, now_ms: int) -> None:
        self.total = total
        self.heard_ms = now_ms
        self.asked = 0
        self.parts: dict[int, Telegram] = {}
        self.size = 0

    @property
    def due_ms(self) -> int:
        return self.heard_ms + ASK_AFTER_MS * (self.asked + 1)

    def missing(self) -> int:
        """The lowest packet number that has not come."""
        return next(n for n in range(1, self.total + 1) if n not in self.parts)


class Joiner:
    def __init__(self) -> None:
        self._groups: dict[Key, _Group] = {}

    def add(self, packet: Telegram, now_ms: int) -> list[Telegram | RemoteProtocolError]:
        """Take one packet; the whole message once all are there."""
        if packet.total > MAX_PACKETS:
            return [RemoteProtocolError(f"SL 651 message of {packet.total} packets", reason="split")]
        key = (packet.station, packet.func, packet.down)
        group = self._groups.get(key)
        known = None if group is None else group.parts.get(packet.seq)
        # Packets say neither serial number nor time (but the first): another total, or other bytes under a number
        # that is here already, is another message.
        if group is None or group.total != packet.total or (known is not None and known.body != packet.body):
            group = self._groups[key] = _Group(packet.total, now_ms)
            known = None
        if known is None:
            group.size += len(packet.body)
        group.parts[packet.seq] = packet
        group.heard_ms = now_ms
        group.asked = 0
        if len(group.parts) == group.total:
            del self._groups[key]
            return [_join([group.parts[n] for n in range(1, group.total + 1)])]
        out: list[Telegram | RemoteProtocolError] = []
        while len(self._groups) > MAX_MESSAGES or sum(g.size for g in self._groups.values()) > MAX_BYTES:
            del self._groups[next(iter(self._groups))]
            out.append(RemoteProtocolError("SL 651 too many unfinished messages", reason="split_overflow"))
        return out

    def deadline(self) -> int | None:
        return min((group.due_ms for group in self._groups.values()), default=None)

    def expire(self, now_ms: int) -> tuple[list[tuple[Telegram, int]], list[RemoteProtocolError]]:
        """Messages that stalled: the first packet that is here and the number to ask for again; and those given up."""
        ask: list[tuple[Telegram, int]] = []
        lost: list[RemoteProtocolError] = []
        for key, group in list(self._groups.items()):
            if now_ms >= group.heard_ms + GIVE_UP_MS:
                del self._groups[key]
                text = f"SL 651 message of several packets: {len(group.parts)} of {group.total} came"
                lost.append(RemoteProtocolError(text, reason="split_timeout"))
            elif now_ms >= group.due_ms:
                group.asked += 1
                ask.append((group.parts[min(group.parts)], group.missing()))
        return ask, lost

    def clear(self) -> None:
        self._groups.clear()


def _join(parts: list[Telegram]) -> Telegram:
    body = b"".join(part.body for part in parts)
    return replace(parts[0], body=body, seq=0, end=parts[-1].end)
