"""Both ends of a GB/T 20999-2017 link: the host (MASTER) that asks and the controller (SLAVE) that answers and reports.

A host believes only what answers its open request: controllers have been seen to answer with another address than
asked, and the sequence number is the sender's own. Reports (60) and heartbeats come whenever they like.
"""

from __future__ import annotations

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.traffic_signal.frame import Framing, Raw, Scanner, build
from protocols.traffic_signal.messages import ANSWERS, FROM_CONTROLLER, FROM_HOST, Kind, Message, parse, payload_of

#: A half frame on a stream is given up after this silence (1200 bit/s lines pause between blocks).
SILENCE_MS = 2_000


class SignalEndpoint:
    """One end of one link.

    ``framing``: ``stream`` (TCP, RS-232: escaped) or ``datagram`` (UDP: raw, one frame each; use
    :meth:`feed_datagram`). ``listen``: take every frame of both directions (a decoder of captures).
    """

    def __init__(self, role: Role, *, framing: Framing = "stream", listen: bool = False) -> None:
        self.role = role
        self._framing: Framing = framing
        self._listen = listen
        self._scanner = Scanner(framing)
        self._asked: Message | None = None
        self._silence_at_ms: int | None = None

    def feed(self, data: bytes, now_ms: int) -> list[Message | RemoteProtocolError]:
        out = [one for found in self._scanner.feed(data) for one in self._take(found)]
        self._silence_at_ms = now_ms + SILENCE_MS if self._scanner.held else None
        return out

    def feed_datagram(self, data: bytes, now_ms: int) -> list[Message | RemoteProtocolError]:
        """One whole datagram: nothing of it waits for the next one."""
        self._scanner.reset()
        out = self.feed(data, now_ms)
        self._silence_at_ms = None
        return out + [one for found in self._scanner.idle() for one in self._take(found)]

    def send(self, message: Message, now_ms: int) -> bytes:
        """The bytes of one message."""
        wrong = FROM_CONTROLLER if self.role is Role.MASTER else FROM_HOST
        if message.kind in wrong:
            raise LocalProtocolError(f"GB/T 20999 {self.role.value} cannot send {message.kind.name}", reason="role")
        data = build(payload_of(message), self._framing)
        if self.role is Role.MASTER and message.kind in ANSWERS:
            self._asked = message
        return data

    def give_up(self) -> None:
        """The open request is no longer waited for: its late answer is unexpected."""
        self._asked = None

    def deadline(self) -> int | None:
        return self._silence_at_ms

    def tick(self, now_ms: int) -> list[Message | RemoteProtocolError]:
        if self._silence_at_ms is None or now_ms < self._silence_at_ms:
            return []
        self._silence_at_ms = None
        return [one for found in self._scanner.idle() for one in self._take(found)]

    def _take(self, found: Raw | RemoteProtocolError) -> list[Message | RemoteProtocolError]:
        if isinstance(found, RemoteProtocolError):
            return [found]
        try:
            message = parse(found.payload)
        except RemoteProtocolError as error:
            return [error]
        if self._listen or (refused := self._refused(message)) is None:
            return [message]
        return [refused]

    def _refused(self, message: Message) -> RemoteProtocolError | None:
        kind = message.kind
        if self.role is Role.SLAVE:
            if kind in FROM_CONTROLLER:
                return RemoteProtocolError(f"GB/T 20999 {kind.name} sent to a controller", reason="unexpected")
            return None
        if kind in FROM_HOST:
            return RemoteProtocolError(f"GB/T 20999 {kind.name} sent to a host", reason="unexpected")
        if kind in (Kind.REPORT, Kind.HEARTBEAT):
            return None
        asked = self._asked
        if asked is None or kind not in ANSWERS[asked.kind]:
            return RemoteProtocolError(f"GB/T 20999 {kind.name} answers nothing that was asked", reason="unexpected")
        if asked.controller and message.controller not in (0, asked.controller):
            text = f"GB/T 20999 answer of controller {message.controller}, asked {asked.controller}"
            return RemoteProtocolError(text, reason="wrong_address")
        if message.items and not all(
            any(question.address.covers(item.address) for question in asked.items) for item in message.items
        ):
            got = ", ".join(str(item.address) for item in message.items[:4])
            return RemoteProtocolError(f"GB/T 20999 answer about {got}, which was not asked", reason="wrong_address")
        self._asked = None
        return None
