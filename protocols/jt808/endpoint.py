"""Both ends of a JT/T 808 conversation: the platform (MASTER) and the terminal (SLAVE).

A platform never answers a whole message by itself: 8001 means "I have it for good", which only the one who stored it
can say. The parts of a long message are answered here, because terminals wait for that before they send the next one;
only the part that ends it waits: its answer is the answer to the whole, and comes from the owner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.jt808.body import Body
from protocols.jt808.frame import MAX_BODY, Frame, Scanner, build
from protocols.jt808.joiner import Gap, Joiner
from protocols.jt808.messages import WANTS_ANSWER, Message, frames, parse
from protocols.jt808.platform import (
    PlatformAnswer,
    RegisterAnswer,
    ResendRequest,
    ServerTime,
    TerminalResendRequest,
)

#: A half frame is given up after this silence: mobile networks stall for many seconds.
SILENCE_MS = 30_000
#: Parameters 0002 and 0003 where nobody set them.
ANSWER_TIMEOUT_MS = 10_000
RESENDS = 3
#: What one connection may hold in unfinished messages.
MAX_JOINED_BYTES = 512 * 1024
_KEPT_SPLITS = 4


class _Kept:
    __slots__ = ("data", "due_ms", "message", "times")

    def __init__(self, message: Message, data: bytes, due_ms: int) -> None:
        self.message = message
        self.data = data
        self.due_ms = due_ms
        self.times = 0


class Jt808Endpoint:
    """One end of one connection.

    ``accepts``: whether parts of that message of that terminal may be held and answered (a terminal that has not
    authenticated must not). ``keep``: messages a terminal keeps and re-sends until answered; the oldest goes first.
    ``max_body``: longer bodies go out as sub-packages.
    """

    def __init__(
        self,
        role: Role,
        *,
        accepts: Callable[[str, int], bool] = lambda phone, msg_id: True,
        max_body: int = MAX_BODY,
        keep: int = 0,
        answer_timeout_ms: int = ANSWER_TIMEOUT_MS,
        resends: int = RESENDS,
        max_joined_bytes: int = MAX_JOINED_BYTES,
    ) -> None:
        if not 1 <= max_body <= MAX_BODY:
            raise LocalProtocolError(f"JT/T 808 frame body of at most {max_body} bytes", reason="length")
        self.role = role
        self._accepts = accepts
        self._max_body = max_body
        self._keep = keep
        self._answer_timeout_ms = answer_timeout_ms
        self._resends = resends
        self._scanner = Scanner()
        self._joiner = Joiner(max_joined_bytes)
        self._silence_at_ms: int | None = None
        self._serial = 0
        self._kept: dict[int, _Kept] = {}
        self._splits: dict[int, list[Frame]] = {}  # by the serial of the first part
        self._output = bytearray()
        self.given_up: list[Message] = []  # not answered after all resends; taken by whoever owns the terminal

    # -- in

    def feed(self, data: bytes, now_ms: int) -> list[Message | RemoteProtocolError]:
        out: list[Message | RemoteProtocolError] = []
        for found in self._scanner.feed(data):
            if isinstance(found, RemoteProtocolError):
                out.append(found)
            elif found.total > 1:
                out.extend(self._part(found, now_ms))
            else:
                out.append(self._whole(found, found.serial))
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return out

    def _part(self, frame: Frame, now_ms: int) -> Iterator[Message | RemoteProtocolError]:
        if not self._accepts(frame.phone, frame.msg_id):
            yield RemoteProtocolError("JT/T 808 part of a message before authentication", reason="unauthenticated")
            return
        # The part that ends the message is answered by whoever stores the whole: a terminal forgets with that answer.
        silent = self.role is Role.SLAVE or frame.index == frame.total
        for one in self._joiner.add(frame, now_ms):
            if isinstance(one, RemoteProtocolError):
                silent |= one.reason == "split"  # nothing of it is held
                yield one
            else:
                yield self._whole(one.frame, one.last.serial)
        if not silent:
            self._say(frame, PlatformAnswer(frame.serial, frame.msg_id))

    def _whole(self, frame: Frame, last_serial: int) -> Message:
        message = parse(frame)
        if last_serial != frame.serial:
            message = replace(message, last_serial=last_serial)
        body = message.body
        if isinstance(body, ResendRequest):
            for part in self._splits.get(body.original_sn, ()):
                if part.index in body.missing:
                    self._output += build(part)
        elif self.role is Role.SLAVE and isinstance(body, (PlatformAnswer, RegisterAnswer)):
            self._kept.pop(body.ack_sn, None)
        elif self.role is Role.SLAVE and isinstance(body, ServerTime):
            for serial in [s for s, kept in self._kept.items() if kept.message.msg_id == 0x0004]:
                del self._kept[serial]
        return message

    def _say(self, to: Frame, body: Body) -> None:
        """Something the protocol itself answers, in the layout of that frame."""
        message = Message(to.phone, body, None, to.version, to.protocol_version)
        self._output += self.send(message, 0)

    # -- out

    def send(self, message: Message, now_ms: int) -> bytes:
        """The bytes of one message, in sub-packages where its body is long. Raises LocalProtocolError."""
        serial = self._serial if message.serial is None else message.serial
        parts = frames(message, serial, self._max_body)
        self._serial = (serial + len(parts)) & 0xFFFF
        data = b"".join(build(part) for part in parts)
        if len(parts) > 1:
            self._splits[serial] = parts
            while len(self._splits) > _KEPT_SPLITS:
                del self._splits[next(iter(self._splits))]
        if self._keep and self.role is Role.SLAVE and (message.msg_id in WANTS_ANSWER or message.msg_id == 0x0100):
            # A message in parts is asked for part by part (8003); only its last part waits for an answer.
            last = parts[-1]
            kept = replace(message, serial=serial, last_serial=last.serial)
            self._kept[last.serial] = _Kept(kept, build(last), now_ms + self._answer_timeout_ms)
            while len(self._kept) > self._keep:
                self.given_up.append(self._kept.pop(next(iter(self._kept))).message)
        return data

    @property
    def next_serial(self) -> int:
        """What the next message without a serial of its own gets."""
        return self._serial

    def take_output(self) -> bytes:
        """What the protocol itself wants written (answers to parts, requests for gaps, resends): write it after each
        ``feed`` and ``tick``."""
        data = bytes(self._output)
        self._output.clear()
        return data

    @property
    def unanswered(self) -> tuple[Message, ...]:
        """A terminal's messages without an answer, oldest first."""
        return tuple(kept.message for kept in self._kept.values())

    def disconnected(self) -> tuple[Message, ...]:
        """The connection has gone: half frames are void; what nobody answered is given back."""
        self._scanner.reset()
        self._joiner.clear()
        self._silence_at_ms = None
        self._output.clear()
        left = self.unanswered
        self._kept.clear()
        return left

    # -- time

    def deadline(self) -> int | None:
        due = [kept.due_ms for kept in self._kept.values()] if self._kept else []
        due += [at for at in (self._silence_at_ms, self._joiner.deadline()) if at is not None]
        return min(due, default=None)

    def tick(self, now_ms: int) -> list[Message | RemoteProtocolError]:
        out: list[Message | RemoteProtocolError] = []
        if self._silence_at_ms is not None and self._silence_at_ms <= now_ms:
            self._silence_at_ms = None
            out.extend(one for one in self._scanner.idle() if isinstance(one, RemoteProtocolError))
        for found in self._joiner.tick(now_ms):
            if isinstance(found, Gap):
                self._ask(found)
            else:
                out.append(found)
        for serial, kept in list(self._kept.items()):
            if kept.due_ms > now_ms:
                continue
            if kept.times >= self._resends:
                self.given_up.append(self._kept.pop(serial).message)
                continue
            kept.times += 1
            # The same frame with the same serial, each wait longer: T, 2T, 3T.
            kept.due_ms = now_ms + self._answer_timeout_ms * (kept.times + 1)
            self._output += kept.data
        return out

    def _ask(self, gap: Gap) -> None:
        wide = gap.part.version == "2019"
        if self.role is Role.MASTER:
            self._say(gap.part, ResendRequest(gap.first_serial, gap.missing, wide))
        elif wide:  # 0005 came with 2019
            self._say(gap.part, TerminalResendRequest(gap.first_serial, gap.missing, wide))
