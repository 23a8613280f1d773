"""Both ends of an HJ 212 conversation: the platform (MASTER, uploads in) and the station (SLAVE, uploads out).

A platform never answers by itself: 9014 means "I have it for good", which only the one who stored it can say. A
station keeps what was not answered, repeats it after 10 s up to three times, then again with the next period and
after every reconnection: nothing is lost between the two as long as both keep to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.hj212.frame import VARIANTS, RawFrame, Scanner, Variant
from protocols.hj212.joiner import Joiner
from protocols.hj212.messages import Packet, encode, parse

#: HJ 212-2017, annex B: 10 s, three repeats.
ANSWER_TIMEOUT_MS = 10_000
REPEATS = 3
#: A half frame on a TCP connection is given up after this silence.
SILENCE_MS = 5_000
#: Good frames of one rule after which a station is held to it.
LOCK_AFTER = 3
_MAX_STATIONS = 256
#: Old uploads sent along with a new one, so that a long outage does not flood the link.
_PARKED_PER_PERIOD = 20

Checksum = Literal["auto", "hj212", "modbus", "modbus-swapped", "arc"]


class _Kept:
    __slots__ = ("data", "due_ms", "packet", "repeats")

    def __init__(self, packet: Packet, data: bytes, due_ms: int) -> None:
        self.packet = packet
        self.data = data
        self.due_ms: int | None = due_ms  # None: parked until the next period
        self.repeats = 0


class Hj212Endpoint:
    """One end of one connection.

    ``checksum``: the rule in use, "auto" finds it (and after three good frames holds a station to it). ``rules``: the
    configured rule by MN, for a connection that carries several stations. ``strict``: the standard and nothing else.
    """

    def __init__(
        self,
        role: Role,
        *,
        checksum: Checksum = "auto",
        strict: bool = False,
        rules: Mapping[str, Checksum] | None = None,
        answer_timeout_ms: int = ANSWER_TIMEOUT_MS,
        repeats: int = REPEATS,
        keep: int = 4096,
    ) -> None:
        self.role = role
        self._checksum: Checksum = checksum
        self._rules = dict(rules or {})
        fixed = checksum != "auto" and all(rule == checksum for rule in self._rules.values())
        self._scanner = Scanner(variants=(checksum,) if fixed and checksum != "auto" else VARIANTS, strict=strict)
        self._joiner = Joiner()
        self._seen_rule: dict[str, tuple[Variant, int]] = {}
        self._silence_at_ms: int | None = None
        self._answer_timeout_ms = answer_timeout_ms
        self._repeats = repeats
        self._keep = keep
        self._kept: dict[tuple[str, int], _Kept] = {}  # by QN and part
        self._output = bytearray()
        self.dropped = 0  # uploads thrown away because more than ``keep`` were unanswered

    # -- in

    def feed(self, data: bytes, now_ms: int) -> list[Packet | RemoteProtocolError]:
        out: list[Packet | RemoteProtocolError] = []
        for found in self._scanner.feed(data):
            out.extend(self._take(found, now_ms))
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return out

    def _take(self, found: RawFrame | RemoteProtocolError, now_ms: int) -> list[Packet | RemoteProtocolError]:
        if isinstance(found, RemoteProtocolError):
            return [found]
        try:
            packet = parse(found)
        except RemoteProtocolError as error:
            return [error]
        if (refused := self._held_to_rule(packet)) is not None:
            return [refused]
        if packet.is_split:
            return self._joiner.add(packet, now_ms)
        if self.role is Role.SLAVE and packet.cn in ("9014", "9013"):
            for key in [key for key in self._kept if key[0] == packet.qn]:
                del self._kept[key]
        return [packet]

    def _held_to_rule(self, packet: Packet) -> RemoteProtocolError | None:
        variant = packet.crc_variant
        rule = self._rules.get(packet.mn, self._checksum)
        if rule == "auto":
            known, count = self._seen_rule.get(packet.mn, (variant, 0))
            if known == variant:
                if len(self._seen_rule) < _MAX_STATIONS or packet.mn in self._seen_rule:
                    self._seen_rule[packet.mn] = (variant, min(count + 1, LOCK_AFTER))
                return None
            if count < LOCK_AFTER:
                self._seen_rule[packet.mn] = (variant, 1)
                return None
            rule = known
        if rule == variant:
            return None
        return RemoteProtocolError(f"HJ 212 checksum by rule {variant}, the station uses {rule}", reason="crc")

    # -- out

    def send(self, packet: Packet, now_ms: int) -> bytes:
        """The bytes of one packet. A station's upload that wants an answer is kept until 9014 comes; older ones whose
        repeats ran out go along with it."""
        if self.role is Role.SLAVE and self._checksum != "auto":
            packet = replace(packet, crc_variant=self._checksum)
        data = encode(packet)
        if self.role is Role.MASTER or not (packet.is_upload and packet.wants_answer):
            return data
        if not packet.qn:
            raise LocalProtocolError("HJ 212 upload wants an answer but has no QN", reason="qn")
        old = [kept for kept in self._kept.values() if kept.due_ms is None][:_PARKED_PER_PERIOD]
        for kept in old:
            kept.due_ms, kept.repeats = now_ms + self._answer_timeout_ms, 0
        self._kept[packet.qn, packet.pno] = _Kept(packet, data, now_ms + self._answer_timeout_ms)
        while len(self._kept) > self._keep:
            self._kept.pop(next(iter(self._kept)))
            self.dropped += 1
        return data + b"".join(kept.data for kept in old)

    def take_output(self) -> bytes:
        """Repeats that :meth:`tick` or :meth:`connected` found due: write them after each call."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def connected(self, now_ms: int) -> None:
        """A new connection: half frames of the old one are void, everything unanswered is due at once."""
        self._scanner.reset()
        self._joiner.clear()
        self._silence_at_ms = None
        self._output.clear()
        for kept in self._kept.values():
            kept.due_ms, kept.repeats = now_ms + self._answer_timeout_ms, 0
            self._output += kept.data

    @property
    def unanswered(self) -> tuple[Packet, ...]:
        """A station's uploads without 9014, oldest first."""
        return tuple(kept.packet for kept in self._kept.values())

    # -- time

    def deadline(self) -> int | None:
        due = [kept.due_ms for kept in self._kept.values() if kept.due_ms is not None]
        due += [at for at in (self._silence_at_ms, self._joiner.deadline()) if at is not None]
        return min(due, default=None)

    def tick(self, now_ms: int) -> list[Packet | RemoteProtocolError]:
        out: list[Packet | RemoteProtocolError] = []
        if self._silence_at_ms is not None and self._silence_at_ms <= now_ms:
            self._silence_at_ms = None
            for found in self._scanner.idle():
                out.extend(self._take(found, now_ms))
        out.extend(self._joiner.expire(now_ms))
        for kept in self._kept.values():
            if kept.due_ms is not None and kept.due_ms <= now_ms:
                if kept.repeats < self._repeats:
                    kept.repeats += 1
                    kept.due_ms = now_ms + self._answer_timeout_ms
                    self._output += kept.data
                else:
                    kept.due_ms = None
        return out
