"""Both ends of a GB/T 26875.3 link: the monitoring centre (MASTER) and the user information transmission device.

The centre never confirms by itself: a confirmation means "I have it for good", which only the one who stored it can
say. What wants an answer is kept and repeated with the same serial number: 10 s, three repeats. A device parks what
was not confirmed and sends it again beside the next upload or after the next connection; a centre gives a request up
and says so.
"""

from __future__ import annotations

from protocols.core.cutter import Cut
from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.gb26875.frame import Scanner
from protocols.gb26875.messages import CONTROL, DENY, REQUEST, SEND, Packet, encode, parse

#: The standard's limits: an answer within 10 s, three repeats.
ANSWER_TIMEOUT_MS = 10_000
REPEATS = 3
#: A half frame on a TCP connection is given up after this silence.
SILENCE_MS = 5_000
#: Parked packets that go out again with a new one, so that a long outage does not flood the link.
_PARKED_AT_A_TIME = 20
_MASTER_ONLY = (CONTROL, REQUEST)


class _Kept:
    __slots__ = ("data", "due_ms", "packet", "repeats")

    def __init__(self, packet: Packet, data: bytes, due_ms: int) -> None:
        self.packet = packet
        self.data = data
        self.due_ms: int | None = due_ms  # None: parked
        self.repeats = 0


class Gb26875Endpoint:
    """One end of one connection. ``keep``: most packets without an answer that are held."""

    def __init__(
        self, role: Role, *, answer_timeout_ms: int = ANSWER_TIMEOUT_MS, repeats: int = REPEATS, keep: int = 4096
    ) -> None:
        self.role = role
        self._scanner = Scanner()
        self._silence_at_ms: int | None = None
        self._answer_timeout_ms = answer_timeout_ms
        self._repeats = repeats
        self._keep = keep
        self._kept: dict[int, _Kept] = {}  # by serial number, oldest first
        self._output = bytearray()
        self._serial = 0
        self.dropped = 0  # uploads thrown away because more than ``keep`` were unanswered

    # -- in

    def feed(self, data: bytes, now_ms: int) -> list[Packet | RemoteProtocolError]:
        out = [self._take(found, now_ms) for found in self._scanner.feed(data)]
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return out

    def _take(self, found: Cut | RemoteProtocolError, now_ms: int) -> Packet | RemoteProtocolError:
        if isinstance(found, RemoteProtocolError):
            return found
        packet = parse(found.data)
        if packet.is_answer and (kept := self._kept.get(packet.serial)) is not None:
            if packet.command == DENY and self.role is Role.SLAVE and kept.repeats < self._repeats:
                # "Say it again": at once, but not for ever. What a device denies, it will not do.
                kept.repeats += 1
                kept.due_ms = now_ms + self._answer_timeout_ms
                self._output += kept.data
            else:
                del self._kept[packet.serial]
        return packet

    # -- out

    def next_serial(self) -> int:
        """A serial number that no unanswered packet has."""
        for _ in range(0x10000):
            self._serial = (self._serial + 1) & 0xFFFF
            if self._serial not in self._kept:
                break
        return self._serial

    def send(self, packet: Packet, now_ms: int) -> bytes:
        """The bytes of one packet; what wants an answer is kept until it has come."""
        if (self.role is Role.SLAVE and packet.command in _MASTER_ONLY) or (
            self.role is Role.MASTER and packet.command == SEND
        ):
            text = f"GB/T 26875.3 {self.role.value} cannot send command {packet.command}"
            raise LocalProtocolError(text, reason="role")
        data = encode(packet)
        if packet.wants_answer:
            for kept in [one for one in self._kept.values() if one.due_ms is None][:_PARKED_AT_A_TIME]:
                kept.due_ms, kept.repeats = now_ms, 0
            self._kept.pop(packet.serial, None)
            self._kept[packet.serial] = _Kept(packet, data, now_ms + self._answer_timeout_ms)
            while len(self._kept) > self._keep:
                self._kept.pop(next(iter(self._kept)))
                self.dropped += 1
        return data

    def take_output(self) -> bytes:
        """Repeats that were found due: write them after each :meth:`feed`, :meth:`tick` and :meth:`connected`."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def connected(self, now_ms: int) -> None:
        """A new connection: half frames of the old one are void, everything unanswered is due at once."""
        self._scanner.reset()
        self._silence_at_ms = None
        self._output.clear()
        for kept in self._kept.values():
            kept.due_ms, kept.repeats = now_ms + self._answer_timeout_ms, 0
            self._output += kept.data

    @property
    def unanswered(self) -> tuple[Packet, ...]:
        """What was sent and has no answer, oldest first."""
        return tuple(kept.packet for kept in self._kept.values())

    # -- time

    def deadline(self) -> int | None:
        due = [kept.due_ms for kept in self._kept.values() if kept.due_ms is not None]
        if self._silence_at_ms is not None:
            due.append(self._silence_at_ms)
        return min(due, default=None)

    def tick(self, now_ms: int) -> list[Packet | RemoteProtocolError]:
        out: list[Packet | RemoteProtocolError] = []
        if self._silence_at_ms is not None and self._silence_at_ms <= now_ms:
            self._silence_at_ms = None
            out += [self._take(found, now_ms) for found in self._scanner.idle()]
        for kept in list(self._kept.values()):
            if kept.due_ms is None or kept.due_ms > now_ms:
                continue
            if kept.repeats < self._repeats:
                kept.repeats += 1
                kept.due_ms = now_ms + self._answer_timeout_ms
                self._output += kept.data
            elif self.role is Role.SLAVE:
                kept.due_ms = None
            else:
                del self._kept[kept.packet.serial]
                text = f"GB/T 26875.3: no answer to command {kept.packet.command}, serial {kept.packet.serial}"
                out.append(RemoteProtocolError(text, reason="no_answer"))
        return out
