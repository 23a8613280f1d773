"""Both ends of a GB/T 32960 link: the platform (MASTER) and the vehicle's terminal (SLAVE).

A platform never answers by itself: flag 01 means "I have it for good", which only the one who stored it can say. The
frames carry no serial number: an answer belongs to the oldest message of the same command and time. A terminal repeats
what was not answered, and later (beside a new report, after a new connection) sends it again as command 03 with its own
time.
"""

from __future__ import annotations

from dataclasses import replace

from protocols.core.cutter import Cut
from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.gb32960.frame import Scanner
from protocols.gb32960.messages import (
    CLOCK,
    CONTROL,
    HEARTBEAT,
    LOGIN,
    PLATFORM_LOGIN,
    QUERY,
    REALTIME,
    RESENT,
    SET,
    Message,
    encode,
    parse,
)

ANSWER_TIMEOUT_MS = 10_000
REPEATS = 3
#: A login without an answer is repeated after a minute; after three failures the terminal waits half an hour.
LOGIN_RETRY_MS = 60_000
LOGIN_REST_MS = 1_800_000
#: A half frame is given up after this silence.
SILENCE_MS = 10_000
#: Parked reports that go out again with a new one, so that a long outage does not flood the link.
_PARKED_AT_A_TIME = 20
_DOWN = (QUERY, SET, CONTROL)


class _Kept:
    __slots__ = ("due_ms", "message", "repeats")

    def __init__(self, message: Message, due_ms: int) -> None:
        self.message = message
        self.due_ms: int | None = due_ms  # None: parked
        self.repeats = 0


class Gb32960Endpoint:
    """One end of one connection. ``keep``: most messages without an answer that are held."""

    def __init__(
        self, role: Role, *, answer_timeout_ms: int = ANSWER_TIMEOUT_MS, repeats: int = REPEATS, keep: int = 4096
    ) -> None:
        self.role = role
        self._scanner = Scanner()
        self._silence_at_ms: int | None = None
        self._answer_timeout_ms = answer_timeout_ms
        self._repeats = repeats
        self._keep = keep
        self._kept: list[_Kept] = []  # oldest first
        self._output = bytearray()
        self.dropped = 0  # reports thrown away because more than ``keep`` were unanswered

    # -- in

    def feed(self, data: bytes, now_ms: int) -> list[Message | RemoteProtocolError]:
        out = [self._take(found) for found in self._scanner.feed(data)]
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return out

    def _take(self, found: Cut | RemoteProtocolError) -> Message | RemoteProtocolError:
        if isinstance(found, RemoteProtocolError):
            return found
        message = parse(found.data)
        if not message.is_command:
            for kept in self._kept:
                if _answers(message, kept.message):
                    self._kept.remove(kept)
                    break
        return message

    # -- out

    def send(self, message: Message, now_ms: int) -> bytes:
        """The bytes of one message; a command is kept until its answer has come."""
        if message.is_command and (message.command in _DOWN) is not (self.role is Role.MASTER):
            text = f"GB/T 32960 {self.role.value} cannot send command {message.command:#04x}"
            if message.command < 0xC0:  # a platform's own commands go both ways
                raise LocalProtocolError(text, reason="role")
        data = encode(message)
        if message.is_command and message.command not in (HEARTBEAT, CLOCK):
            for kept in [one for one in self._kept if one.due_ms is None][:_PARKED_AT_A_TIME]:
                self._resend(kept, now_ms)
            self._kept.append(_Kept(message, now_ms + self._wait_ms(message)))
            if len(self._kept) > self._keep:
                del self._kept[0]
                self.dropped += 1
        return data

    def _wait_ms(self, message: Message) -> int:
        return LOGIN_RETRY_MS if message.command in (LOGIN, PLATFORM_LOGIN) else self._answer_timeout_ms

    def take_output(self) -> bytes:
        """Repeats that were found due: write them after each :meth:`tick` and :meth:`connected`."""
        data = bytes(self._output)
        self._output.clear()
        return data

    def connected(self, now_ms: int) -> None:
        """A new connection: half frames of the old one are void, logins of it too; unanswered reports are due again,
        as command 03. The caller logs in first."""
        self._scanner.reset()
        self._silence_at_ms = None
        self._output.clear()
        self._kept = [kept for kept in self._kept if kept.message.command in (REALTIME, RESENT)]
        for kept in self._kept:
            self._resend(kept, now_ms)

    @staticmethod
    def _resend(kept: _Kept, now_ms: int) -> None:
        if kept.message.command == REALTIME:
            kept.message = replace(kept.message, command=RESENT)
        kept.due_ms, kept.repeats = now_ms, 0

    @property
    def unanswered(self) -> tuple[Message, ...]:
        """What was sent and has no answer, oldest first."""
        return tuple(kept.message for kept in self._kept)

    # -- time

    def deadline(self) -> int | None:
        due = [kept.due_ms for kept in self._kept if kept.due_ms is not None]
        if self._silence_at_ms is not None:
            due.append(self._silence_at_ms)
        return min(due, default=None)

    def tick(self, now_ms: int) -> list[Message | RemoteProtocolError]:
        out: list[Message | RemoteProtocolError] = []
        if self._silence_at_ms is not None and self._silence_at_ms <= now_ms:
            self._silence_at_ms = None
            out += [self._take(found) for found in self._scanner.idle()]
        for kept in list(self._kept):
            if kept.due_ms is None or kept.due_ms > now_ms:
                continue
            login = kept.message.command in (LOGIN, PLATFORM_LOGIN)
            if login and kept.repeats >= self._repeats:
                kept.repeats, kept.due_ms = 0, now_ms + LOGIN_REST_MS
            elif kept.repeats < self._repeats:
                kept.repeats += 1
                kept.due_ms = now_ms + self._wait_ms(kept.message)
                self._output += encode(kept.message)
            elif self.role is Role.SLAVE:
                kept.due_ms = None
            else:
                self._kept.remove(kept)
                text = f"GB/T 32960 {kept.message.vin}: no answer to command {kept.message.command:#04x}"
                out.append(RemoteProtocolError(text, reason="no_answer"))
        return out


def _answers(answer: Message, asked: Message) -> bool:
    if answer.command != asked.command or answer.raw_vin != asked.raw_vin:
        return False
    return answer.stamp == asked.stamp or not answer.stamp or not asked.stamp
