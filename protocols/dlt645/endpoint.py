"""Both ends of a DL/T 645 line: the master that asks and the meter that answers.

A master believes only what answers its open request: adapters echo requests (D7 = 0: dropped), a late answer of
another meter must not be booked on this one.
"""

from __future__ import annotations

from protocols.core.endpoint import Role
from protocols.core.errors import LocalProtocolError, RemoteProtocolError
from protocols.core.scanning import ScanningEndpoint
from protocols.dlt645.frame import Frame, Scanner, build
from protocols.dlt645.messages import (
    BROADCAST,
    AddressReply,
    BroadcastTime,
    Command,
    Done,
    ErrorReply,
    Message,
    Read,
    ReadAddress,
    ReadMore,
    ReadReply,
    address_matches,
    from_frame,
    to_frame,
)

#: Pause between two bytes of a frame: at most 500 ms.
SILENCE_MS = 500


class Dlt645Endpoint(ScanningEndpoint[Message]):
    """One end of one line.

    ``listen``: take every frame of both directions as it comes (a sniffer, a decoder of captures). ``preamble``: FE
    bytes in front of what we send.
    """

    silence_ms = SILENCE_MS

    def __init__(self, role: Role, *, listen: bool = False, preamble: int = 4) -> None:
        super().__init__(Scanner())
        self.role = role
        self._listen = listen
        self._preamble = preamble
        self._asked: Message | None = None
        self.echoes = 0  # own requests that came back from the adapter

    def send(self, message: Message, now_ms: int) -> bytes:
        """The bytes of one message. A master's line is flushed first: what came late belongs to an older request."""
        asks = isinstance(message, (Read, ReadMore, ReadAddress, BroadcastTime, Command))
        if asks is (self.role is Role.SLAVE):
            raise LocalProtocolError(f"DL/T 645 {self.role.value} cannot send {type(message).__name__}", reason="role")
        data = build(to_frame(message, self._preamble))
        if asks:
            self._flush()
            self._asked = None if isinstance(message, BroadcastTime) else message
        return data

    def _take(self, found: Frame | RemoteProtocolError) -> list[Message | RemoteProtocolError]:
        if isinstance(found, RemoteProtocolError):
            return [found]
        from_meter = bool(found.ctrl & 0x80)
        if not self._listen and from_meter is (self.role is Role.SLAVE):
            # Own bytes come back on a two-wire adapter; a meter hears its neighbours' answers.
            self.echoes += 1
            return []
        try:
            message = from_frame(found)
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
            return RemoteProtocolError(f"DL/T 645 answer of {message.addr} to nothing", reason="unexpected")
        if asked.addr != BROADCAST and not address_matches(asked.addr, message.addr):
            text = f"DL/T 645 answer of {message.addr}, asked {asked.addr}"
            return RemoteProtocolError(text, reason="wrong_address")
        match asked, message:
            case (Read(di=di), ReadReply(di=got, seq=None)) if di == got:
                return None
            case (ReadMore(di=di, seq=seq), ReadReply(di=got, seq=answered)) if di == got and seq == answered:
                return None
            case (ReadAddress(), AddressReply()):
                return None
            case (Command(function=function), Done(function=done)) if function == done:
                return None
            case (_, ErrorReply(function=function)):
                # A 1997 meter answers C1 to a 2007 read.
                if to_frame(asked).ctrl == function or (isinstance(asked, Read) and function == 0x01):
                    return None
        return RemoteProtocolError(
            f"DL/T 645 {type(message).__name__} does not answer the request", reason="unexpected"
        )
