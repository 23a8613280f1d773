"""Split messages put together again: packets of one QN in any order, given up when a part never comes.

A station may announce 9999 parts and send none: the number of parts held is bounded whatever it says.
"""

from __future__ import annotations

from dataclasses import replace

from protocols.core.errors import RemoteProtocolError
from protocols.hj212.messages import Packet

#: Answer time-out 10 s and 3 repeats (HJ 212-2017, annex B): after that no part can come any more.
JOIN_TIMEOUT_MS = 40_000
MAX_PARTS = 128
MAX_PARTS_HELD = 256

Key = tuple[str, str, str]


class _Group:
    __slots__ = ("count", "deadline_ms", "parts")

    def __init__(self, count: int, deadline_ms: int) -> None:
        self.count = count
        self.deadline_ms = deadline_ms
        self.parts: dict[int, Packet] = {}


class Joiner:
    def __init__(self) -> None:
        self._groups: dict[Key, _Group] = {}

    def add(self, packet: Packet, now_ms: int) -> list[Packet | RemoteProtocolError]:
        """Take one part; the joined message once it is whole."""
        if packet.pnum > MAX_PARTS or not 1 <= packet.pno <= packet.pnum:
            return [RemoteProtocolError(f"HJ 212 part {packet.pno} of {packet.pnum}", reason="split")]
        key = (packet.mn, packet.cn, packet.qn)
        group = self._groups.get(key)
        if group is None or group.count != packet.pnum:
            group = self._groups[key] = _Group(packet.pnum, now_ms + JOIN_TIMEOUT_MS)
        group.parts[packet.pno] = packet
        if len(group.parts) == group.count:
            del self._groups[key]
            return [_join([group.parts[n] for n in range(1, group.count + 1)])]
        out: list[Packet | RemoteProtocolError] = []
        while sum(len(g.parts) for g in self._groups.values()) > MAX_PARTS_HELD:
            self._groups.pop(next(iter(self._groups)))
            out.append(RemoteProtocolError("HJ 212 too many unfinished split messages", reason="split_overflow"))
        return out

    def deadline(self) -> int | None:
        return min((g.deadline_ms for g in self._groups.values()), default=None)

    def expire(self, now_ms: int) -> list[RemoteProtocolError]:
        late = [key for key, group in self._groups.items() if group.deadline_ms <= now_ms]
        out = []
        for key in late:
            group = self._groups.pop(key)
            text = f"HJ 212 split message: {len(group.parts)} of {group.count} parts came"
            out.append(RemoteProtocolError(text, reason="split_timeout"))
        return out

    def clear(self) -> None:
        self._groups.clear()


def _join(parts: list[Packet]) -> Packet:
    fields: dict[str, str] = {}
    factors: dict[str, dict[str, str]] = {}
    for part in parts:
        fields.update(part.fields)
        for code, items in part.factors.items():
            factors.setdefault(code, {}).update(items)
    first = parts[0]
    flag = None if first.flag is None else first.flag & ~2
    length_ok = all(part.length_ok for part in parts)
    return replace(first, flag=flag, pnum=0, pno=0, fields=fields, factors=factors, length_ok=length_ok)
