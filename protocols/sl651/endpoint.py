"""Both ends of an SL 651 conversation: the centre (MASTER) and the station (SLAVE).

A centre never confirms by itself: EOT, ESC or ACK mean "I have it for good", which only the one who stored it can say.
What it does say by itself is NAK, for a packet that did not come. A station in mode M2 keeps what was not confirmed,
repeats it twice, and sends it again with the next report: nothing is said when a telegram is bad.
"""

from __future__ import annotations

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.sl651.frame import End, Scanner, Telegram, build
from protocols.sl651.joiner import Joiner
from protocols.sl651.messages import REPORTS, again, split

#: The standard leaves the wait to the channel; two repeats, then the next report.
ANSWER_TIMEOUT_MS = 10_000
REPEATS = 2
#: A half telegram on a TCP connection is given up after this silence.
SILENCE_MS = 5_000
_CONFIRMS = (End.EOT, End.ESC, End.ACK)
#: Old reports sent along with a new one, so that a long outage does not flood the link.
_PARKED_PER_REPORT = 20
#: Longest body that is sent in one piece.
PACKET = 512

Key = tuple[int, bytes]


class _Kept:
    __slots__ = ("data", "due_ms", "repeats", "telegram")

    def __init__(self, telegram: Telegram, data: list[bytes], due_ms: int) -> None:
        self.telegram = telegram
        self.data = data  # packet by packet
        self.due_ms: int | None = due_ms  # None: parked until the next report
        self.repeats = 0


class Sl651Endpoint:
    """One end of one connection.

    ``confirmed``: the station runs in mode M2 (or M3) and keeps its reports until the centre confirms them; without it
    (M1) a report is sent once.
    """

    def __init__(
        self,
        role: Role,
        *,
        confirmed: bool = True,
        answer_timeout_ms: int = ANSWER_TIMEOUT_MS,
        repeats: int = REPEATS,
        keep: int = 4096,
        packet: int = PACKET,
    ) -> None:
        self.role = role
        self._scanner = Scanner()
        self._joiner = Joiner()
        self._confirmed = confirmed
        self._silence_at_ms: int | None = None
        self._answer_timeout_ms = answer_timeout_ms
        self._repeats = repeats
        self._keep = keep
        self._packet = packet
        self._kept: dict[Key, _Kept] = {}
        self._output = bytearray()
        self.dropped = 0  # reports thrown away because more than ``keep`` were unconfirmed

    # -- in

    def feed(self, data: bytes, now_ms: int) -> list[Telegram | RemoteProtocolError]:
        out: list[Telegram | RemoteProtocolError] = []
        for found in self._scanner.feed(data):
            out.extend(self._take(found, now_ms))
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return out

    def _take(self, found: Telegram | RemoteProtocolError, now_ms: int) -> list[Telegram | RemoteProtocolError]:
        if isinstance(found, RemoteProtocolError):
            return [found]
        if self.role is Role.SLAVE and found.down and self._settles(found):
            return [found]
        if found.total and found.end is not End.NAK:
            return self._joiner.add(found, now_ms)
        return [found]

    def _settles(self, answer: Telegram) -> bool:
        """Whether it is the centre's word on a report of ours; acts on it."""
        serial = answer.body[:4] if answer.ascii else answer.body[:2]
        if answer.end in _CONFIRMS:
            self._kept.pop((answer.func, serial), None)
            return True
        if answer.end is not End.NAK:
            return False
        for (func, _), kept in self._kept.items():
            if func == answer.func and answer.total == len(kept.data) and answer.seq:
                self._output += kept.data[answer.seq - 1]
                return True
        return True

    # -- out

    def send(self, telegram: Telegram, now_ms: int) -> bytes:
        """The bytes of one message, in packets where it is long. A station's report is kept until it is confirmed;
        older ones whose repeats ran out go along with it."""
        if telegram.seq:
            return build(telegram)
        parts = split(telegram, self._packet)
        data = [build(part) for part in parts]
        if self.role is Role.MASTER or not self._confirmed or telegram.down or telegram.func not in REPORTS:
            return b"".join(data)
        width = 4 if telegram.ascii else 2
        if len(telegram.body) < width:
            raise LocalProtocolError("SL 651 report without a serial number", reason="format")
        old = [kept for kept in self._kept.values() if kept.due_ms is None][:_PARKED_PER_REPORT]
        for kept in old:
            kept.due_ms, kept.repeats = now_ms + self._answer_timeout_ms, 0
        key = (telegram.func, telegram.body[:width])
        self._kept[key] = _Kept(telegram, data, now_ms + self._answer_timeout_ms)
        while len(self._kept) > self._keep:
            self._kept.pop(next(iter(self._kept)))
            self.dropped += 1
        return b"".join(data) + b"".join(piece for kept in old for piece in kept.data)

    def take_output(self) -> bytes:
        """Repeats and NAKs that are due: write them after each :meth:`feed`, :meth:`tick` and :meth:`connected`."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def connected(self, now_ms: int) -> None:
        """A new connection: half telegrams of the old one are void, everything unconfirmed is due at once."""
        self._scanner.reset()
        self._joiner.clear()
        self._silence_at_ms = None
        self._output.clear()
        for kept in self._kept.values():
            kept.due_ms, kept.repeats = now_ms + self._answer_timeout_ms, 0
            self._output += b"".join(kept.data)

    @property
    def unanswered(self) -> tuple[Telegram, ...]:
        """A station's reports without confirmation, oldest first."""
        return tuple(kept.telegram for kept in self._kept.values())

    # -- time

    def deadline(self) -> int | None:
        due = [kept.due_ms for kept in self._kept.values() if kept.due_ms is not None]
        due += [at for at in (self._silence_at_ms, self._joiner.deadline()) if at is not None]
        return min(due, default=None)

    def tick(self, now_ms: int) -> list[Telegram | RemoteProtocolError]:
        out: list[Telegram | RemoteProtocolError] = []
        if self._silence_at_ms is not None and self._silence_at_ms <= now_ms:
            self._silence_at_ms = None
            for found in self._scanner.idle():
                out.extend(self._take(found, now_ms))
        ask, lost = self._joiner.expire(now_ms)
        out.extend(lost)
        for part, missing in ask if self.role is Role.MASTER else []:
            self._output += build(again(part, missing))
        for kept in self._kept.values():
            if kept.due_ms is not None and kept.due_ms <= now_ms:
                if kept.repeats < self._repeats:
                    kept.repeats += 1
                    kept.due_ms = now_ms + self._answer_timeout_ms
                    self._output += b"".join(kept.data)
                else:
                    kept.due_ms = None
        return out
