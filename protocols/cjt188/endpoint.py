"""Both ends of a CJ/T 188 line: the master that asks and the meter that answers.

A master believes only what answers its open request. SER, a running number that the meter echoes, tells a late answer
from the right one; meters whose SER never changes exist, so the check can be left to whoever knows the meter.
"""

from __future__ import annotations

from protocols.cjt188.frame import Found, Scanner, build
from protocols.cjt188.messages import (
    ANYBODY,
    FROM_METER,
    AddressReply,
    Command,
    Done,
    ErrorReply,
    Message,
    Read,
    ReadAddress,
    ReadReply,
    Request,
    from_frame,
    same_class,
    to_frame,
)
from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.scanning import ScanningEndpoint

#: Pause between two bytes of a frame: at most 500 ms (from field practice).
SILENCE_MS = 500


class Cjt188Endpoint(ScanningEndpoint[Message]):
    """One end of one line.

    ``listen``: take every frame of both directions as it comes (a sniffer, a decoder of captures). ``preamble``: FE
    bytes in front of what we send; it may be changed between two requests. ``check_ser`` False: an answer with
    another SER is given on.
    """

    silence_ms = SILENCE_MS

    def __init__(self, role: Role, *, listen: bool = False, preamble: int = 4, check_ser: bool = True) -> None:
        super().__init__(Scanner())
        self.role = role
        self.preamble = preamble
        self._listen = listen
        self._check_ser = check_ser
        self._asked: Request | None = None
        self.echoes = 0  # own requests that came back from the adapter

    def send(self, message: Message, now_ms: int) -> bytes:
        """The bytes of one message. A master's line is flushed first: what came late belongs to an older request."""
        asks = isinstance(message, (Read, ReadAddress, Command))
        if asks is (self.role is Role.SLAVE):
            raise LocalProtocolError(f"CJ/T 188 {self.role.value} cannot send {type(message).__name__}", reason="role")
        data = build(to_frame(message, self.preamble))
        if isinstance(message, (Read, ReadAddress, Command)):
            self._flush()
            self._asked = message
        return data

    def _take(self, found: Found | RemoteProtocolError) -> list[Message | RemoteProtocolError]:
        if isinstance(found, RemoteProtocolError):
            return [found]
        frame = found.frame
        if not self._listen and bool(frame.ctrl & FROM_METER) is (self.role is Role.SLAVE):
            # Own bytes come back on a two-wire adapter; a meter hears its neighbours' answers.
            self.echoes += 1
            return []
        try:
            message = from_frame(frame)
        except RemoteProtocolError as error:
            return [error]
        if self._listen or self.role is Role.SLAVE:
            return [message]
        if (wrong := self._wrong(message)) is not None:
            return [wrong]
        self._asked = None
        return [message]

    def _wrong(self, message: Message) -> RemoteProtocolError | None:
        asked = self._asked
        if asked is None:
            return RemoteProtocolError(f"CJ/T 188 answer of {message.addr} to nothing", reason="unexpected")
        if asked.addr not in (ANYBODY, message.addr) or not same_class(asked.type, message.type):
            text = f"CJ/T 188 answer of {message.type}/{message.addr}, asked {asked.type}/{asked.addr}"
            return RemoteProtocolError(text, reason="wrong_address")
        match asked, message:
            case (Read(di=di), ReadReply(di=got)) if di == got:
                pass
            case (ReadAddress(), AddressReply()):
                pass
            case (Command(function=function, di=di), Done(function=done, di=got)) if (function, di) == (done, got):
                pass
            case (_, ErrorReply(function=function)) if to_frame(asked).ctrl == function:
                pass
            case _:
                text = f"CJ/T 188 {type(message).__name__} does not answer the request"
                return RemoteProtocolError(text, reason="unexpected")
        if self._check_ser and None not in (asked.ser, message.ser) and asked.ser != message.ser:
            text = (
                f"CJ/T 188 SER {message.ser}, asked with {asked.ser}: a late answer, or a meter that does not echo it"
            )
            return RemoteProtocolError(text, reason="wrong_ser")
        return None
